"""What a study does with its trials, in as few words as can be: what the service is held against (P18).

It knows no clock, no database and no wire. A claim is (number, attempt). Refused says the reason that the service must give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

WORKER = "w"


class State(Enum):
    """How a trial stands; the values are those of the wire."""

    QUEUED = 1
    ACTIVE = 2
    SUCCEEDED = 3
    STOPPED = 4
    INFEASIBLE = 5
    FAILED = 6
    CANCELLED = 7


OPEN = (State.QUEUED, State.ACTIVE)


class Refused(Exception):
    """The call must be refused, for this reason, and change nothing."""


@dataclass(frozen=True)
class Outcome:
    """What a worker tells."""

    state: State
    loss: float | None = None
    message: str = ""
    retry: bool = False


@dataclass
class Trial:
    """`resumable`: its lease expired, and nobody has taken it since."""

    number: int
    state: State = State.QUEUED
    attempt: int = 0
    spent: int = 0
    resumable: bool = False
    loss: float | None = None
    message: str = ""
    reported: dict[int, float] = field(default_factory=dict)

    def held(self, attempt: int) -> bool:
        return 1 <= attempt <= self.attempt

    def live(self, attempt: int) -> bool:
        return self.state is State.ACTIVE and attempt == self.attempt

    def resume(self, attempt: int) -> None:
        if self.resumable and attempt == self.attempt:
            self.state, self.resumable, self.spent = State.ACTIVE, False, max(self.spent - 1, 0)

    def end(self, state: State, *, loss: float | None = None, message: str = "") -> None:
        self.state, self.resumable, self.loss, self.message = state, False, loss, message

    def require(self, *, attempt: int, allowed: bool) -> None:
        if not allowed:
            ended = "LEASE_LOST" if self.state in OPEN else "TRIAL_ENDED"
            raise Refused(ended if self.held(attempt) else "LEASE_UNKNOWN")

    def ended_so(self, told: Outcome) -> bool:
        equal = (told.state is State.STOPPED and told.loss is None) or told.loss == self.loss
        return self.state is told.state and equal and (told.state is State.SUCCEEDED or told.message == self.message)


@dataclass
class Study:
    """A study whose space never runs out."""

    max_attempts: int
    accepts_late: bool
    state: str = "ACTIVE"
    max_trials: int | None = None
    max_parallel: int | None = None
    max_failures: int | None = None
    trials: dict[int, Trial] = field(default_factory=dict)

    def count(self, *states: State) -> int:
        return sum(trial.state in states for trial in self.trials.values())

    def add(self, state: State, *, loss: float | None = None) -> Trial:
        """A trial of the caller's choice, queued or finished elsewhere."""
        number = len(self.trials) + 1
        self.trials[number] = Trial(number, state, loss=loss)
        return self.trials[number]

    def ask(self, count: int) -> tuple[Sequence[int], str, bool]:
        """The numbers that are handed out, why there are fewer than asked for, and whether there will never be more."""
        overspent = self.max_failures is not None and self.count(State.FAILED) >= self.max_failures
        if self.state != "ACTIVE" or overspent:
            reason = "BUDGET_SPENT" if self.state == "ACTIVE" else self.state
            return [], reason, reason != "PAUSED"
        room = _room(self.max_parallel, self.count(State.ACTIVE), count)
        queued = [number for number, trial in sorted(self.trials.items()) if trial.state is State.QUEUED][:room]
        spent = len(self.trials) - self.count(State.CANCELLED)
        new = [self.add(State.QUEUED).number for _ in range(_room(self.max_trials, spent, room - len(queued)))]
        taken = [*queued, *new]
        for number in taken:
            trial = self.trials[number]
            trial.state, trial.attempt, trial.resumable = State.ACTIVE, trial.attempt + 1, False
        reason = "UNSPECIFIED" if len(taken) == count else "MAX_PARALLEL" if len(taken) == room else "BUDGET_SPENT"
        return taken, reason, reason == "BUDGET_SPENT" and not self.count(*OPEN)

    def tell(self, number: int, attempt: int, told: Outcome) -> None:
        trial = self.trials[number]
        if trial.state not in OPEN and trial.held(attempt) and trial.ended_so(told):
            return
        late = self.accepts_late and trial.held(attempt) and trial.state in OPEN and told.state is not State.FAILED
        trial.require(attempt=attempt, allowed=trial.live(attempt) or late)
        if told.state is State.STOPPED and told.loss is None:
            told = replace(told, loss=trial.reported[max(trial.reported)] if trial.reported else None)
        if told.state is not State.FAILED:
            trial.end(told.state, loss=told.loss, message=told.message)
            return
        trial.spent += 1
        again = told.retry and trial.spent < self.max_attempts
        trial.end(State.QUEUED if again else State.FAILED, message=told.message)

    def report(self, number: int, attempt: int, *, step: int, loss: float) -> bool:
        """Whether the worker is to go on."""
        going_on = self.renew(number, attempt)
        if going_on:
            self.trials[number].reported[step] = loss
        return going_on

    def renew(self, number: int, attempt: int) -> bool:
        """Whether the lease is kept."""
        trial = self.trials[number]
        if _room(self.max_parallel, self.count(State.ACTIVE), 1):
            trial.resume(attempt)
        return trial.live(attempt)

    def release(self, number: int, attempt: int) -> None:
        trial = self.trials[number]
        latest = trial.held(attempt) and attempt == trial.attempt
        if latest and trial.state is State.QUEUED and not trial.resumable:
            return
        trial.resume(attempt)
        trial.require(attempt=attempt, allowed=trial.live(attempt))
        trial.state = State.QUEUED

    def cancel(self, number: int) -> None:
        trial = self.trials[number]
        if trial.state not in (*OPEN, State.CANCELLED):
            raise Refused("TRIAL_ENDED")
        trial.end(State.CANCELLED)

    def expire(self, number: int) -> None:
        """An active trial's lease runs out."""
        trial = self.trials[number]
        trial.spent += 1
        trial.state, trial.resumable = State.QUEUED, True
        if trial.spent >= self.max_attempts:
            told = f"the lease expired without a result in {trial.spent} attempts, last held by {WORKER}"
            trial.end(State.FAILED, message=told)


def _room(limit: int | None, used: int, wanted: int) -> int:
    return wanted if limit is None else max(0, min(wanted, limit - used))
