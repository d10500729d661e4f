"""Which populations make sense, and with which studies they go."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from asktell.server.domain.errors import InvalidArgument
from asktell.server.domain.fidelity import Fidelity
from asktell.server.domain.metric import Goal, Objective, OutcomeConstraint, Relation
from asktell.server.domain.population import Population
from asktell.server.domain.space import Int, SearchSpace
from asktell.server.domain.stopping import StoppingRule, Threshold
from asktell.server.domain.study import StudySpec

SPEC = StudySpec(
    space=SearchSpace((Int(name="epochs", low=1, high=81),)),
    objectives=(Objective("loss", Goal.MINIMIZE),),
    policy="pbt",
    population=Population(),
)
GAIN = Objective("gain", Goal.MAXIMIZE)


@pytest.mark.parametrize(
    "population",
    [
        Population(),
        Population(size=2, exploit_fraction=0.5),
        Population(size=1_000, exploit_fraction=0.001, resample_probability=1.0, perturbation_factor=10.0),
        Population(size=4, resample_probability=0.0, perturbation_factor=1.0000001),
    ],
    ids=str,
)
def test_a_population_of_its_own_policy_is_taken(population):
    replace(SPEC, population=population).validate()


@pytest.mark.parametrize(
    ("changes", "path", "reason"),
    [
        ({"size": 1}, "size", "must be from 2 to 1,000, not 1"),
        ({"size": 1_001}, "size", "must be from 2 to 1,000, not 1,001"),
        ({"size": 3}, "exploit_fraction", "0.25 of 3 members is not one"),
        ({"exploit_fraction": 0.0}, "exploit_fraction", "must be above 0 and at most 0.5, not 0.0"),
        ({"exploit_fraction": 0.51}, "exploit_fraction", "must be above 0 and at most 0.5"),
        ({"exploit_fraction": math.nan}, "exploit_fraction", "not nan"),
        ({"resample_probability": -0.1}, "resample_probability", "must be from 0 to 1, not -0.1"),
        ({"resample_probability": math.nan}, "resample_probability", "not nan"),
        ({"perturbation_factor": 1.0}, "perturbation_factor", "must be above 1 and at most 10, not 1.0"),
        ({"perturbation_factor": math.inf}, "perturbation_factor", "not inf"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_a_population_that_makes_no_sense_is_refused(changes, path, reason):
    with pytest.raises(InvalidArgument) as refused:
        replace(SPEC, population=replace(Population(), **changes)).validate()
    assert refused.value.field == f"population.{path}"
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"policy": "gp"}, "population"),
        ({"policy": "auto"}, "population"),
        ({"population": None}, "population"),
        ({"objectives": (*SPEC.objectives, GAIN)}, "objectives[1]"),
        ({"outcome_constraints": (OutcomeConstraint("time", Relation.AT_MOST, 1.0),)}, "outcome_constraints"),
        ({"noisy": True}, "noisy"),
        ({"stopping_rule": StoppingRule(kind=Threshold())}, "stopping_rule"),
        ({"warm_start": ("earlier",)}, "warm_start"),
        ({"fidelity": Fidelity(parameter="epochs")}, "policy"),
    ],
    ids=str,
)
def test_what_cannot_go_with_a_population_is_refused(changes, path):
    with pytest.raises(InvalidArgument) as refused:
        replace(SPEC, **changes).validate()
    assert refused.value.field == path
