"""Values that studies and trials are made of. All are frozen; times are in UTC, by the service's clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, StrEnum
from typing import Final, Generic, Literal, SupportsFloat, TypeAlias, TypeVar

from asktell.client.spec import Fidelity, Objective, OutcomeConstraint, ParameterSpec, ParameterValue, Population
from asktell.client.stopping import StoppingRule

TrialT = TypeVar("TrialT")

Seconds: TypeAlias = float | timedelta
OnError: TypeAlias = Literal["raise", "continue"]


class StudyState(StrEnum):
    """Whether a study hands out trials."""

    ACTIVE = "active"
    PAUSED = "paused"
    FINISHED = "finished"


class TrialState(StrEnum):
    """How a trial stands."""

    QUEUED = "queued"
    ACTIVE = "active"
    SUCCEEDED = "succeeded"
    STOPPED = "stopped"
    INFEASIBLE = "infeasible"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether the trial has ended."""
        return self not in (TrialState.QUEUED, TrialState.ACTIVE)


class LateTells(StrEnum):
    """What becomes of a result told after its lease was lost."""

    ACCEPT = "accept"
    REFUSE = "refuse"


class Reason(StrEnum):
    """Why fewer trials were handed out than asked for."""

    NONE = ""
    EXHAUSTED = "exhausted"
    BUDGET_SPENT = "budget_spent"
    PAUSED = "paused"
    MAX_PARALLEL = "max_parallel"
    FINISHED = "finished"
    RESULTS_AWAITED = "results_awaited"
    REPLY_FULL = "reply_full"


class Directive(StrEnum):
    """Whether a worker should go on with a trial."""

    CONTINUE = "continue"
    STOP = "stop"
    ABANDON = "abandon"


class Keep(Enum):
    """The kind of `KEEP`: None means unlimited, and cannot say that a limit stays as it is."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP


@dataclass(frozen=True, slots=True)
class MetricValue:
    """A metric's value, which may be NaN or infinite, and its standard error (None: unknown, 0: exact)."""

    value: float
    standard_error: float | None = None

    def __float__(self) -> float:
        return self.value


MetricLike: TypeAlias = SupportsFloat | tuple[SupportsFloat, SupportsFloat | None] | MetricValue
Metrics: TypeAlias = Mapping[str, MetricLike]


@dataclass(frozen=True, slots=True)
class Measurement:
    """Metrics at one moment of a trial; `create_time` is when the service received them."""

    step: int
    metrics: Mapping[str, MetricValue]
    create_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the surrogate expects of a metric, in the metric's unit; the standard deviation is that of the noise-free value."""

    mean: float
    standard_deviation: float


@dataclass(frozen=True, slots=True)
class Hypervolume:
    """How much of the space of two to four objectives the Pareto front dominates, up to `reference` (by metric, in its unit).

    It is a product of the objectives' units, and more is better. `history` has the numbers of trials that changed the front, in the order
    in which they ended, each with the hypervolume then, all from the present reference; of more than 200 it has 200.
    """

    value: float
    reference: Mapping[str, float]
    history: Sequence[tuple[int, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """How a trial's parameters were chosen.

    `policy` is `user` for an added trial; `method` is what in the policy chose; `fallback` says why the policy did not do its usual,
    `reason` why it was this policy, where the study left the choice to `auto`, and which earlier studies it starts from.
    """

    policy: str = ""
    method: str = ""
    fallback: str = ""
    reason: str = ""
    predictions: Mapping[str, Prediction] = field(default_factory=dict)
    acquisition: float | None = None
    incumbent: float | None = None
    compute_duration: timedelta = timedelta(0)
    made_for: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A worker's time-limited claim on a trial. `token` is shown to its holder alone, else empty; renewed, it lasts `duration` again."""

    token: str = field(default="", repr=False)
    worker_id: str
    expire_time: datetime
    duration: timedelta


@dataclass(frozen=True, slots=True)
class Report:
    """What the service says to a report. `should_stop`: end the trial now; `lost`: it is no longer this worker's; `message`: why."""

    should_stop: bool
    lost: bool
    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the service says to the holder of a lease: go on or not, why not, and the renewed lease without its token."""

    number: int
    directive: Directive
    message: str
    lease: Lease | None


@dataclass(frozen=True, slots=True)
class Answer(Generic[TrialT]):
    """What an ask yielded.

    With fewer trials than asked for, `reason` says why; `closed`: none will come any more; `retry_after`: when to ask again, None where
    the service does not say.
    """

    trials: Sequence[TrialT]
    closed: bool
    reason: Reason
    retry_after: timedelta | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much a study may spend; None is unlimited."""

    max_trials: int | None = None
    max_duration: timedelta | None = None
    max_failures: int | None = None
    max_parallel: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialCounts:
    """How many trials stand where."""

    queued: int = 0
    active: int = 0
    succeeded: int = 0
    stopped: int = 0
    infeasible: int = 0
    failed: int = 0
    cancelled: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedTrial:
    """A trial that ended elsewhere, to import.

    `state` is SUCCEEDED (with every objective), STOPPED (with the last metrics, if any), INFEASIBLE or FAILED.
    """

    parameters: Mapping[str, ParameterValue]
    metrics: Metrics = field(default_factory=dict)
    state: TrialState = TrialState.SUCCEEDED
    measurements: Sequence[Measurement] = ()
    message: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LeaveOneOut:
    """How the surrogate, given the other results, predicts the metric of trial `number`; the standard deviation includes the noise."""

    metric: str
    number: int
    observed: float
    predicted: Prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRecord:
    """A study as the service showed it. `name` is `projects/{project}/studies/{study}`."""

    name: str
    parameters: tuple[ParameterSpec, ...]
    objectives: tuple[Objective, ...]
    constraints: tuple[str, ...]
    outcome_constraints: tuple[OutcomeConstraint, ...]
    noisy: bool
    warm_start: tuple[str, ...]
    stopping_rule: StoppingRule | None
    fidelity: Fidelity | None
    population: Population | None
    policy: str
    seed: int | None
    lease_duration: timedelta | None
    max_attempts: int | None
    late_tells: LateTells | None
    budget: Budget
    labels: Mapping[str, str]
    state: StudyState
    counts: TrialCounts
    sequence: int
    create_time: datetime | None
    update_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """A trial as the service showed it. `name` is `projects/{project}/studies/{study}/trials/{number}`.

    `parent` is the number of the trial whose checkpoint it goes on from, 0 if it starts afresh; `member` which one of a population it is an
    interval of, 0 if there is none.
    """

    name: str
    number: int
    state: TrialState
    parameters: Mapping[str, ParameterValue]
    metrics: Mapping[str, MetricValue]
    measurements: tuple[Measurement, ...]
    lease: Lease | None
    origin: Origin
    message: str
    metadata: Mapping[str, str]
    attempt: int
    checkpoint_uri: str
    parent: int
    member: int
    sequence: int
    create_time: datetime | None
    start_time: datetime | None
    end_time: datetime | None
    worker_id: str


@dataclass(frozen=True, slots=True)
class StudyChanged:
    """The study itself was created, or its state, budget, labels, search space or stopping rule changed; `study` is how it stands now."""

    sequence: int
    study: StudyRecord


@dataclass(frozen=True, slots=True)
class TrialChanged:
    """A trial was created or changed; `trial` is how it stands at this sequence number, without measurements."""

    sequence: int
    trial: TrialRecord


Change = StudyChanged | TrialChanged
"""One change of a study. Go on watching with its `sequence`."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a watch brings at once: changes, and the sequence number up to which there are no others."""

    changes: Sequence[Change]
    sequence: int


def seconds(duration: Seconds) -> float:
    """A duration as a number of seconds."""
    return duration.total_seconds() if isinstance(duration, timedelta) else float(duration)


def budget(
    max_trials: int | None, max_duration: Seconds | None, max_failures: int | None, max_parallel: int | None
) -> Budget:
    """A budget; the duration may be a number of seconds."""
    duration = None if max_duration is None else timedelta(seconds=seconds(max_duration))
    return Budget(max_trials=max_trials, max_duration=duration, max_failures=max_failures, max_parallel=max_parallel)
