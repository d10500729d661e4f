"""What the use cases need from the outside, implemented by `persistence` and `policies`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from asktell.server.domain.beliefs import Question
from asktell.server.domain.curve import Curve, Ending
from asktell.server.domain.metric import Measurement, MetricValue
from asktell.server.domain.policy import Decision, SuggestRequest
from asktell.server.domain.ranking import Losses, Standing
from asktell.server.domain.stopping import StoppingRule, StopRequest
from asktell.server.domain.study import Budget, Study, StudyName, StudySpec, TrialCounts
from asktell.server.domain.trial import Lease, Trial, TrialState

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """A call that can be repeated safely: `id` is unique per study and method, `fingerprint` a digest of the payload."""

    method: str
    id: str
    fingerprint: str

    @property
    def key(self) -> tuple[str, str]:
        """What a reply is kept under in its study."""
        return self.method, self.id


@dataclass(frozen=True, slots=True)
class Replay:
    """What an earlier call of the same method and request id was given, and the reply that it got, packed."""

    fingerprint: str
    response: bytes


@dataclass(frozen=True, slots=True)
class Found:
    """A study as it was when the transaction began, the database's clock, the replay if the request was answered before, the hint that is
    stored for the study's policy, b"" if none is, and the `incarnation` of the database.

    An incarnation has all commits that it ever acknowledged. Another one, as the standby after a failover, may lack the last of those before.
    """

    study: Study
    now: datetime
    replay: Replay | None
    hint: bytes = b""
    incarnation: str = ""


@dataclass(frozen=True, slots=True)
class Locked:
    """A study whose row this transaction holds to its end.

    `first_sequence` is the first of the sequence numbers reserved for this transaction's changes; `study.sequence` the last.
    `first_number` is the first of the trial numbers reserved; `study.next_number` follows the last. `now` is the database's clock.
    `replay` is there if the request was answered before: then nothing must be written. Of a reply that another transaction kept while
    this one waited for the lock it may know nothing; then keeping another is a `Conflict`. `incarnation` is the database's, as in `Found`.
    """

    study: Study
    first_sequence: int
    first_number: int
    now: datetime
    replay: Replay | None
    incarnation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewStudy:
    """A study to create."""

    name: StudyName
    spec: StudySpec
    seed: int
    budget: Budget
    labels: Mapping[str, str]


MetricKey = tuple[int, int, str]
"""A trial's number, a step and the name of a metric."""

FIRST_METRIC: MetricKey = (0, -1, "")
"""Before all others."""


@dataclass(frozen=True, slots=True)
class StoredMetric:
    """One metric of one measurement of a trial, as it is stored."""

    number: int
    step: int
    metric: str
    value: MetricValue
    create_time: datetime

    @property
    def key(self) -> MetricKey:
        """Its place among all metrics of the study."""
        return self.number, self.step, self.metric


@dataclass(frozen=True, slots=True)
class Charted:
    """The metric that a study's stopping rule looks at, and the sequence number of each trial's change, by the trial's number."""

    metric: str
    sequences: Mapping[int, int]


CurvePlace = tuple[int, int, int]
"""A sequence number, a trial's number and a step."""

FIRST_POINT: CurvePlace = (0, 0, -1)
"""Before all others."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The value of the metric that a stopping rule looks at, at a step of a trial, and the sequence number of the change it came with."""

    sequence: int
    number: int
    step: int
    value: float
    metric: str

    @property
    def place(self) -> CurvePlace:
        """Its place in the order of changes."""
        return self.sequence, self.number, self.step


Judge = Callable[[StopRequest], str | None]
"""Why a trial shall stop, for a person to read; None if it shall go on."""


Foresee = Callable[[StoppingRule, Mapping[int, Curve], Collection[int]], Mapping[int, Ending]]
"""The expected last losses of trials that were stopped or are under way, by their numbers, from the curves of all trials."""


class Transaction(Protocol):
    """One database transaction. Each method is one statement at most; one that has nothing to do is none.

    Every change of a trial but a lease's renewal happens under the study's lock.
    """

    def insert_study(self, new: NewStudy) -> Study | None:
        """Create an active study at sequence 1, stamped with the database's clock; None if the name is taken."""

    def find_study(self, name: StudyName, *, request: Request | None = None) -> Found | None:
        """The study without a lock; None if there is no such study."""

    def incarnation(self) -> str:
        """The database's, as in `Found`."""

    def find_study_by_id(self, study_id: int) -> Study | None:
        """The study without a lock; None if it was deleted, whoever has its name now."""

    def study_sequences(self, study_ids: Collection[int]) -> dict[int, int]:
        """The sequence number of the latest change in each of the studies, at most 10,000; those that were deleted are left out."""

    def lock_study(
        self, name: StudyName, *, changes: int, new_trials: int = 0, request: Request | None = None
    ) -> Locked | None:
        """Lock the study's row, reserve `changes` sequence numbers and of these `new_trials` with a trial number, in one
        UPDATE ... RETURNING; None if there is no such study.
        """

    def lock_idle_studies(
        self, changes: Mapping[StudyName, int], *, request: Request | None = None
    ) -> dict[StudyName, Locked]:
        """As `lock_study`, for so many changes in each of the studies; those that another transaction holds, or that are not there, are left
        out. It waits for nobody.
        """

    def update_study(self, study: Study) -> None:
        """Store the mutable parts: state, budget, labels, next_number, own_sequence."""

    def delete_study(self, name: StudyName) -> bool:
        """Delete the study with all that belongs to it; False if there is none."""

    def list_studies(self, project: str, *, after: str, limit: int) -> list[Study]:
        """Studies of a project with a name after `after`, in the order of names (by code point)."""

    def count_trials(self, study_ids: Collection[int]) -> dict[int, TrialCounts]:
        """Counts by state for each of the studies."""

    def insert_trials(self, study_id: int, trials: Sequence[Trial]) -> None:
        """Store new trials. A taken number raises `domain.errors.Conflict`."""

    def update_trials(self, study_id: int, trials: Sequence[Trial]) -> None:
        """Store trials that exist, all mutable columns; measurements are not touched."""

    def update_trials_of(self, trials: Mapping[int, Collection[Trial]]) -> None:
        """As `update_trials`, for trials of several studies, by the studies' ids."""

    def claim_trials(self, study_id: int, trials: Sequence[tuple[Trial, int]]) -> None:
        """Store trials that exist, each with the sequence number that it had when it was read. `domain.errors.Conflict` if one has changed."""

    def find_trials(self, study_id: int, numbers: Collection[int]) -> dict[int, Trial]:
        """Trials by number, without measurements, locked (FOR UPDATE) in a writing transaction; missing ones are left out."""

    def find_idle_trials(self, numbers: Mapping[int, Collection[int]]) -> dict[int, dict[int, Trial]]:
        """As `find_trials` in a writing transaction, for trials of several studies, by the studies' ids; those that another one
        holds are left out, too. It waits for nobody.
        """

    def changed_trials(self, study_id: int, *, after: int, upto: int, limit: int) -> list[Trial]:
        """The first `limit` trials whose latest change is above `after` and at most `upto`, without measurements, in the order of changes."""

    def list_trials(
        self, study_id: int, *, after: int, limit: int, states: Collection[TrialState], worker_id: str
    ) -> list[Trial]:
        """Trials with a number above `after`, in any of the states (all if empty), of the worker (any if ""), by number."""

    def expired_trials(self, study_id: int) -> list[Trial]:
        """Active trials whose lease has ended by the database's clock, locked (FOR UPDATE)."""

    def studies_with_expired_leases(self, limit: int) -> list[StudyName]:
        """Studies that have active trials whose lease has ended by the database's clock, the longest ago first."""

    def find_study_ids(self, names: Collection[StudyName]) -> dict[StudyName, int]:
        """The ids of the studies that there are."""

    def renew_leases(self, tokens: Mapping[tuple[int, int], Collection[str]]) -> dict[tuple[int, int], Lease]:
        """Start live leases anew from the database's clock: of the trials, by study id and number, whose token is among those given for
        it. The renewed leases, by study id and number.
        """

    def forget_stops(self, study_id: int) -> None:
        """No lease of the study's trials knows any more why its trial shall stop."""

    def chart_anew(self, study_id: int, *, metric: str, sequence: int) -> None:
        """Have what was measured of the metric, and nothing else, be points of the curves, all of them with that sequence number."""

    def record_measurements(
        self,
        study_id: int,
        measurements: Mapping[int, Sequence[Measurement]],
        *,
        now: datetime,
        charted: Charted | None = None,
    ) -> None:
        """Store measurements of trials, by the trials' numbers; a step that is there is replaced, metric by metric. With `charted` those
        of its metric are points of the trials' curves.
        """

    def record_measurements_of(
        self,
        measurements: Mapping[int, Mapping[int, Sequence[Measurement]]],
        *,
        now: datetime,
        charted: Mapping[int, Charted | None],
    ) -> None:
        """As `record_measurements`, for trials of several studies, by the studies' ids."""

    def list_measurements(self, study_id: int, number: int) -> list[Measurement]:
        """The measurements of a trial, in the order of steps."""

    def metrics_after(self, study_id: int, after: MetricKey, *, limit: int) -> list[StoredMetric]:
        """What was measured in the study's trials after a place, in the order of places."""

    def insert_measurements(
        self, study_id: int, number: int, measurements: Sequence[Measurement], *, charted: Charted | None = None
    ) -> None:
        """Store measurements of a trial that has none of these steps, each with its own time; `charted` as in `record_measurements`."""

    def curve_points(self, study_id: int, place: CurvePlace, *, limit: int) -> list[CurvePoint]:
        """Points of the curves of the study's trials from a place on, in the order of places. One that was replaced has its new place."""

    def stage_study(self, study: Study, *, key: str) -> int:
        """Create a study that no name reaches, with all its columns but the name; `key` is unique; its id."""

    def keep_staged(self, study_id: int) -> bool:
        """Lock a staged study and put off its end; False if it is gone."""

    def publish_study(self, study: Study) -> datetime:
        """Give the staged study with this id its name and time of update; the database's clock. A name that is taken raises
        `domain.errors.Conflict`.
        """

    def abandoned_studies(self, *, limit: int) -> list[int]:
        """The ids of staged studies that nobody has kept for an hour by the database's clock."""

    def discard_trials(self, study_id: int, *, limit: int) -> int:
        """Delete trials of a staged study; how many. One that was published keeps them all."""

    def discard_study(self, study_id: int) -> None:
        """Delete a staged study. One that was published stays."""

    def last_measurements(self, study_id: int, numbers: Collection[int]) -> dict[int, Measurement]:
        """The measurement of the last step of each trial, by the trials' numbers; those without are left out."""

    def save_hint(self, study_id: int, policy: str, hint: bytes) -> None:
        """Keep what the policy's later decisions in the study may start from, in place of what was kept before."""

    def count_active(self, study_id: int) -> int:
        """How many of the study's trials are active."""

    def count_failed(self, study_id: int, *, limit: int) -> int:
        """How many of the study's trials failed, counted up to a limit."""

    def find_replies(self, study_id: int, requests: Collection[Request]) -> dict[tuple[str, str], Replay]:
        """What the requests got, by their keys; those that were not answered before are left out."""

    def find_replies_of(self, requests: Mapping[int, Collection[Request]]) -> dict[int, dict[tuple[str, str], Replay]]:
        """As `find_replies`, for requests to several studies, by the studies' ids."""

    def save_replies_of(self, replies: Mapping[int, Sequence[tuple[Request, bytes]]], *, now: datetime) -> None:
        """As `save_replies`, for replies of several studies, by the studies' ids."""

    def save_replies(self, study_id: int, replies: Sequence[tuple[Request, bytes]], *, now: datetime) -> None:
        """Keep the packed replies for 24 hours. One that is there already raises `domain.errors.Conflict`."""

    def forget_old_replies(self, limit: int) -> int:
        """Delete replies past their time, at most `limit`; how many."""


class Store(Protocol):
    """The database. Steps run off the event loop, each in one transaction; an exception rolls it back and is raised to the caller.

    A database that cannot be reached raises `domain.errors.Unavailable`.
    """

    async def read(self, step: Callable[[Transaction], T]) -> T:
        """Run a step that only reads, on one consistent snapshot."""

    async def write(self, step: Callable[[Transaction], T]) -> T:
        """Run a step and return after its commit is durable. The step may run more than once, and must have no effect of its own."""

    def on_change(self, listener: Callable[[Collection[int]], None]) -> None:
        """Call the listener with the ids of studies after their sequence has moved, or after they were created or deleted: here, and soon
        after also at the other servers on the same database.

        It is called on any thread, and must not wait. It is a wake-up, not a message: one may come twice, be about nothing new, or be lost
        with a server or a connection, so that who must not miss a change also looks by itself from time to time.
        """


class Engine(Protocol):
    """Runs policies off the event loop."""

    def policies(self) -> Collection[str]:
        """The names of the policies."""

    async def suggest(self, request: SuggestRequest) -> Decision:
        """The policy's decision. Never raises for what is in the request: it falls back and says so in the candidates' origin."""

    async def suggest_ahead(self, request: SuggestRequest) -> Decision | None:
        """As `suggest`, for candidates that nobody waits for yet; None if they take no time to speak of, or if others need the engine."""

    async def answer(self, request: SuggestRequest, question: Question[T]) -> T:
        """What the surrogate believes, where `request` is what the policy would be asked now.

        Raises FailedPrecondition for too few observations, OutOfTime after the request's time limit, Overloaded if too many wait for answers.
        """

    async def hypervolumes(
        self, standings: Sequence[Standing], reference: Losses, *, most: int
    ) -> list[tuple[int, float]]:
        """How much of the space below the reference is dominated, after those trials that changed the front, by their numbers.

        Of more than `most` changes that many.
        """
