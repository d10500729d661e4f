"""Candidates chosen ahead of the ask that takes them, and when they still serve."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile

import structlog

from asktell.server.application.ask import Allowance, suggest_request
from asktell.server.application.history import History, Snapshot, foreseen
from asktell.server.application.ports import Engine
from asktell.server.application.roster import observed
from asktell.server.application.tell import Result, Succeeded
from asktell.server.domain.errors import DomainError
from asktell.server.domain.metric import Goal, Objective
from asktell.server.domain.policy import Candidate, Decision, Observation
from asktell.server.domain.study import StudyName
from asktell.server.domain.trial import Trial, TrialState, finite

log = structlog.get_logger("asktell.speculation")

WORKERS_PER_RESULT = 16
"""For so many active trials, candidates may lack one result: whoever chooses for many workers lacks those of all the others. With 4, eight
workers seemed to find worse values in a small comparison (levy8 with both seeds; branin with neither).
"""
USUAL = 2.0
"""How many standard deviations from what was expected of it a result may lie and still say little that is new."""
MOST = 4
"""Candidates prepared at a time."""
QUIET = 0.05
"""Seconds after a hand-out before the next candidates are prepared: workers that come back sooner leave no time to prepare."""
ATTENTION = 600.0
"""Seconds after an ask during which another one is expected."""
LONGEST = 5.0
"""Seconds that a preparation may keep an engine process, which others may need; what it has not chosen by then is not used."""
PATIENCE = 1.0
"""Seconds after a preparation in vain before a tell leads to the next."""
MAX_STUDIES = 256


@dataclass(slots=True)
class Prepared:
    """Candidates for the next trials of a study, being chosen or there already.

    `made_for` is the sequence number of the study that they were chosen for, `first_number` the number of the first one's trial, `count` how
    many they are, `handed` how many have been handed out; `decision` is None where preparing did not pay. `foretold` is a result that was
    not stored yet when they were chosen: they serve only if it was what made the sequence number this. `incarnation` is that of the database
    that they were chosen for: another one may have the same numbers for other changes.
    """

    study_id: int
    made_for: int
    first_number: int
    count: int
    decision: asyncio.Task[Decision | None]
    foretold: Observation | None = None
    handed: int = 0
    incarnation: str = ""

    @property
    def left(self) -> int:
        """How many candidates that serve are there, or are expected, and have not been handed out."""
        return (_useful(self.decision) if self.decision.done() else self.count) - self.handed

    async def ready(self, count: int, *, patience: float) -> Decision | None:
        """The next candidates, once they are there; None if they are not within `patience` seconds, or too few of them serve."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                # Whatever becomes of the preparation, the ask can do without it.
                await asyncio.wait([self.decision])
        if not self.decision.done() or self.left < count:
            return None
        decision = self.decision.result()
        if decision is None:
            return None
        candidates = decision.candidates[self.handed : self.handed + count]
        return Decision(tagged(candidates, self.made_for), decision.hint)

    def serves(self, snapshot: Snapshot) -> bool:
        """Whether the candidates are still what an ask should get: neither was another trial added nor the study itself changed since
        they were chosen, and no result came that would change them much.
        """
        study = snapshot.study
        expected = self.study_id, self.incarnation, self.first_number + self.handed
        if (study.id, snapshot.incarnation, study.next_number) != expected:
            return False
        if not study.own_sequence <= self.made_for <= study.sequence or not self._came_true(snapshot):
            # The study itself was changed: its space may be wider. Or the database lost what they were chosen by. Or it is another result that
            # was stored first.
            return False
        changed = snapshot.roster.changes_after(self.made_for)
        if changed is None:
            return False
        results = [trial for trial in _last(changed) if trial.state.terminal]
        if results and study.spec.fidelity is not None:
            # Each may let a trial go on to the next rung, and what was expected of it was said of the highest.
            return False
        if not all(unsurprising(trial, study.spec.objectives) for trial in results):
            return False
        return len(results) <= snapshot.counts.active // WORKERS_PER_RESULT

    def _came_true(self, snapshot: Snapshot) -> bool:
        if self.foretold is None:
            return True
        trial = snapshot.roster.trials.get(self.foretold.number)
        return trial is not None and trial.sequence == self.made_for and observed(trial) == self.foretold


class Shelf:
    """Prepares candidates while an engine process is idle, one lot a study. Losing it loses nothing. Used from the event loop alone.

    `busy` says whether asks of a study are being met, which then choose for themselves.
    """

    def __init__(self, *, history: History, engine: Engine, busy: Callable[[StudyName], bool]) -> None:
        self._history, self._engine, self._busy = history, engine, busy
        self._prepared: dict[StudyName, Prepared] = {}
        self._asked: OrderedDict[StudyName, float] = OrderedDict()
        self._preparing: set[StudyName] = set()
        self._vain: dict[StudyName, float] = {}
        self._tasks: set[asyncio.Task[Decision | None]] = set()

    def serving(self, snapshot: Snapshot) -> Prepared | None:
        """What is prepared for the study as it stands; None if nothing is. What no longer serves is dropped."""
        name = snapshot.study.name
        prepared = self._prepared.get(name)
        if prepared is None or (prepared.left > 0 and prepared.serves(snapshot)):
            return prepared
        del self._prepared[name]
        return None

    def swift(self, snapshot: Snapshot) -> bool:
        """Whether a choice takes no time: candidates are there, or no surrogate has chosen for the study."""
        prepared = self.serving(snapshot)
        return snapshot.study.name not in self._asked if prepared is None else prepared.decision.done()

    def note_asked(self, name: StudyName) -> None:
        """A surrogate chose for an ask here: another one may come, and would have to wait for it."""
        self._asked[name] = time.monotonic()
        self._asked.move_to_end(name)
        while len(self._asked) > MAX_STUDIES:
            forgotten, _ = self._asked.popitem(last=False)
            self._prepared.pop(forgotten, None)
            self._vain.pop(forgotten, None)

    async def close(self) -> None:
        """End what is being prepared, as far as it can be ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def pays(self, name: StudyName) -> bool:
        """Whether to look, after a tell, if something can be prepared: an ask is expected, nobody looks already, and it was not just in
        vain, as for a policy that needs no model.
        """
        now = time.monotonic()
        return (
            name not in self._preparing
            and now - self._asked.get(name, -ATTENTION) < ATTENTION
            and now - self._vain.get(name, -PATIENCE) >= PATIENCE
        )

    async def prepare_after_ask(self, name: StudyName, *, pace: float) -> None:
        """Prepare for the workers that will come back, if asks, which take `pace` seconds to meet, leave the time, and there are so many
        that one result more or less makes no difference.
        """
        asked = self._asked.get(name)
        await asyncio.sleep(max(QUIET, pace / 2))
        if asked is not None and asked == self._asked.get(name):
            await self._prepare(name, at_least=0)

    async def prepare_during_tell(self, name: StudyName, result: Result) -> None:
        """Choose what the worker that tells will ask for while its result is being stored, which takes some milliseconds, if that pays and
        nothing else is there, which may still serve.
        """
        prepared = self._prepared.get(name)
        if (prepared is None or not prepared.left) and self.pays(name):
            await self._prepare(name, at_least=1, result=result)

    async def prepare_after_tell(self, name: StudyName, numbers: Collection[int]) -> None:
        """Choose at once what the worker that told of these trials will ask for, if that pays and was not begun before."""
        prepared = self._prepared.get(name)
        begun = prepared is not None and prepared.foretold is not None and prepared.foretold.number in numbers
        if not begun and self.pays(name):
            await self._prepare(name, at_least=1)

    async def _prepare(self, name: StudyName, *, at_least: int, result: Result | None = None) -> None:
        if self._busy(name) or name in self._preparing:
            return
        self._preparing.add(name)
        try:
            snapshot = self._history.recall(name) or await self._history.read(name)
            if not self._busy(name) and self.serving(snapshot) is None:
                foretold = None if result is None else _foretold(snapshot, result)
                if foretold is not None:
                    self._begin(snapshot.foretelling(foretold), at_least)
                elif result is None:
                    self._begin(snapshot, at_least)
        except DomainError as error:
            log.debug("not_prepared", study=str(name), error=str(error))
        finally:
            self._preparing.discard(name)

    def _begin(self, snapshot: Snapshot, at_least: int) -> None:
        study, count = snapshot.study, _count(snapshot, at_least=at_least)
        if count == 0 or study.name not in self._asked:
            return
        request = suggest_request(snapshot, count, fixed={}, time_limit=LONGEST)
        decision = asyncio.create_task(self._engine.suggest_ahead(request), name="prepare")
        self._tasks.add(decision)
        decision.add_done_callback(partial(self._note_outcome, study.name))
        self._prepared[study.name] = Prepared(
            study.id,
            study.sequence + (snapshot.foretold is not None),
            study.next_number,
            count,
            decision,
            snapshot.foretold,
            incarnation=snapshot.incarnation,
        )

    def _note_outcome(self, name: StudyName, task: asyncio.Task[Decision | None]) -> None:
        self._tasks.discard(task)
        if not _useful(task):
            if name in self._asked:
                self._vain[name] = time.monotonic()
            prepared = self._prepared.get(name)
            if prepared is not None and prepared.decision is task:
                del self._prepared[name]


def _useful(task: asyncio.Task[Decision | None]) -> int:
    """How many candidates of a preparation that has ended serve: the first ones that were chosen in time, and not by chance in place of the
    surrogate. An ask may still do better than the others.
    """
    if task.cancelled():
        return 0
    error = task.exception()
    if error is not None:
        log.debug("not_prepared", error=f"{type(error).__name__}: {error}"[:300])
        return 0
    decision = task.result()
    if decision is None:
        return 0
    timely = decision.candidates[: decision.timely]
    return sum(
        1 for _ in takewhile(lambda each: not each.origin.fallback or each.origin.acquisition is not None, timely)
    )


def _foretold(snapshot: Snapshot, result: Result) -> Observation | None:
    """What the result will make of its trial; None if it is stored already, may be refused, or more depends on it than what is observed."""
    trial, spec = snapshot.roster.trials.get(result.number), snapshot.study.spec
    if trial is None or trial.state is not TrialState.ACTIVE or not trial.held(result.lease_token):
        return None
    if not isinstance(result.outcome, Succeeded) or spec.fidelity is not None or foreseen(spec) is not None:
        return None
    return replace(observed(trial), state=TrialState.SUCCEEDED, metrics=result.outcome.metrics)


def _count(snapshot: Snapshot, *, at_least: int) -> int:
    """How many candidates to prepare: none while trials are queued, which go first, or where the budget allows none."""
    wanted = max(min(snapshot.counts.active // WORKERS_PER_RESULT, MOST), at_least)
    plan = Allowance.of(snapshot, {}).plan(wanted)
    return 0 if plan.queued else plan.new


def tagged(candidates: Iterable[Candidate], made_for: int) -> tuple[Candidate, ...]:
    """The candidates, with the sequence number of the study that they were chosen for in their origin."""
    return tuple(replace(candidate, origin=replace(candidate.origin, made_for=made_for)) for candidate in candidates)


def unsurprising(trial: Trial, objectives: Sequence[Objective]) -> bool:
    """Whether the trial's result is about what its origin predicted, and no better than the best before it."""
    if trial.state is not TrialState.SUCCEEDED or len(objectives) > 1 or trial.origin.incumbent is None:
        return False
    (objective,) = objectives
    expected = trial.origin.predictions
    if objective.metric not in expected or not finite(trial.metrics, list(expected)):
        return False
    value = trial.metrics[objective.metric].value
    gain = trial.origin.incumbent - value if objective.goal is Goal.MINIMIZE else value - trial.origin.incumbent
    return gain <= 0 and all(
        abs(trial.metrics[name].value - each.mean) <= USUAL * each.standard_deviation for name, each in expected.items()
    )


def _last(changed: Iterable[Trial]) -> Iterable[Trial]:
    return {trial.number: trial for trial in changed}.values()
