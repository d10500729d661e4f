"""What can be read off a study or trial, whether it is driven by threads or by asyncio."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, TypeVar

from asktell.client.claim import Claim
from asktell.client.errors import FailedPrecondition, NotFound
from asktell.client.spec import Fidelity, Objective, OutcomeConstraint, ParameterSpec, ParameterValue, Population
from asktell.client.stopping import StoppingRule
from asktell.client.values import (
    Budget,
    Change,
    Lease,
    Measurement,
    MetricValue,
    Origin,
    Prediction,
    StudyChanged,
    StudyRecord,
    StudyState,
    TrialChanged,
    TrialCounts,
    TrialRecord,
    TrialState,
)

logger = logging.getLogger("asktell.client")

T = TypeVar("T")

DEFAULT_PAUSE: Final = 5.0
SHORTEST_PAUSE: Final = 0.01


class StudyView:
    """A study as it stood when the service last showed it; `refresh` reads it again."""

    _said_unwatched = False
    _said_pair = False

    def __init__(self, record: StudyRecord) -> None:
        self._record = record

    def __repr__(self) -> str:
        return f"<Study {self.id!r}: {self.state.value}, {self.counts}>"

    @property
    def record(self) -> StudyRecord:
        """All that the service showed, as one value."""
        return self._record

    @property
    def name(self) -> str:
        """`projects/{project}/studies/{study}`."""
        return self._record.name

    @property
    def id(self) -> str:
        """The last part of the name."""
        return self._record.name.rpartition("/")[2]

    @property
    def parameters(self) -> tuple[ParameterSpec, ...]:
        """The dials, in the order in which they were given."""
        return self._record.parameters

    @property
    def constraints(self) -> tuple[str, ...]:
        """What holds between the parameters of every trial, as it was given."""
        return self._record.constraints

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The metrics to optimise."""
        return self._record.objectives

    @property
    def outcome_constraints(self) -> tuple[OutcomeConstraint, ...]:
        """The bounds that make a trial feasible."""
        return self._record.outcome_constraints

    @property
    def warm_start(self) -> tuple[str, ...]:
        """Ids of the earlier studies that this one starts from."""
        return self._record.warm_start

    @property
    def noisy(self) -> bool:
        """Whether the same parameters give another result each time."""
        return self._record.noisy

    @property
    def stopping_rule(self) -> StoppingRule | None:
        """What decides that trials may end early; None if nothing does."""
        return self._record.stopping_rule

    @property
    def fidelity(self) -> Fidelity | None:
        """The parameter that is raised by rungs; None if there is none."""
        return self._record.fidelity

    @property
    def population(self) -> Population | None:
        """How the population of the policy `pbt` evolves; None for any other policy."""
        return self._record.population

    @property
    def policy(self) -> str:
        """What chooses candidates."""
        return self._record.policy

    @property
    def seed(self) -> int | None:
        """What makes the choice of candidates repeatable."""
        return self._record.seed

    @property
    def budget(self) -> Budget:
        """How much the study may spend."""
        return self._record.budget

    @property
    def labels(self) -> Mapping[str, str]:
        """The user's own notes."""
        return self._record.labels

    @property
    def state(self) -> StudyState:
        """Whether the study hands out trials."""
        return self._record.state

    @property
    def counts(self) -> TrialCounts:
        """How many trials stand where."""
        return self._record.counts

    @property
    def lease_duration(self) -> timedelta | None:
        """How long a worker's claim on a trial lasts without renewal."""
        return self._record.lease_duration

    @property
    def sequence(self) -> int:
        """Sequence number of the latest change: what `watch` goes on from."""
        return self._record.sequence

    @property
    def create_time(self) -> datetime | None:
        """When the study was created."""
        return self._record.create_time

    @property
    def update_time(self) -> datetime | None:
        """When the study or one of its trials last changed."""
        return self._record.update_time

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the objectives."""
        return tuple(objective.metric for objective in self._record.objectives)

    def _in_order(self, trial: TrialRecord) -> TrialRecord:
        """The trial with its parameters in the order of the study's: the wire keeps none."""
        given = trial.parameters
        ordered = {spec.name: given[spec.name] for spec in self.parameters if spec.name in given}
        return replace(trial, parameters={**ordered, **given})

    def _change_in_order(self, change: Change) -> Change:
        """The change with a trial's parameters in the order of the study's."""
        if isinstance(change, StudyChanged):
            return change
        return TrialChanged(change.sequence, self._in_order(change.trial))

    def _predictions_in_order(self, found: Sequence[Mapping[str, Prediction]]) -> list[dict[str, Prediction]]:
        """Predictions with the metrics in the order of the study's objectives, then others by name."""
        order = {name: place for place, name in enumerate(self.metrics)}
        return [
            dict(sorted(each.items(), key=lambda pair: (order.get(pair[0], len(order)), pair[0]))) for each in found
        ]

    def _hear_of_report(self, metrics: Mapping[str, MetricValue]) -> None:
        """Say once that the stopping rule watches a metric that a report lacks: without it the rule is as good as none."""
        rule = self.stopping_rule
        watched = None if rule is None else rule.metric or self.metrics[0]
        if watched is None or not metrics or watched in metrics or self._said_unwatched:
            return
        self._said_unwatched = True
        logger.warning(
            "study %r: its stopping rule watches %s, and a report has but %s: a trial that does not report %s is never stopped early",
            self.id,
            watched,
            ", ".join(metrics),
            watched,
        )

    def _heard(self, result: T) -> T:
        """What an objective returned. It is said once that a pair was taken as a value with its standard error: two metrics may be meant."""
        if isinstance(result, tuple) and len(self.metrics) == 1 and not (self.noisy or self._said_pair):
            match result:
                case (value, error) if error is not None:
                    self._said_pair = True
                    self._say_pair(value, error)
        return result

    def _say_pair(self, value: object, error: object) -> None:
        metric = self.metrics[0]
        logger.warning(
            "study %r: the objective returned a pair, taken as %s %s with the standard error %s;"
            ' two metrics are a dict, such as {"%s": %s, "other": %s}, and {"%s": (%s, %s)} says that a standard error is meant',
            *(self.id, metric, value, error, metric, value, error, metric, value, error),
        )

    def _without_gaps(self, parameters: Mapping[str, ParameterValue]) -> Mapping[str, ParameterValue]:
        """The parameters without those that a row of a table has as NaN since they were not active: no parameter has such a value.

        Of a parameter that is always active it is left for the service to refuse.
        """
        if not isinstance(parameters, Mapping):
            return parameters
        conditional = {spec.name for spec in self.parameters if spec.when is not None}
        return {name: value for name, value in parameters.items() if not (name in conditional and is_gap(value))}

    def _require_one_objective(self) -> None:
        if len(self.metrics) != 1:
            names = ", ".join(self.metrics)
            raise FailedPrecondition(
                f"study {self.id!r} has the objectives {names}: no trial is the best, see optimal_trials",
                reason="SEVERAL_OBJECTIVES",
            )


def is_gap(value: object) -> bool:
    """Whether a value is what tables have where there is none: NaN, or the NA of pandas, of which it cannot be said what it equals."""
    try:
        return bool(value != value)  # noqa: PLR0124 - only NaN is not itself.
    except (TypeError, ValueError, RuntimeError):
        return type(value).__name__ == "NAType"


class TrialView:
    """A trial as it stood when the service last showed it, and this process's claim on it, if it has one."""

    _objectives: Sequence[str] = ()
    _claim: Claim | None = None
    _ended = False

    def __init__(self, record: TrialRecord) -> None:
        self._record = record

    def __repr__(self) -> str:
        return f"<Trial {self.number}: {self.state.value}, {dict(self.parameters)}>"

    @property
    def record(self) -> TrialRecord:
        """All that the service showed, as one value."""
        return self._record

    @property
    def name(self) -> str:
        """`projects/{project}/studies/{study}/trials/{number}`."""
        return self._record.name

    @property
    def study_name(self) -> str:
        """`projects/{project}/studies/{study}`."""
        return self._record.name.rpartition("/trials/")[0]

    @property
    def number(self) -> int:
        """1, 2, 3 and so on in a study."""
        return self._record.number

    @property
    def state(self) -> TrialState:
        """How the trial stands."""
        return self._record.state

    @property
    def parameters(self) -> dict[str, ParameterValue]:
        """Values of the active parameters, of the kinds that the study has; a copy."""
        return dict(self._record.parameters)

    @property
    def metrics(self) -> dict[str, MetricValue]:
        """The final measurement; a copy."""
        return dict(self._record.metrics)

    def value(self, metric: str | None = None) -> float:
        """The value of a metric of the final measurement, by default of the only objective. NotFound if there is none."""
        wanted = self._objectives[0] if metric is None and len(self._objectives) == 1 else metric
        if wanted is None:
            raise FailedPrecondition(f"the study has {len(self._objectives)} objectives: name the metric")
        if wanted not in self._record.metrics:
            raise NotFound(
                f"trial {self.number} is {self.state.value} and has no metric {wanted!r}", reason="NO_METRIC"
            )
        return self._record.metrics[wanted].value

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """What was reported on the way, in the order of steps; only on a trial from `get_trial`."""
        return self._record.measurements

    @property
    def metadata(self) -> Mapping[str, str]:
        """The user's own notes."""
        return self._record.metadata

    @property
    def origin(self) -> Origin:
        """How the parameters were chosen."""
        return self._record.origin

    @property
    def message(self) -> str:
        """Why the trial failed, is infeasible or was stopped, or should stop."""
        return self._record.message or (self._claim.message if self._claim else "")

    @property
    def attempt(self) -> int:
        """How many times the trial was handed out."""
        return self._record.attempt

    @property
    def worker_id(self) -> str:
        """Who holds the trial, or held it last; empty if nobody did."""
        return self._record.worker_id

    @property
    def checkpoint_uri(self) -> str:
        """Where the trial left its state last, to resume from; empty if nowhere. That of a trial in hand is as of when it was asked for."""
        return self._record.checkpoint_uri

    @property
    def parent(self) -> int:
        """The number of the trial whose checkpoint this one goes on from; 0 if it starts afresh."""
        return self._record.parent

    @property
    def member(self) -> int:
        """Which member of a population the trial is an interval of, from 1; 0 outside population based training."""
        return self._record.member

    @property
    def lease(self) -> Lease | None:
        """The claim on the trial; this process's as last renewed, else as the service showed it."""
        return self._claim.lease if self._claim else self._record.lease

    @property
    def create_time(self) -> datetime | None:
        """When the trial was created."""
        return self._record.create_time

    @property
    def start_time(self) -> datetime | None:
        """When it was last handed out."""
        return self._record.start_time

    @property
    def end_time(self) -> datetime | None:
        """When it ended."""
        return self._record.end_time

    @property
    def ended(self) -> bool:
        """Whether this process is through with the trial: told, failed, stopped, released or cancelled it."""
        return self._ended

    @property
    def should_stop(self) -> bool:
        """Whether the service said, to a report or a renewal, that this trial should end now; also True when it is lost."""
        return self._claim is not None and self._claim.should_stop

    @property
    def silence(self) -> float:
        """Seconds since the service last granted or renewed this process's lease, by the monotonic clock; 0 without one."""
        return self._claim.silence if self._claim is not None else 0.0

    @property
    def lost(self) -> bool:
        """Whether the service said that the trial is no longer this worker's."""
        return self._claim is not None and self._claim.lost


def pause_before_next_ask(retry_after: timedelta | None) -> float:
    """How long to wait when there is no trial now, in seconds: what the service says, at least 10 ms, else 5."""
    return DEFAULT_PAUSE if retry_after is None else max(SHORTEST_PAUSE, retry_after.total_seconds())
