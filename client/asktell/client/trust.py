"""Whether an objective works at all: one that is broken must not spend a study's budget in seconds."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self, TypeVar

from asktell.client.errors import FailedPrecondition, InvalidArgument
from asktell.client.values import TrialState
from asktell.client.views import TrialView
from asktell.signatures import misfit

T = TypeVar("T")

FAILURES_IN_A_ROW: Final = 3
"""How many trials may fail in a row, unless said otherwise, before one has succeeded."""


def require_objective(objective: Callable[..., object], *, awaited: bool = False) -> None:
    """Raise InvalidArgument for what cannot be called as `objective(trial)`, before a trial is spent on it; nor, unless it is awaited, for
    a coroutine function.
    """
    if not callable(objective):
        raise InvalidArgument.at("objective", f"is {type(objective).__name__}, not a function of a trial")
    if inspect.iscoroutinefunction(objective) and not awaited:
        raise InvalidArgument.at("objective", "is a coroutine function, which the studies of asktell.client.aio await")
    if takes := misfit(objective, None):
        name = getattr(objective, "__name__", "")
        called = name if name.isidentifier() else "objective"
        # One that takes two is a worker's, as it seems.
        both = "" if misfit(objective, {}, None) else f": write lambda trial: {called}(trial.parameters, trial)"
        raise InvalidArgument.at(
            "objective", f"{name or 'it'} takes {takes}; study.optimize calls it with (trial){both}"
        )


class Evaluation:
    """One call of an objective; as a context manager around it, it sees what went wrong, and how many seconds it took."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.has_result = False
        self.seconds = 0.0
        self._began = 0.0

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.monotonic() - self._began
        self.error = error if isinstance(error, Exception) else None

    def awaitable(self, given: Awaitable[T]) -> Awaitable[T]:
        """What an objective gave to be awaited. InvalidArgument if it cannot be."""
        if inspect.isawaitable(given):
            return given
        self.returned(given)
        raise InvalidArgument.at(
            "objective", f"is no coroutine function: it returned {given!r}, which cannot be awaited; write `async def`"
        )

    def returned(self, result: T) -> T:
        """What an objective returned: what goes wrong from here on is not its training, but its result."""
        self.has_result = True
        return result


class Trust:
    """Until a trial of the loop has succeeded or was stopped, no more than `limit` may fail in a row; None for no limit.

    What an objective returned that is no result ends the loop at once: no other parameters change that. One success settles it for good:
    failures are then a matter of the parameters. Safe to share between threads.
    """

    def __init__(self, limit: int | None) -> None:
        if limit is not None and limit < 1:
            raise InvalidArgument.at("give_up_after", f"must be at least 1, or None for never, not {limit}")
        self._limit = limit
        self._lock = threading.Lock()
        self._earned = limit is None
        self._row: list[int] = []

    def weigh(self, trial: TrialView, evaluation: Evaluation) -> None:
        """Take in what became of a trial; raise what went wrong if it speaks against the objective."""
        with self._lock:
            self._weigh(trial, evaluation)

    def _weigh(self, trial: TrialView, evaluation: Evaluation) -> None:
        error = evaluation.error
        match trial.state:
            case TrialState.SUCCEEDED | TrialState.STOPPED:
                self._earned = True
            case TrialState.INFEASIBLE:
                # Whatever says so, works.
                self._row.clear()
            case TrialState.FAILED:
                self._row.append(trial.number)
        if self._earned:
            return
        if error is not None and evaluation.has_result and _is_no_result(error):
            error.add_note(
                f"trial {trial.number} is told as failed, and another would fail alike: it is what the objective returns"
            )
            raise error
        if len(self._row) == self._limit:
            error = error or FailedPrecondition(
                f"trial {trial.number} failed: {trial.message}", reason="OBJECTIVE_FAILS"
            )
            error.add_note(self._verdict())
            raise error

    def _verdict(self) -> str:
        which = ", ".join(map(str, self._row))
        failed = f"trial {which} failed" if len(self._row) == 1 else f"trials {which} all failed"
        return f"{failed}, and none has succeeded; the objective is likely at fault (give_up_after=None goes on all the same)"


def _is_no_result(error: Exception) -> bool:
    return isinstance(error, InvalidArgument) or (
        isinstance(error, FailedPrecondition) and error.reason == "TRIAL_UNTOLD"
    )
