"""What an ask may have of a study, and the transaction that hands it out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum
from itertools import accumulate, count, islice, takewhile

from asktell.server.application.failpoints import reach
from asktell.server.application.history import Snapshot
from asktell.server.application.ports import Locked, Request, Transaction
from asktell.server.application.studies import locked_study
from asktell.server.domain.errors import Conflict, InvalidArgument
from asktell.server.domain.policy import Candidate, SuggestRequest
from asktell.server.domain.space import Parameters, same
from asktell.server.domain.study import Study, StudyName, StudyState, check_lease_duration
from asktell.server.domain.text import check_worker_id
from asktell.server.domain.trial import Trial, TrialState

MAX_COUNT = 1_000
LARGEST_REPLY = 3 * 1024 * 1024
"""Bytes of trials that a reply has at most, but for a single one: a client with gRPC's own limit of 4 MiB shall be able to receive it."""
AT_ONCE = timedelta(0)
SOON = timedelta(seconds=1)
LATER = timedelta(seconds=5)


class Reason(Enum):
    """Why there are fewer trials than asked for."""

    EXHAUSTED = "exhausted"
    BUDGET_SPENT = "budget spent"
    PAUSED = "paused"
    MAX_PARALLEL = "max parallel"
    FINISHED = "finished"
    RESULTS_AWAITED = "results awaited"
    REPLY_FULL = "reply full"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A worker's call for trials. `deadline`, on the monotonic clock, is when the caller stops waiting."""

    study: StudyName
    count: int
    worker_id: str
    lease_duration: timedelta | None = None
    fixed: Parameters = field(default_factory=dict)
    request: Request | None = None
    deadline: float

    def validate(self) -> None:
        """Raise InvalidArgument for a count, worker id or lease duration that cannot be."""
        if not 1 <= self.count <= MAX_COUNT:
            raise InvalidArgument("count", f"must be from 1 to {MAX_COUNT:,}, not {self.count}")
        check_worker_id("worker_id", self.worker_id)
        if self.lease_duration is not None:
            check_lease_duration("lease_duration", self.lease_duration)

    def lease(self, trial: Trial, study: Study, *, now: datetime) -> Trial:
        """The trial in the caller's hands."""
        duration = self.lease_duration or study.spec.lease_duration
        return trial.leased(worker_id=self.worker_id, duration=duration, now=now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an ask gets. `closed`: no trial will be handed out any more; `retry_after`: when to ask again, if that is of use."""

    study: StudyName
    trials: Sequence[Trial] = ()
    closed: bool = False
    reason: Reason | None = None
    retry_after: timedelta | None = None


Pack = Callable[[Answer], bytes]
Size = Callable[[StudyName, Trial], int]
"""How many bytes a leased trial takes in a reply."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How an ask will be met: queued trials to claim, new ones to create, and why these are fewer than asked for."""

    queued: tuple[Trial, ...] = ()
    new: int = 0
    reason: Reason | None = None

    @property
    def trials(self) -> int:
        """How many trials it hands out, if the policy has as many candidates."""
        return len(self.queued) + self.new


@dataclass(slots=True)
class Allowance:
    """What a study's state and budget allow of asks that are planned together; each that is planned leaves less."""

    refusal: Reason | None
    queue: Iterator[Trial]
    parallel: float
    trials: float

    @classmethod
    def of(cls, snapshot: Snapshot, fixed: Parameters) -> Allowance:
        """All that may be had, by asks with these fixed parameters. Good until the next `await`, as the snapshot's roster is."""
        budget, counts = snapshot.study.budget, snapshot.counts
        return cls(
            refusal=_refusal(snapshot),
            queue=_claimable(snapshot, fixed),
            parallel=_left(budget.max_parallel, counts.active),
            trials=_left(budget.max_trials, counts.spent),
        )

    def plan(self, count: int) -> Plan:
        """What an ask for so many gets."""
        if self.refusal is not None:
            return Plan(reason=self.refusal)
        room = int(min(count, self.parallel))
        queued = tuple(islice(self.queue, room))
        new = int(min(room - len(queued), self.trials))
        self.parallel -= len(queued) + new
        self.trials -= new
        if len(queued) + new == count:
            return Plan(queued, new)
        return Plan(queued, new, Reason.MAX_PARALLEL if len(queued) + new == room else Reason.BUDGET_SPENT)


def _left(limit: int | None, used: int) -> float:
    return float("inf") if limit is None else max(0, limit - used)


def _refusal(snapshot: Snapshot) -> Reason | None:
    match snapshot.study.state:
        case StudyState.PAUSED:
            return Reason.PAUSED
        case StudyState.FINISHED:
            return Reason.FINISHED
    return Reason.BUDGET_SPENT if _overspent(snapshot) else None


def _overspent(snapshot: Snapshot) -> bool:
    """Whether time or failures, which no further trial may be handed out beyond, are used up."""
    budget = snapshot.study.budget
    if is_over(snapshot.study, snapshot.now):
        return True
    return budget.max_failures is not None and snapshot.counts.failed >= budget.max_failures


def is_over(study: Study, now: datetime) -> bool:
    """Whether the study's time is spent."""
    limit = study.budget.max_duration
    return limit is not None and now - study.create_time >= limit


def _claimable(snapshot: Snapshot, fixed: Parameters) -> Iterator[Trial]:
    return (trial for trial in snapshot.roster.queued if _has(trial, fixed))


def _has(trial: Trial, fixed: Parameters) -> bool:
    return all(name in trial.parameters and same(trial.parameters[name], value) for name, value in fixed.items())


def suggest_request(snapshot: Snapshot, count: int, *, fixed: Parameters, time_limit: float | None) -> SuggestRequest:
    """What the policy is asked, in an order that does not depend on the order of tells. Taken before the next `await`."""
    study, pending = snapshot.study, snapshot.pending
    return SuggestRequest(
        space=study.spec.space,
        objectives=study.spec.objectives,
        outcome_constraints=study.spec.outcome_constraints,
        noisy=study.spec.noisy,
        population=study.spec.population,
        policy=study.spec.policy,
        seed=study.seed,
        count=count,
        next_number=study.next_number,
        observations=snapshot.observations,
        pending=tuple(trial.parameters for trial in pending),
        pending_members=tuple(trial.member for trial in pending) if any(trial.member for trial in pending) else (),
        sources=snapshot.sources,
        fixed=fixed,
        max_trials=study.budget.max_trials,
        time_limit=time_limit,
        hint=snapshot.hint,
        fidelity=study.spec.fidelity,
    )


@dataclass(frozen=True, slots=True)
class Portion:
    """One ask's part of a hand-out: its plan, and what makes its reply."""

    command: Ask
    plan: Plan
    pack: Pack

    def fitted(self, candidates: Sequence[Candidate], snapshot: Snapshot, *, size: Size, nonce: str) -> Portion:
        """The portion of these candidates, as they come, without what its reply would be too large with."""
        study, now = snapshot.study, snapshot.now
        created = (_new_trial(study.next_number, each, nonce, now=now) for each in candidates[: self.plan.new])
        trials = [*self.plan.queued, *created]
        sizes = accumulate(size(study.name, self.command.lease(each, study, now=now)) for each in trials)
        fitting = max(1, sum(1 for _ in takewhile(lambda total: total <= LARGEST_REPLY, sizes)))
        if fitting >= len(trials):
            return self
        queued = self.plan.queued[:fitting]
        return replace(self, plan=Plan(queued, fitting - len(queued), Reason.REPLY_FULL))


def fitted(
    portions: Sequence[Portion], candidates: Sequence[Candidate], snapshot: Snapshot, *, size: Size, nonce: str
) -> list[Portion]:
    """Portions whose replies a client can receive; a nonce is as long as this. A single trial always fits: less cannot be handed out."""
    left, fitting = list(candidates), list[Portion]()
    for portion in portions:
        single = portion.plan.trials <= 1
        fitting.append(portion if single else portion.fitted(left, snapshot, size=size, nonce=nonce))
        del left[: fitting[-1].plan.new]
    return fitting


@dataclass(frozen=True, slots=True)
class Handed:
    """What was handed out: the packed answers, in the order of the portions, and the trials, which made the study this, whose sequence number
    was `after`.
    """

    replies: Sequence[bytes]
    study: Study
    trials: Sequence[Trial]
    after: int


@dataclass(frozen=True, slots=True)
class HandOut:
    """The transaction that gives trials to workers, if the study still is as the plans saw it; else Conflict.

    The candidates are dealt out in the order of the portions; when they are fewer than planned, the policy has no more, for now or for ever.
    An answer with trials is kept for its request. `checkpoints` are the URIs of the candidates' parents, by number: a trial that goes on from
    another begins with that one's. What was recalled must not have changed at all.
    """

    snapshot: Snapshot
    portions: Sequence[Portion]
    candidates: Sequence[Candidate]
    nonces: Sequence[str]
    checkpoints: Mapping[int, str]
    answer: Callable[[Ask, Plan, Sequence[Trial]], Answer]

    def __call__(self, tx: Transaction) -> Handed:
        queued, new = sum(len(portion.plan.queued) for portion in self.portions), len(self.candidates)
        # A reply that another copy of a request saved since we read is not looked for: it makes saving ours a conflict.
        locked = locked_study(tx, self.snapshot.study.name, changes=queued + new, new_trials=new)
        self._refuse_stale(tx, locked, handed=queued + new)
        candidates = zip(self.candidates, self.nonces, strict=True)
        dealer = _Dealer(locked, candidates, self.checkpoints, sequences=count(locked.first_sequence))
        answers = [self._answer(dealer, portion) for portion in self.portions]
        tx.claim_trials(locked.study.id, dealer.claimed)
        tx.insert_trials(locked.study.id, dealer.created)
        replies = [
            (portion.command.request, reply)
            for portion, (answer, reply) in zip(self.portions, answers, strict=True)
            if portion.command.request is not None and answer.trials
        ]
        tx.save_replies(locked.study.id, replies, now=locked.now)
        reach("ask.inserted")
        trials = [*(trial for trial, _ in dealer.claimed), *dealer.created]
        return Handed([reply for _, reply in answers], locked.study, trials, locked.first_sequence - 1)

    def _answer(self, dealer: _Dealer, portion: Portion) -> tuple[Answer, bytes]:
        answer = self.answer(portion.command, portion.plan, dealer.deal(portion))
        return answer, portion.pack(answer)

    def _refuse_stale(self, tx: Transaction, locked: Locked, *, handed: int) -> None:
        """A new trial elsewhere is one that the candidates do not know of; a study that was changed may allow less, or have another space."""
        seen, now = self.snapshot.study, locked.study
        if (seen.id, seen.state, seen.budget, seen.spec) != (now.id, now.state, now.budget, now.spec):
            raise Conflict
        if self.candidates and seen.next_number != locked.first_number:
            raise Conflict
        if is_over(now, locked.now):
            raise Conflict
        # A database that lost commits may have come to the same number by other changes.
        alike = self.snapshot.incarnation == locked.incarnation
        untouched = alike and seen.sequence == locked.first_sequence - 1
        if self.snapshot.recalled and not untouched:
            raise Conflict
        # Of a study that nobody changed since, the plans know how many are active and how many failed.
        if untouched:
            return
        most_active, most_failed = now.budget.max_parallel, now.budget.max_failures
        if most_active is not None and tx.count_active(now.id) + handed > most_active:
            raise Conflict
        if most_failed is not None and tx.count_failed(now.id, limit=most_failed) >= most_failed:
            raise Conflict


@dataclass(slots=True)
class _Dealer:
    """Deals out trials within one transaction. `claimed` has the sequence number that each had before."""

    locked: Locked
    candidates: Iterator[tuple[Candidate, str]]
    checkpoints: Mapping[int, str]
    sequences: Iterator[int]
    claimed: list[tuple[Trial, int]] = field(default_factory=list)
    created: list[Trial] = field(default_factory=list)

    def deal(self, portion: Portion) -> list[Trial]:
        """The portion's trials, leased to who asked."""
        claimed = [
            self._lease(portion.command, replace(trial, sequence=next(self.sequences))) for trial in portion.plan.queued
        ]
        self.claimed += zip(claimed, (trial.sequence for trial in portion.plan.queued), strict=True)
        first = self.locked.first_number + len(self.created)
        created = [
            self._lease(portion.command, self._new(number, candidate, nonce))
            for number, (candidate, nonce) in enumerate(islice(self.candidates, portion.plan.new), first)
        ]
        self.created += created
        return [*claimed, *created]

    def _new(self, number: int, candidate: Candidate, nonce: str) -> Trial:
        checkpoint = self.checkpoints[candidate.parent] if candidate.parent else ""
        sequence = next(self.sequences)
        return _new_trial(number, candidate, nonce, now=self.locked.now, checkpoint_uri=checkpoint, sequence=sequence)

    def _lease(self, command: Ask, trial: Trial) -> Trial:
        return command.lease(trial, self.locked.study, now=self.locked.now)


def _new_trial(
    number: int, candidate: Candidate, nonce: str, *, now: datetime, checkpoint_uri: str = "", sequence: int = 0
) -> Trial:
    """A candidate as a trial that nobody has."""
    return Trial(
        number=number,
        state=TrialState.QUEUED,
        parameters=candidate.parameters,
        origin=candidate.origin,
        nonce=nonce,
        checkpoint_uri=checkpoint_uri,
        parent=candidate.parent,
        member=candidate.member,
        sequence=sequence,
        create_time=now,
    )


_PAUSES = {Reason.PAUSED: LATER, Reason.REPLY_FULL: AT_ONCE}


def make_answer(
    command: Ask, plan: Plan, trials: Sequence[Trial], *, snapshot: Snapshot, busy: bool, waits: bool
) -> Answer:
    """The trials, and if they are fewer than asked for, why and when to come back. `busy`: trials are queued or active; `waits`: the policy
    has no more before one of them has ended.
    """
    reason = plan.reason
    if reason is None and len(trials) < command.count:
        reason = Reason.RESULTS_AWAITED if waits else Reason.EXHAUSTED
    closed = is_closed(reason, busy=busy, overspent=_overspent(snapshot))
    retry_after = None if closed or reason is None else _PAUSES.get(reason, SOON)
    return Answer(study=command.study, trials=trials, closed=closed, reason=reason, retry_after=retry_after)


def is_busy(snapshot: Snapshot, command: Ask, plan: Plan) -> bool:
    """Whether a trial is queued or active that may yet be the asker's, as when it comes back to the queue. Where the policy has no more with
    the ask's fixed parameters, only one that has them may: what others train shall not keep it waiting.
    """
    if plan.reason is not None or not command.fixed:
        return snapshot.counts.queued + snapshot.counts.active > 0
    fixed = snapshot.study.spec.space.check_fixed(command.fixed, path="fixed_parameters")
    return any(_has(trial, fixed) for trial in snapshot.roster.unfinished)


def is_closed(reason: Reason | None, *, busy: bool, overspent: bool) -> bool:
    """Whether nothing will be handed out any more. While trials are active or queued, one of them may come back to the queue."""
    if reason is Reason.FINISHED:
        return True
    if reason is Reason.BUDGET_SPENT:
        return overspent or not busy
    return reason is Reason.EXHAUSTED and not busy
