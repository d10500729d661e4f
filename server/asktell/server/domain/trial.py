"""One configuration and what became of it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from enum import Enum
from itertools import repeat
from operator import attrgetter, call
from typing import Any, NamedTuple

from asktell.server.domain.errors import FailedPrecondition, InvalidArgument
from asktell.server.domain.metric import Measurement, Metrics
from asktell.server.domain.space import Parameters
from asktell.server.domain.study import LateTells, StudyName


class TrialState(Enum):
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
        return self is not TrialState.ACTIVE and self is not TrialState.QUEUED


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a surrogate expects of a metric, in the metric's unit."""

    mean: float
    standard_deviation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """How a trial's parameters were chosen. `policy` is `user` for an added trial; `fallback` says why a policy did not do its usual.

    `reason` says why it was this policy where the study left that to `auto`, and which sources there are. `made_for` is the sequence number
    of the study that the choice was made for: older than the trial's own where it was prepared ahead.
    """

    policy: str
    method: str = ""
    fallback: str = ""
    reason: str = ""
    predictions: Mapping[str, Prediction] = field(default_factory=dict)
    acquisition: float | None = None
    incumbent: float | None = None
    compute_duration: timedelta = timedelta(0)
    made_for: int = 0


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's time-limited claim on a trial.

    `token` is `{nonce}-{attempt}`: the nonce is the trial's, the attempt fences. A token of the same nonce and a lower attempt is stale.
    `stop` is why a stopping rule ends the trial, by what its holder reported last; "" if it does not.
    """

    token: str
    worker_id: str
    expire_time: datetime
    duration: timedelta
    stop: str = ""


class TrialName(NamedTuple):
    """`projects/{project}/studies/{study}/trials/{number}`."""

    study: StudyName
    number: int

    def __str__(self) -> str:
        return f"{self.study}/trials/{self.number}"

    @classmethod
    def parse(cls, name: str, *, path: str) -> TrialName:
        """Return the parts of a resource name, or raise InvalidArgument that names `path`."""
        study, separator, number = name.rpartition("/trials/")
        if not separator or not number.isascii() or not number.isdecimal() or len(number) > 16 or number[0] == "0":
            raise InvalidArgument(
                path, f"{name[:300]!a} is not of the form projects/{{project}}/studies/{{study}}/trials/{{number}}"
            )
        return cls(StudyName.parse(study, path=path), int(number))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A trial as it stands.

    `nonce` never changes and makes lease tokens unguessable; `attempt` counts hand-outs, `spent_attempts` those that expired or broke.
    `worker_id` is who holds the trial or held it last; `lease` its claim, which a queued trial keeps when it ran out. An illegal change
    raises and returns nothing. `parent` is the trial whose checkpoint this one goes on from, 0 if it starts afresh; `member` which one of a
    population it is an interval of, 0 if there is none.
    """

    number: int
    state: TrialState
    parameters: Parameters
    origin: Origin
    nonce: str
    metrics: Metrics = field(default_factory=dict)
    measurements: Sequence[Measurement] = ()
    message: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    lease: Lease | None = None
    worker_id: str = ""
    attempt: int = 0
    spent_attempts: int = 0
    checkpoint_uri: str = ""
    parent: int = 0
    member: int = 0
    sequence: int = 0
    create_time: datetime
    start_time: datetime | None = None
    end_time: datetime | None = None

    def leased(self, *, worker_id: str, duration: timedelta, now: datetime) -> Trial:
        """The trial in the hands of a worker."""
        if self.state is not TrialState.QUEUED:
            raise FailedPrecondition(
                f"trial {self.number} is {self.state.value}, not queued", reason="TRIAL_NOT_QUEUED"
            )
        attempt = self.attempt + 1
        lease = Lease(f"{self.nonce}-{attempt}", worker_id, now + duration, duration)
        return changed(self, state=TrialState.ACTIVE, lease=lease, worker_id=worker_id, attempt=attempt, start_time=now)

    def holds(self, token: str) -> bool:
        """Whether the token is that of the trial's live lease."""
        return self.state is TrialState.ACTIVE and self.lease is not None and self.lease.token == token

    def held(self, token: str) -> bool:
        """Whether the token is, or once was, that of a lease of this trial."""
        nonce, _, attempt = token.rpartition("-")
        return (
            nonce == self.nonce and attempt.isascii() and attempt.isdecimal() and 1 <= int(attempt[:9]) <= self.attempt
        )

    def gave_back(self, token: str) -> bool:
        """Whether the token is that of the latest lease, which was given back, and the trial has waited since."""
        latest = self.held(token) and token == f"{self.nonce}-{self.attempt}"
        return latest and self.state is TrialState.QUEUED and self.lease is None

    def require_lease(self, token: str) -> None:
        """Raise FailedPrecondition unless the token is that of the live lease."""
        if not self.holds(token):
            raise self._refusal(token)

    def require_tellable(self, token: str, late_tells: LateTells) -> None:
        """Raise FailedPrecondition unless this lease, live or lost, may end the trial."""
        if self.holds(token):
            return
        late = self.held(token) and not self.state.terminal and late_tells is LateTells.ACCEPT
        if not late:
            raise self._refusal(token)

    def _refusal(self, token: str) -> FailedPrecondition:
        if not self.held(token):
            return FailedPrecondition(f"trial {self.number} never had this lease token", reason="LEASE_UNKNOWN")
        if self.state.terminal:
            return FailedPrecondition(f"trial {self.number} is {self.state.value}, not active", reason="TRIAL_ENDED")
        return FailedPrecondition(
            f"trial {self.number}: the lease of attempt {token.rpartition('-')[2]} was lost; the trial is {self.state.value}"
            f" at attempt {self.attempt}",
            reason="LEASE_LOST",
        )

    def renewed(self, *, now: datetime) -> Trial:
        """The trial with its live lease starting anew."""
        if self.lease is None:
            raise FailedPrecondition(f"trial {self.number} has no lease", reason="LEASE_LOST")
        return changed(self, lease=replace(self.lease, expire_time=now + self.lease.duration))

    def judged(self, stop: str) -> Trial:
        """The trial whose holder hears from now on why it shall stop, or that it may go on, which is ""."""
        if self.lease is None:
            raise FailedPrecondition(f"trial {self.number} has no lease", reason="LEASE_LOST")
        return changed(self, lease=replace(self.lease, stop=stop))

    def released(self) -> Trial:
        """The trial given back by its worker: queued, with no attempt spent."""
        return changed(self, state=TrialState.QUEUED, lease=None)

    def expired(self, *, max_attempts: int, now: datetime) -> Trial:
        """The trial after its lease ran out: queued if attempts are left, else failed. A queued one keeps the lease, see `resumed`."""
        spent = self.spent_attempts + 1
        if spent < max_attempts:
            return changed(self, state=TrialState.QUEUED, spent_attempts=spent)
        message = f"the lease expired without a result in {spent} attempts, last held by {self.worker_id}"
        return changed(self, spent_attempts=spent).ended(TrialState.FAILED, message=message, now=now)

    def resumable(self, token: str) -> bool:
        """Whether this expired lease could go on, since nobody has taken the trial in the meantime."""
        return self.state is TrialState.QUEUED and self.lease is not None and self.lease.token == token

    def resumed(self, *, now: datetime) -> Trial:
        """The trial back in the hands of the worker whose lease had expired, as after an outage: the expiry counts for nothing."""
        return changed(self, state=TrialState.ACTIVE, spent_attempts=max(self.spent_attempts - 1, 0)).renewed(now=now)

    def broken(self, *, message: str, max_attempts: int, retry: bool, now: datetime) -> Trial:
        """The trial after an attempt broke: back in the queue if `retry` and attempts are left, else failed."""
        spent = self.spent_attempts + 1
        if retry and spent < max_attempts:
            return changed(self.released(), spent_attempts=spent, message=message)
        return changed(self, spent_attempts=spent).ended(TrialState.FAILED, message=message, now=now)

    def ended(self, state: TrialState, *, now: datetime, metrics: Metrics | None = None, message: str = "") -> Trial:
        """The trial in a terminal state."""
        if self.state.terminal or not state.terminal:
            raise FailedPrecondition(
                f"trial {self.number} is {self.state.value} and cannot become {state.value}", reason="TRIAL_ENDED"
            )
        return changed(self, state=state, lease=None, metrics=dict(metrics or {}), message=message, end_time=now)

    def noted(self, *, metadata: Mapping[str, str] | None = None, checkpoint_uri: str = "") -> Trial:
        """The trial with more metadata and, if given, another checkpoint."""
        if not metadata and not checkpoint_uri:
            return self
        return changed(
            self,
            metadata={**self.metadata, **(metadata or {})},
            checkpoint_uri=checkpoint_uri or self.checkpoint_uri,
        )


_fields = tuple(each.name for each in fields(Trial))
_values = attrgetter(*_fields)
_setters = {name: getattr(Trial, name).__set__ for name in _fields}
_in_order = tuple(_setters.values())
_run = deque[None](maxlen=0).extend


def changed(trial: Trial, **changes: Any) -> Trial:
    """As `dataclasses.replace`, but four times as fast: a tell makes a trial anew twice, and a frozen one costs what it has fields."""
    copy = object.__new__(Trial)
    _run(map(call, _in_order, repeat(copy), _values(trial)))
    for name, value in changes.items():
        _setters[name](copy, value)
    return copy


def finite(metrics: Metrics, names: Sequence[str]) -> bool:
    """Whether all the named metrics are there and finite."""
    return all(name in metrics and math.isfinite(metrics[name].value) for name in names)
