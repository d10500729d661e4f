"""Hand out trials: queued ones first, then new ones that the policy chooses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import Enum
from itertools import islice
from weakref import WeakValueDictionary

import structlog

from asktell.server.application.failpoints import reach
from asktell.server.application.history import History, Snapshot
from asktell.server.application.ports import Engine, Locked, Request, Store, Transaction
from asktell.server.application.requests import keep_reply, replay_of
from asktell.server.application.studies import missing_study
from asktell.server.domain.errors import Conflict, InvalidArgument, Unavailable
from asktell.server.domain.policy import MAX_HINT, Candidate, Decision, Observation, SuggestRequest
from asktell.server.domain.space import Parameters, same
from asktell.server.domain.study import StudyName, StudyState, TrialCounts, check_lease_duration
from asktell.server.domain.text import check_worker_id
from asktell.server.domain.trial import Trial, TrialState

log = structlog.get_logger("asktell.ask")

MAX_COUNT = 1_000
MAX_CONFLICTS = 100
SOON = timedelta(seconds=1)
LATER = timedelta(seconds=5)


class Reason(Enum):
    """Why there are fewer trials than asked for."""

    EXHAUSTED = "exhausted"
    BUDGET_SPENT = "budget spent"
    PAUSED = "paused"
    MAX_PARALLEL = "max parallel"
    FINISHED = "finished"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an ask gets. `closed`: no trial will be handed out any more; `retry_after`: when to ask again, if that is of use."""

    study: StudyName
    trials: Sequence[Trial] = ()
    closed: bool = False
    reason: Reason | None = None
    retry_after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """How an ask will be met: queued trials to claim, new ones to create, and why these are fewer than asked for."""

    queued: tuple[int, ...] = ()
    new: int = 0
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Desk:
    """Where asks are met: the store, the engine, the history, one lock a study so that asks on one replica do not collide."""

    store: Store
    engine: Engine
    history: History
    new_nonce: Callable[[], str]
    locks: WeakValueDictionary[StudyName, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    def lock(self, name: StudyName) -> asyncio.Lock:
        """The lock of a study; it lives as long as somebody holds or awaits it."""
        return self.locks.setdefault(name, asyncio.Lock())


async def ask(desk: Desk, command: Ask, *, pack: Callable[[Answer], bytes]) -> bytes:
    """Hand out trials and return the packed answer; the same request again gets the same answer.

    Another replica may add a trial between our reading and our writing; then nothing is written and we choose again, knowing of it.
    """
    command.validate()
    async with desk.lock(command.study):
        for _ in range(MAX_CONFLICTS):
            snapshot = await desk.history.read(command.study, request=command.request)
            earlier = replay_of(command.request, snapshot.replay)
            if earlier is not None:
                return earlier
            plan = make_plan(snapshot, command)
            decision = await _choose(desk, command, snapshot, plan)
            if not plan.queued and not decision.candidates:
                return pack(make_answer(command, snapshot, plan, trials=()))
            nonces = [desk.new_nonce() for _ in decision.candidates]
            reach("ask.chosen")
            try:
                reply = await desk.store.write(_HandOut(command, snapshot, plan, decision, nonces, pack))
            except Conflict:
                continue
            reach("ask.committed")
            return reply
    raise Unavailable(f"study {command.study.study!r} is too busy: {MAX_CONFLICTS} collisions in one ask")


def make_plan(snapshot: Snapshot, command: Ask) -> Plan:
    """What the study's state and budget allow of an ask."""
    study = snapshot.study
    fixed = study.spec.space.check_fixed(command.fixed, path="fixed_parameters")
    refusal = _refusal(snapshot)
    if refusal is not None:
        return Plan(reason=refusal)
    states = [trial.state for trial in snapshot.trials.values()]
    room = _room(study.budget.max_parallel, states.count(TrialState.ACTIVE), command.count)
    queued = tuple(islice(_claimable(snapshot.trials.values(), fixed), room))
    spent = len(states) - states.count(TrialState.CANCELLED)
    new = _room(study.budget.max_trials, spent, room - len(queued))
    if len(queued) + new == command.count:
        return Plan(queued, new)
    return Plan(queued, new, Reason.MAX_PARALLEL if len(queued) + new == room else Reason.BUDGET_SPENT)


def _refusal(snapshot: Snapshot) -> Reason | None:
    study = snapshot.study
    if study.state is StudyState.PAUSED:
        return Reason.PAUSED
    if study.state is StudyState.FINISHED:
        return Reason.FINISHED
    return Reason.BUDGET_SPENT if _overspent(snapshot) else None


def _overspent(snapshot: Snapshot) -> bool:
    """Whether time or failures, which no further trial may be handed out beyond, are used up."""
    budget, created = snapshot.study.budget, snapshot.study.create_time
    if budget.max_duration is not None and snapshot.now - created >= budget.max_duration:
        return True
    failures = sum(trial.state is TrialState.FAILED for trial in snapshot.trials.values())
    return budget.max_failures is not None and failures >= budget.max_failures


def _room(limit: int | None, used: int, wanted: int) -> int:
    return wanted if limit is None else max(0, min(wanted, limit - used))


def _claimable(trials: Iterable[Trial], fixed: Parameters) -> Iterable[int]:
    for trial in sorted(trials, key=lambda trial: trial.number):
        if trial.state is TrialState.QUEUED and all(
            name in trial.parameters and same(trial.parameters[name], value) for name, value in fixed.items()
        ):
            yield trial.number


async def _choose(desk: Desk, command: Ask, snapshot: Snapshot, plan: Plan) -> Decision:
    """The engine's decision, with the hint that is worth storing."""
    if plan.new == 0:
        return Decision(())
    decision = await desk.engine.suggest(suggest_request(snapshot, plan.new, command))
    return Decision(decision.candidates[: plan.new], _new_hint(decision.hint, snapshot))


def _new_hint(hint: bytes, snapshot: Snapshot) -> bytes:
    """The hint if it is another than the stored one, else b"". One that is too long is dropped: it only saves time."""
    if len(hint) > MAX_HINT:
        log.debug("hint_dropped", study=str(snapshot.study.name), policy=snapshot.study.spec.policy, bytes=len(hint))
        return b""
    return b"" if hint == snapshot.hint else hint


def suggest_request(snapshot: Snapshot, count: int, command: Ask) -> SuggestRequest:
    """What the policy is asked, in an order that does not depend on the order of tells."""
    study = snapshot.study
    trials = sorted(snapshot.trials.values(), key=lambda trial: trial.number)
    return SuggestRequest(
        space=study.spec.space,
        objectives=study.spec.objectives,
        policy=study.spec.policy,
        seed=study.seed,
        count=count,
        next_number=study.next_number,
        observations=tuple(
            Observation(trial.number, trial.state, trial.parameters, trial.metrics)
            for trial in trials
            if trial.state.terminal and trial.state is not TrialState.CANCELLED
        ),
        pending=tuple(trial.parameters for trial in trials if not trial.state.terminal),
        fixed=study.spec.space.check_fixed(command.fixed),
        max_trials=study.budget.max_trials,
        time_limit=max(command.deadline - time.monotonic(), 0.0),
        hint=snapshot.hint,
    )


@dataclass(frozen=True, slots=True)
class _HandOut:
    """The transaction that gives trials to a worker, if the study still is as the plan saw it."""

    command: Ask
    snapshot: Snapshot
    plan: Plan
    decision: Decision
    nonces: Sequence[str]
    pack: Callable[[Answer], bytes]

    def __call__(self, tx: Transaction) -> bytes:
        new = len(self.decision.candidates)
        # A reply that another copy of this request saved since we read is not looked for: it makes saving ours a conflict.
        locked = tx.lock_study(self.command.study, changes=len(self.plan.queued) + new, new_trials=new)
        if locked is None:
            raise missing_study(self.command.study)
        self._refuse_stale(tx, locked)
        claimed = self._claim(tx, locked)
        created = self._create(tx, locked, first_sequence=locked.first_sequence + len(claimed))
        answer = make_answer(self.command, self.snapshot, self.plan, trials=[*claimed, *created])
        reply = keep_reply(tx, locked, self.command.request, self.pack(answer))
        reach("ask.inserted")
        return reply

    def _refuse_stale(self, tx: Transaction, locked: Locked) -> None:
        """A new trial elsewhere is one that the candidates do not know of; a study that was changed may allow less."""
        seen, now = self.snapshot.study, locked.study
        if (seen.id, seen.state, seen.budget) != (now.id, now.state, now.budget):
            raise Conflict
        if self.decision.candidates and seen.next_number != locked.first_number:
            raise Conflict
        if now.budget.max_parallel is not None:
            active = tx.count_trials([now.id]).get(now.id, TrialCounts()).active
            if active + len(self.plan.queued) + len(self.decision.candidates) > now.budget.max_parallel:
                raise Conflict

    def _claim(self, tx: Transaction, locked: Locked) -> list[Trial]:
        if not self.plan.queued:
            return []
        trials = tx.find_trials(locked.study.id, self.plan.queued)
        if any(number not in trials or trials[number].state is not TrialState.QUEUED for number in self.plan.queued):
            raise Conflict
        claimed = [
            self._lease(replace(trials[number], sequence=locked.first_sequence + index), locked)
            for index, number in enumerate(self.plan.queued)
        ]
        tx.update_trials(locked.study.id, claimed)
        return claimed

    def _create(self, tx: Transaction, locked: Locked, *, first_sequence: int) -> list[Trial]:
        if not self.decision.candidates:
            return []
        created = [
            self._lease(
                new_trial(candidate, locked.first_number + index, first_sequence + index, nonce, locked), locked
            )
            for index, (candidate, nonce) in enumerate(zip(self.decision.candidates, self.nonces, strict=True))
        ]
        tx.insert_trials(locked.study.id, created)
        if self.decision.hint:
            tx.save_hint(locked.study.id, locked.study.spec.policy, self.decision.hint)
        return created

    def _lease(self, trial: Trial, locked: Locked) -> Trial:
        duration = self.command.lease_duration or locked.study.spec.lease_duration
        return trial.leased(worker_id=self.command.worker_id, duration=duration, now=locked.now)


def make_answer(command: Ask, snapshot: Snapshot, plan: Plan, *, trials: Sequence[Trial]) -> Answer:
    """The trials, and if they are fewer than asked for, why and when to come back."""
    reason = plan.reason
    if reason is None and len(trials) < command.count:
        reason = Reason.EXHAUSTED
    busy = bool(trials) or any(not trial.state.terminal for trial in snapshot.trials.values())
    closed = is_closed(reason, busy=busy, overspent=_overspent(snapshot))
    retry_after = None if closed or reason is None else LATER if reason is Reason.PAUSED else SOON
    return Answer(study=command.study, trials=trials, closed=closed, reason=reason, retry_after=retry_after)


def new_trial(candidate: Candidate, number: int, sequence: int, nonce: str, locked: Locked) -> Trial:
    """A candidate as a queued trial."""
    return Trial(
        number=number,
        state=TrialState.QUEUED,
        parameters=candidate.parameters,
        origin=candidate.origin,
        nonce=nonce,
        sequence=sequence,
        create_time=locked.now,
    )


def is_closed(reason: Reason | None, *, busy: bool, overspent: bool) -> bool:
    """Whether nothing will be handed out any more. While trials are active or queued, one of them may come back to the queue."""
    if reason is Reason.FINISHED:
        return True
    if reason is Reason.BUDGET_SPENT:
        return overspent or not busy
    return reason is Reason.EXHAUSTED and not busy
