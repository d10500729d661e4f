"""Where asks are met: those that wait for one study are met together, those of different studies do not wait for each other."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate, takewhile
from typing import Any

import structlog

from asktell.server.application.ask import (
    Allowance,
    Ask,
    HandOut,
    Pack,
    Portion,
    Size,
    fitted,
    is_busy,
    make_answer,
    suggest_request,
)
from asktell.server.application.failpoints import reach
from asktell.server.application.history import History, Snapshot
from asktell.server.application.metering import Meter
from asktell.server.application.ports import Engine, Request, Store
from asktell.server.application.requests import replay_of
from asktell.server.application.speculation import Prepared, Shelf, tagged
from asktell.server.application.tell import Tell
from asktell.server.domain.errors import AlreadyExists, Conflict, Overloaded, Unavailable
from asktell.server.domain.policy import MAX_HINT, Decision, SuggestRequest
from asktell.server.domain.space import key
from asktell.server.domain.study import StudyName
from asktell.server.domain.trial import Trial

log = structlog.get_logger("asktell.ask")

LARGEST_ROUND = 8
"""Trials that one round of asks hands out, unless the first ask alone wants more: the first in line shall not wait for the last."""
MAX_CONFLICTS = 100
MAX_WAITING = 256
STUDIES_WAITING = 8
"""Of so many studies the lines may be full before all are told to come later."""
LONGEST_RETRY = 30.0
LONGEST = 20.0
SHORT = 1.0
"""An ask with fewer seconds left is short of time."""
YIELDING = 3
"""After so many collisions the candidates are handed out though they do not know of the latest trials."""


@dataclass(slots=True, eq=False)
class _Call:
    """An ask in line, and all who wait for it: a repeated request waits with the first."""

    command: Ask
    pack: Pack
    callers: list[asyncio.Future[bytes]] = field(default_factory=list)
    deadline: float = 0.0

    def join(self, deadline: float) -> asyncio.Future[bytes]:
        """What another caller waits on, until its deadline at most."""
        self.deadline = max(self.deadline, deadline)
        caller: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.callers.append(caller)
        return caller

    @property
    def left(self) -> float:
        """Seconds until the last caller stops waiting, at least 0."""
        return max(self.deadline - time.monotonic(), 0.0)

    def goes_with(self, other: _Call) -> bool:
        """Whether the two can be met in one round: one that is short of time shall not take the others' time to choose."""
        alike = key(self.command.fixed) == key(other.command.fixed)
        return alike and (self.left < SHORT) == (other.left < SHORT)

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits any more."""
        return all(caller.done() for caller in self.callers)

    def settle(self, outcome: bytes | BaseException) -> None:
        """Give all who wait the reply or the error."""
        for caller in self.callers:
            if not caller.done():
                if isinstance(outcome, bytes):
                    caller.set_result(outcome)
                else:
                    caller.set_exception(outcome)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Candidates, and the number that the first one's trial was to have; `prepared` if they were."""

    decision: Decision
    first_number: int
    prepared: Prepared | None = None

    def serves(self, snapshot: Snapshot, count: int) -> bool:
        """Whether no trial that was added in the meantime has the parameters of one of the candidates, of which there are enough, or is the
        same member of a population.
        """
        added = range(self.first_number, snapshot.study.next_number)
        found = (snapshot.roster.trials.get(number) for number in added)
        trials = [trial for trial in found if trial is not None]
        taken, members = {key(trial.parameters) for trial in trials}, {trial.member for trial in trials} - {0}
        candidates = self.decision.candidates[:count]
        return len(candidates) == count and not any(
            key(each.parameters) in taken or each.member in members for each in candidates
        )


@dataclass(slots=True)
class _Line:
    """The asks that wait for one study, and those that are being met. `pace` is how many seconds the last round took, `modelled` whether a
    surrogate chose for it, `chosen` what collided with a new trial.
    """

    waiting: deque[_Call] = field(default_factory=deque)
    meeting: Sequence[_Call] = ()
    pace: float = 0.0
    modelled: bool = False
    chosen: _Chosen | None = None

    def namesake(self, request: Request | None) -> _Call | None:
        """The call in this line with that request's id, and the same or another payload; of those, the only one that somebody waits for."""
        if request is None:
            return None
        # From the end: one that nobody waits for any more is met in its turn, and shall not be joined past another that came after it.
        for call in (*reversed(self.waiting), *self.meeting):
            other = call.command.request
            if other is not None and other.key == request.key and (other == request or not call.abandoned):
                return call
        return None

    def next_round(self) -> list[_Call]:
        """The asks that come next, of those that go together, and for no more trials than a round hands out."""
        calls: list[_Call] = []
        wanted = 0
        while self.waiting:
            call = self.waiting[0]
            if call.abandoned:
                self.waiting.popleft()
                continue
            wanted += call.command.count
            if calls and (wanted > LARGEST_ROUND or not call.goes_with(calls[0])):
                break
            calls.append(self.waiting.popleft())
        self.meeting = calls
        return calls

    def shorten(self, portions: Sequence[Portion], prepared: Prepared) -> tuple[Sequence[Portion], Prepared | None]:
        """Meet as many asks as there are prepared candidates for, the others in the next round; if not even the first, all without them."""
        sums = accumulate(portion.plan.new for portion in portions)
        length = sum(1 for _ in takewhile(lambda total: total <= prepared.left, sums))
        if length == 0:
            return portions, None
        self.waiting.extendleft(reversed(self.meeting[length:]))
        self.meeting = self.meeting[:length]
        return portions[:length], prepared

    def settle(self, outcome: BaseException) -> None:
        """Give all that are being met the error."""
        for call in self.meeting:
            call.settle(outcome)


class Desk:
    """Meets asks. Used from the event loop alone.

    At most `max_waiting` asks wait for one study; further ones are Overloaded. Choosing takes `longest` seconds at most. With `speculate`,
    candidates are prepared ahead of asks while an engine process is idle. `size` tells how large trials are in replies; without it replies are
    as large as they come. `meter` counts nothing unless it is replaced.
    """

    def __init__(
        self,
        *,
        store: Store,
        engine: Engine,
        history: History,
        new_nonce: Callable[[], str],
        max_waiting: int = MAX_WAITING,
        longest: float = LONGEST,
        speculate: bool = False,
        size: Size | None = None,
    ) -> None:
        self.store, self.engine, self.history = store, engine, history
        self.meter = Meter()
        self.new_nonce, self._max_waiting, self._longest = new_nonce, max_waiting, longest
        self._size = size
        self._lines: dict[StudyName, _Line] = {}
        self._shelf = Shelf(history=history, engine=engine, busy=self._lines.__contains__) if speculate else None
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def waiting(self) -> int:
        """How many asks are being met or wait for it. Any thread may look."""
        return sum(len(line.waiting) + len(line.meeting) for line in list(self._lines.values()))

    async def ask(self, command: Ask, *, pack: Pack) -> bytes:
        """Hand out trials and return the packed answer; the same request again gets the same answer.

        Another replica may add a trial between our reading and our writing; then nothing is written and we choose again, knowing of it.
        An ask whose caller goes away before that takes no trial.
        """
        command.validate()
        line, call = await self._find(command)
        if call is None:
            self._admit(command.study, line)
            call = _Call(command, pack)
            line.waiting.append(call)
        caller = call.join(command.deadline)
        if command.study not in self._lines:
            self._lines[command.study] = line
            self._keep(self._work(command.study, line))
        return await caller

    async def _find(self, command: Ask) -> tuple[_Line, _Call | None]:
        """The study's line, and the call in it that the ask is a copy of.

        One in line that has its request id and another payload is waited for: it may come to nothing, here or because another replica
        answered the id. Whether it was answered, so that this ask is refused, the store knows then.
        """
        while True:
            line = self._lines.get(command.study) or _Line()
            call = line.namesake(command.request)
            if call is None or call.command.request == command.request:
                return line, call
            await asyncio.wait(call.callers)

    def telling(self, command: Tell) -> None:
        """A result is about to be stored: begin to prepare what its worker will ask for."""
        if self._shelf is not None and len(command.results) == 1 and self._pays(command.study):
            self._keep(self._shelf.prepare_during_tell(command.study, command.results[0]))

    def told(self, command: Tell, trials: Sequence[Trial]) -> None:
        """Results were stored, which made their trials these: prepare what their worker will ask for."""
        self.history.note_told(command.study, trials)
        if self._shelf is not None and self._pays(command.study):
            numbers = [result.number for result in command.results]
            self._keep(self._shelf.prepare_after_tell(command.study, numbers))

    async def settle(self) -> None:
        """Wait for what goes on behind the asks: hints that are being stored, candidates that are being prepared."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """End what goes on behind the asks."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._shelf is not None:
            await self._shelf.close()

    def _pays(self, name: StudyName) -> bool:
        return self._shelf is not None and name not in self._lines and self._shelf.pays(name)

    def _admit(self, name: StudyName, line: _Line) -> None:
        """Raise Overloaded if too many wait, here or in all lines."""
        line.waiting = deque(call for call in line.waiting if not call.abandoned)
        everywhere = sum(len(each.waiting) for each in self._lines.values())
        if len(line.waiting) < self._max_waiting and everywhere < self._max_waiting * STUDIES_WAITING:
            return
        rounds = len(line.waiting) / LARGEST_ROUND
        limits = self._max_waiting, self._max_waiting * STUDIES_WAITING
        raise Overloaded(
            f"{len(line.waiting)} asks wait for study {name.study!r} and {everywhere} for all studies of this server, which lets {limits[0]}"
            f" and {limits[1]} wait: ask again later",
            retry_after=min(max(rounds * line.pace, 1.0), LONGEST_RETRY),
        )

    async def _work(self, name: StudyName, line: _Line) -> None:
        try:
            while line.next_round():
                began = time.monotonic()
                await self._round(name, line)
                line.pace = time.monotonic() - began
        finally:
            del self._lines[name]
            for call in line.waiting:
                call.settle(_closing())
        if self._shelf is not None and line.modelled:
            self._shelf.note_asked(name)
            self._keep(self._shelf.prepare_after_ask(name, pace=line.pace))

    async def _round(self, name: StudyName, line: _Line) -> None:
        line.chosen = None
        try:
            for attempt in range(MAX_CONFLICTS):
                line.meeting = [call for call in line.meeting if not call.abandoned]
                if not line.meeting or await self._meet(name, line, attempt):
                    return
            raise Unavailable(f"study {name.study!r} is too busy: {MAX_CONFLICTS} collisions in one ask")
        except asyncio.CancelledError:
            line.settle(_closing())
            raise
        except Exception as error:  # noqa: BLE001 - each caller gets the error; the line goes on
            line.settle(error)
        finally:
            line.meeting = ()

    async def _meet(self, name: StudyName, line: _Line, attempt: int) -> bool:
        """Answer the asks that are being met; False if the study changed meanwhile, so that it must be tried again."""
        # What has changed all the same, the hand-out finds; then the study is read.
        recalled = self._recall(name, line.meeting) if attempt == 0 else None
        snapshot = recalled or await self._read(name, line)
        if not line.meeting:
            return True
        fixed = snapshot.study.spec.space.check_fixed(line.meeting[0].command.fixed, path="fixed_parameters")
        allowance = Allowance.of(snapshot, fixed)
        portions: Sequence[Portion] = [
            Portion(call.command, allowance.plan(call.command.count), call.pack) for call in line.meeting
        ]
        prepared = None if self._shelf is None or fixed else self._shelf.serving(snapshot)
        if prepared is not None:
            portions, prepared = line.shorten(portions, prepared)
        wanted = sum(portion.plan.new for portion in portions)
        # Whoever adds trials faster than we choose would make us choose for ever.
        if attempt < YIELDING or line.chosen is None or not line.chosen.serves(snapshot, wanted):
            limit = min(self._longest, *(call.left for call in line.meeting))
            request = suggest_request(snapshot, wanted, fixed=fixed, time_limit=limit)
            line.chosen = await self._choose(request, prepared, made_for=snapshot.study.sequence)
        return await self._hand_out(line, snapshot, portions, line.chosen)

    def _recall(self, name: StudyName, calls: Sequence[_Call]) -> Snapshot | None:
        """What is known of the study, if there is nothing to say of it that could be out of date, and the choice takes no time in which a
        result may come that would make it vain.
        """
        if self._shelf is None or calls[0].command.fixed:
            return None
        snapshot = self.history.recall(name)
        useful = snapshot is not None and self._shelf.swift(snapshot) and _plenty(snapshot, calls)
        return snapshot if useful else None

    async def _read(self, name: StudyName, line: _Line) -> Snapshot:
        """The study as it stands, having answered those of the line's asks that were answered before."""
        requests = [call.command.request for call in line.meeting if call.command.request is not None]
        snapshot = await self.history.read(name, requests=requests)
        line.meeting = [call for call in line.meeting if not _replayed(call, snapshot)]
        return snapshot

    async def _choose(self, request: SuggestRequest, prepared: Prepared | None, *, made_for: int) -> _Chosen:
        """The prepared candidates if they are there in time, else the engine's."""
        if request.count == 0:
            return _Chosen(Decision(()), request.next_number)
        ends = time.monotonic() + (self._longest if request.time_limit is None else request.time_limit)
        if prepared is not None:
            # Half of the time at most, so that some is left for the engine.
            ready = await prepared.ready(request.count, patience=(ends - time.monotonic()) / 2)
            if ready is not None:
                return _Chosen(ready, request.next_number, prepared)
            request = replace(request, time_limit=max(ends - time.monotonic(), 0.0))
        decision = await self.engine.suggest(request)
        candidates = tagged(decision.candidates[: request.count], made_for)
        return _Chosen(replace(decision, candidates=candidates), request.next_number)

    async def _hand_out(self, line: _Line, snapshot: Snapshot, portions: Sequence[Portion], chosen: _Chosen) -> bool:
        """Write the trials down, and answer; False if the study is no longer as the portions saw it."""
        kept = [(call, portion) for call, portion in zip(line.meeting, portions, strict=True) if not call.abandoned]
        line.meeting, portions = [call for call, _ in kept], [portion for _, portion in kept]
        if self._size is not None and any(portion.plan.trials > 1 for portion in portions):
            # Of a thousand trials that takes long enough for other studies to notice.
            measure = partial(fitted, portions, chosen.decision.candidates, snapshot, size=self._size)
            portions = await asyncio.to_thread(measure, nonce=self.new_nonce())
        candidates = chosen.decision.candidates[: sum(portion.plan.new for portion in portions)]
        answer = partial(make_answer, snapshot=snapshot, waits=chosen.decision.waits)
        if not candidates and not any(portion.plan.queued for portion in portions):
            if snapshot.recalled:
                # That there are no more may be out of date, and nothing is written that would show it.
                return False
            for call, portion in zip(line.meeting, portions, strict=True):
                busy = is_busy(snapshot, call.command, portion.plan)
                call.settle(call.pack(answer(call.command, portion.plan, (), busy=busy)))
            return True
        reach("ask.chosen")
        nonces = [self.new_nonce() for _ in candidates]
        checkpoints = snapshot.roster.checkpoints(each.parent for each in candidates)
        try:
            handed = await self.store.write(
                HandOut(snapshot, portions, candidates, nonces, checkpoints, partial(answer, busy=True))
            )
        except Conflict:
            return False
        reach("ask.committed")
        for call, reply in zip(line.meeting, handed.replies, strict=True):
            call.settle(reply)
        self.history.note_added(handed.study, handed.trials, after=handed.after)
        self.meter.handed(candidates, prepared=chosen.prepared is not None)
        line.modelled = any(candidate.origin.acquisition is not None for candidate in candidates)
        if chosen.prepared is not None:
            chosen.prepared.handed += len(candidates)
        self._store_hint(chosen.decision.hint, snapshot)
        return True

    def _store_hint(self, hint: bytes, snapshot: Snapshot) -> None:
        """Store a hint behind the asks, if it is another than the stored one. It only saves time: what is too long or fails is dropped."""
        study = snapshot.study
        if len(hint) > MAX_HINT:
            log.debug("hint_dropped", study=str(study.name), policy=study.spec.policy, bytes=len(hint))
        elif hint and hint != snapshot.hint:
            self.history.note_hint(study.id, hint)
            self._keep(self.store.write(lambda tx: tx.save_hint(study.id, study.spec.policy, hint)))

    def _keep(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("behind_the_asks", error=f"{type(error).__name__}: {error}"[:300])


def _replayed(call: _Call, snapshot: Snapshot) -> bool:
    """Whether the ask was answered before; then it gets the same answer, or AlreadyExists if it had another payload."""
    request = call.command.request
    try:
        earlier = None if request is None else replay_of(request, snapshot.replays.get(request.key))
    except AlreadyExists as error:
        call.settle(error)
        return True
    if earlier is not None:
        call.settle(earlier)
    return earlier is not None


def _plenty(snapshot: Snapshot, calls: Sequence[_Call]) -> bool:
    """Whether all calls can have new trials, as many as they ask for."""
    allowance = Allowance.of(snapshot, {})
    return all(allowance.plan(call.command.count).new == call.command.count for call in calls)


def _closing() -> Unavailable:
    return Unavailable("the server is shutting down", reason="SHUTTING_DOWN")
