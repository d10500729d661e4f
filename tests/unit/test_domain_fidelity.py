"""Which rungs a fidelity has, and which fidelities are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asktell.server.domain.constraints import InputConstraint
from asktell.server.domain.errors import InvalidArgument
from asktell.server.domain.fidelity import Fidelity
from asktell.server.domain.metric import Goal, Objective
from asktell.server.domain.space import Bool, Condition, Float, Int, ParameterSpec, SearchSpace
from asktell.server.domain.stopping import Median, StoppingRule
from asktell.server.domain.study import StudySpec

RATE = Float(name="rate", low=1e-5, high=1e-1, log=True)
EPOCHS = Int(name="epochs", low=1, high=81)


def spec(*parameters: ParameterSpec, factor: int = 3, constraints: str = "", **others: Any) -> StudySpec:
    space = SearchSpace((RATE, *parameters), (InputConstraint.parse(constraints),) if constraints else ())
    return StudySpec(
        space=space,
        objectives=(Objective("loss", Goal.MINIMIZE),),
        fidelity=Fidelity(parameter="epochs", reduction_factor=factor),
        **others,
    )


@pytest.mark.parametrize(
    ("parameter", "factor", "rungs"),
    [
        (EPOCHS, 3, (1, 3, 9, 27, 81)),
        (Int(name="epochs", low=1, high=81, log=True), 3, (1, 3, 9, 27, 81)),
        (Int(name="epochs", low=5, high=81), 3, (9, 27, 81)),
        (Int(name="epochs", low=1, high=100), 3, (1, 4, 11, 33, 100)),
        (Int(name="epochs", low=1, high=10), 4, (3, 10)),
        (Int(name="epochs", low=10, high=100, step=30), 3, (10, 40, 100)),
        (Int(name="epochs", low=10, high=99, step=30), 3, (10, 40, 70)),
        (Float(name="epochs", low=1 / 27, high=1.0), 3, (1 / 27, 1 / 9, 1 / 3, 1.0)),
        (Float(name="epochs", low=0.1, high=0.9, log=True), 3, (0.1, 0.3, 0.9)),
    ],
    ids=str,
)
def test_rungs_are_the_highest_value_divided_again_and_again(parameter, factor, rungs):
    study = spec(parameter, factor=factor)
    study.validate()
    assert study.fidelity is not None
    found = study.fidelity.rungs(study.space)
    assert found == pytest.approx(rungs)
    assert {type(rung) for rung in found} == {type(parameter.high)}


@given(
    st.integers(1, 2**40), st.integers(0, 2**40), st.integers(2, 9), st.none() | st.integers(1, 1_000), st.booleans()
)
def test_every_rung_is_a_value_of_the_parameter_and_above_the_one_before(low, width, factor, step, whole):
    bounds: dict[str, Any] = {"low": low, "high": low + width, "step": step}
    parameter = Int(name="epochs", **bounds) if whole else Float(name="epochs", **bounds)
    space = SearchSpace((parameter,))
    fidelity = Fidelity(parameter="epochs", reduction_factor=factor)
    rungs = fidelity.rungs(space)
    assert list(rungs) == sorted(set(rungs))
    assert [parameter.check(rung) for rung in rungs] == list(rungs)


@pytest.mark.parametrize(
    ("study", "path", "reason"),
    [
        (spec(), "fidelity.parameter", "'epochs' is not a parameter of the study"),
        (spec(Bool(name="epochs")), "fidelity.parameter", "neither a float nor an int"),
        (spec(Int(name="epochs", low=0, high=9)), "fidelity.parameter", "must be above 0, not from 0"),
        (spec(Float(name="epochs", low=5e-324, high=1.0)), "fidelity.parameter", "has more than 64 rungs"),
        (
            spec(Bool(name="long"), Int(name="epochs", low=1, high=9, when=Condition("long", (True,)))),
            "fidelity.parameter",
            "is active only under some values of 'long'",
        ),
        (
            spec(EPOCHS, Bool(name="late", when=Condition("epochs", (81,)))),
            "fidelity.parameter",
            "decides whether 'late' is active",
        ),
        (spec(EPOCHS, constraints="epochs * rate <= 8"), "fidelity.parameter", "is in an input constraint"),
        (spec(EPOCHS, factor=1), "fidelity.reduction_factor", "must be from 2 to 1,000, not 1"),
        (spec(EPOCHS, factor=100), "fidelity.reduction_factor", "leaves one rung: epochs is at most 81"),
        (
            spec(EPOCHS, policy="cma-es"),
            "policy",
            "'cma-es' knows no fidelity; with one, the policy is one of auto, gp",
        ),
        (spec(EPOCHS, noisy=True), "noisy", "cannot go with a fidelity"),
        (spec(EPOCHS, stopping_rule=StoppingRule(kind=Median())), "stopping_rule", "cannot go with a fidelity"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_a_fidelity_that_makes_no_sense_is_refused(study, path, reason):
    with pytest.raises(InvalidArgument, match=reason) as refused:
        study.validate()
    assert refused.value.field == path


def test_the_fidelity_keeps_its_range_when_the_space_becomes_wider():
    study = spec(EPOCHS)
    wider = study.widened([replace(RATE, high=1.0), replace(EPOCHS, default=9, has_default=True)])
    assert wider.space["rate"].high == 1.0
    with pytest.raises(InvalidArgument, match="'epochs' is the study's fidelity, and keeps its range") as refused:
        study.widened([RATE, replace(EPOCHS, high=243)])
    assert refused.value.field == "spec.parameters[1].int_spec.high"
