"""What an Optuna study found, as a study of asktell's that goes on from there.

`import_study(Client("localhost:50051"), optuna.load_study(study_name="digits", storage="sqlite:///digits.db"))`
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final, Self

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import Study as OptunaStudy
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from asktell.client import (
    Client,
    FinishedTrial,
    InvalidArgument,
    Measurement,
    MetricValue,
    Objective,
    ParameterSpec,
    Study,
)
from asktell.integrations.optuna import NUMBER, STATES, constraint_metric, constraints_of, objectives_of
from asktell.integrations.optuna_space import Dial, Space, make_dial

logger = logging.getLogger("asktell.integrations.optuna")

MOST_VALUES_OF_A_PARENT: Final = 16
"""Different values that an integer has at most if other parameters exist under it: with more, some would part any trials by chance."""
_TEXT: Final = 1_024
_ATTRIBUTES: Final = 60


def import_study(
    client: Client,
    study: OptunaStudy,
    study_id: str = "",
    *,
    parameters: Sequence[ParameterSpec] | None = None,
    **options: Any,
) -> Study:
    """Create a study with the space, the objectives and all finished trials of an Optuna study, or bring one up to date that was made so.

    `study_id` is by default Optuna's name of the study, and `options` are those of `Client.create_study`. Without `parameters` the space is
    what the trials suggested: of each parameter the widest range, and, of one that not all trials have, the parent under whose values it
    exists. Trials outside the space are left out, with a warning. InvalidArgument for a parameter whose parent the trials do not tell, that
    changed its kind, or that asktell cannot hold: declare the `parameters` then.
    """
    finished = [trial for trial in study.get_trials(deepcopy=False) if trial.state in STATES]
    space = Space.declared(parameters) if parameters is not None else infer_space(finished)
    history = _History(space, objectives_of(study.directions, study.metric_names))
    made = client.create_study(
        study_id or study.study_name,
        parameters=space.parameters,
        objectives=history.objectives,
        outcome_constraints=constraints_of(finished),
        **options,
    )
    there = {int(trial.metadata[NUMBER]) for trial in made.list_trials() if NUMBER in trial.metadata}
    missing = [trial for trial in finished if trial.number not in there]
    converted = [(trial.number, history.converted(trial)) for trial in missing]
    made.import_trials(trial for _, trial in converted if trial is not None)
    if left_out := [str(number) for number, trial in converted if trial is None]:
        logger.warning("trials of Optuna that are outside the space are left out: %s", ", ".join(left_out))
    made.refresh()
    return made


def infer_space(trials: Sequence[FrozenTrial]) -> Space:
    """The parameters that trials suggested. InvalidArgument where they do not tell what asktell has to know."""
    # Of a trial that failed it is not known what it would have suggested later.
    whole = [trial for trial in trials if trial.state is not OptunaState.FAIL] or list(trials)
    names = sorted(set(chain.from_iterable(trial.distributions for trial in whole)))
    if not names:
        raise InvalidArgument.at("parameters", "must be given: no finished trial of the Optuna study suggested any")
    made = {
        name: _dial(name, [each.distributions[name] for each in whole if name in each.distributions]) for name in names
    }
    dials = {name: dial for name, dial in made.items() if dial is not None}
    parents = {name: _Parent.of(name, dials, whole) for name in dials}
    return Space(tuple(_under(dial, parents[name], dials) for name, dial in dials.items()))


def _dial(name: str, seen: Sequence[BaseDistribution]) -> Dial | None:
    """The parameter with all ranges that it had; None if it never had a choice."""
    merged = _merged(name, seen)
    dial = make_dial(name, merged)
    if dial is None and not merged.single():
        raise InvalidArgument.at(f"parameters[{name}]", f"is more than asktell can hold: {merged}")
    return dial


def _merged(name: str, seen: Sequence[BaseDistribution]) -> BaseDistribution:
    widest = seen[0]
    for other in seen[1:]:
        if other != widest:
            widest = _wider(name, widest, other)
    return widest


def _wider(name: str, one: BaseDistribution, other: BaseDistribution) -> BaseDistribution:
    match one, other:
        case CategoricalDistribution(), CategoricalDistribution():
            added = [choice for choice in other.choices if not _among(choice, one.choices)]
            return CategoricalDistribution([*one.choices, *added])
        case FloatDistribution(), FloatDistribution() if (one.log, one.step) == (other.log, other.step):
            low, high = min(one.low, other.low), max(one.high, other.high)
            return FloatDistribution(low, high, log=one.log, step=one.step)
        case IntDistribution(), IntDistribution() if (one.log, one.step) == (other.log, other.step):
            return IntDistribution(min(one.low, other.low), max(one.high, other.high), log=one.log, step=one.step)
    raise InvalidArgument.at(f"parameters[{name}]", f"changed its kind between trials: {one}, {other}")


def _among(choice: Any, choices: Iterable[Any]) -> bool:
    return any(type(each) is type(choice) and each == choice for each in choices)


@dataclass(frozen=True, slots=True)
class _Parent:
    """The parameter that another one exists under, and the values of it."""

    name: str
    values: tuple[Any, ...]

    @classmethod
    def of(cls, name: str, dials: Mapping[str, Dial], trials: Sequence[FrozenTrial]) -> Self | None:
        """The parent that parts the trials with a parameter from those without; None if all have it."""
        having = [trial for trial in trials if name in trial.params]
        if len(having) == len(trials):
            return None
        lacking = [trial for trial in trials if name not in trial.params]
        found = [parent for parent in (cls._parting(other, dials[other], having, lacking) for other in dials) if parent]
        if not found:
            raise InvalidArgument.at(
                f"parameters[{name}]",
                f"is in {len(having)} of {len(trials)} trials, and no other parameter tells in which: declare the parameters",
            )
        return min(found, key=lambda parent: (len(parent.values), parent.name))

    @classmethod
    def _parting(
        cls, name: str, dial: Dial, having: Sequence[FrozenTrial], lacking: Sequence[FrozenTrial]
    ) -> Self | None:
        """This parameter as the parent, if its values part the trials; those that lack it lack what is under it."""
        if any(name not in trial.params for trial in having):
            return None
        with_it = _distinct(trial.params[name] for trial in having)
        without = _distinct(trial.params[name] for trial in lacking if name in trial.params)
        is_small = isinstance(dial.distribution, CategoricalDistribution) or (
            isinstance(dial.distribution, IntDistribution) and len(with_it) + len(without) <= MOST_VALUES_OF_A_PARENT
        )
        if not is_small or not without or any(_among(value, with_it) for value in without):
            return None
        return cls(name, tuple(with_it))


def _distinct(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if not _among(value, found):
            found.append(value)
    return sorted(found, key=lambda value: (str(type(value)), str(value)))


def _under(dial: Dial, parent: _Parent | None, dials: Mapping[str, Dial]) -> Dial:
    if parent is None:
        return dial
    above = dials[parent.name]
    when = (above.spec.name, [above.sent(value) for value in parent.values])
    logger.info("parameter %r exists where %r is one of %s, as in all trials so far", dial.name, parent.name, when[1])
    return replace(dial, spec=replace(dial.spec, when=when))


@dataclass(frozen=True, slots=True)
class _History:
    """How finished trials of Optuna's are those of a study with this space and these objectives."""

    space: Space
    objectives: tuple[Objective, ...]

    def converted(self, trial: FrozenTrial) -> FinishedTrial | None:
        """None if the trial lies outside the space."""
        try:
            parameters = self.space.sent(trial.params)
        except ValueError:
            return None
        return FinishedTrial(
            parameters=parameters,
            metrics=dict(self._metrics(trial)),
            state=STATES[trial.state],
            measurements=list(self._measurements(trial)),
            metadata={NUMBER: str(trial.number), **_attributes(trial)},
        )

    def _metrics(self, trial: FrozenTrial) -> Iterator[tuple[str, float]]:
        if trial.state is not OptunaState.FAIL and trial.values is not None:
            yield from zip((each.metric for each in self.objectives), trial.values, strict=True)
            yield from ((constraint_metric(name), value) for name, value in trial.constraints.items())

    def _measurements(self, trial: FrozenTrial) -> Iterator[Measurement]:
        """What was reported on the way, which Optuna has for one objective only; of NaN nothing can be learned."""
        for step, value in sorted(trial.intermediate_values.items()):
            if step >= 0 and not math.isnan(value):
                yield Measurement(step, {self.objectives[0].metric: MetricValue(value)})


def _attributes(trial: FrozenTrial) -> dict[str, str]:
    """The user's attributes as far as they are metadata: text of some length."""
    texts = {key: str(value) for key, value in trial.user_attrs.items()}
    kept = ((key, text) for key, text in texts.items() if _is_kept(key, text))
    return dict(list(kept)[:_ATTRIBUTES])


def _is_kept(key: str, text: str) -> bool:
    return 0 < len(key) < 64 and key.isprintable() and len(text) <= _TEXT and "\0" not in text
