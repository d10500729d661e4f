"""Whether an objective works at all: one that is broken must not spend a study's budget in seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Literal

YOUNG_SECONDS = 5.0
"""How long a trial counts as one that broke at once, as it does where a script or its installation is broken."""
FAR_SECONDS, FAR_TIMES = 60.0, 3.0
"""A trial that has lasted so long, and so many times as long as any that failed in the row, has come far: the objective works up to there."""
LOOK_SECONDS = 2.0
"""How often the service is asked whether a trial of the study has succeeded meanwhile, by another worker's doing."""

Verdict = Literal["take", "wait", "end"]


@dataclass(slots=True)
class _Place:
    """A trial that a slot has or asks for; `began` is when it was handed out, `fails` once its failure is about to be told."""

    began: float | None = None
    fails: bool = False


class Trust:
    """Until a trial of the study has succeeded or was stopped, no more than `limit` trials of this worker fail at once. For any thread.

    All slots begin. Once `limit` trials have failed in a row, no slot takes another, and one that breaks within YOUNG_SECONDS goes back to
    the queue: sixteen slots cost a study no more than one does. Those that are under way may still show that the objective works, and then
    work goes on; so it does while one of them has come far beyond where the others failed, lest slots stand still for the hours that a first
    success may take. One success, here or elsewhere, settles it for good: failures are then a matter of the parameters.

    Args:
        limit: How many may fail; 0 for no limit.
        is_proven: Asks the service whether a trial of the study has succeeded or was stopped; may raise.
        clock: Seconds.
    """

    def __init__(
        self,
        limit: int,
        *,
        is_proven: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit = limit
        self.last_failure = ""
        """What the last failed trial said; empty before there is one."""
        self._is_proven = is_proven
        self._clock = clock
        self._lock = threading.Lock()
        self._trusted = limit == 0
        self._next_look = 0.0
        self._row = 0
        self._longest = 0.0
        self._places: dict[Hashable, _Place] = {}

    def may_take(self, who: Hashable) -> Verdict:
        """Whether a slot may ask for a trial; `take` sets a place apart for it until `ended` or `left`.

        Raises what `is_proven` does.
        """
        looks, last_word = self._wants_to_look()
        if looks:
            # Without the lock: while the service is away this takes long, and other slots have trials to begin, to end and to leave.
            self._take_in(proven=self._is_proven())
        with self._lock:
            if self._has_room():
                self._places[who] = _Place()
                return "take"
            return "end" if last_word and self._is_over() else "wait"

    def _wants_to_look(self) -> tuple[bool, bool]:
        """Whether the service is to be asked, at the first time and then now and then, and whether that has the last word: always before
        the end.
        """
        with self._lock:
            if self._has_room():
                return False, False
            last_word, due = self._is_over(), self._clock() >= self._next_look
            if due:
                self._next_look = self._clock() + LOOK_SECONDS
            return due or last_word, last_word

    def _take_in(self, *, proven: bool) -> None:
        with self._lock:
            self._trusted = self._trusted or proven

    def _has_room(self) -> bool:
        return self._trusted or self._row < self.limit or self._one_is_far()

    def _one_is_far(self) -> bool:
        far = max(FAR_SECONDS, FAR_TIMES * self._longest)
        return any(self._age(place) >= far for place in self._places.values())

    def _age(self, place: _Place) -> float:
        return 0.0 if place.began is None else self._clock() - place.began

    def _is_over(self) -> bool:
        return self._row >= self.limit and not self._places

    def began(self, who: Hashable) -> None:
        """Take in that a slot has its trial."""
        with self._lock:
            self._places[who] = _Place(self._clock())

    def may_fail(self, who: Hashable) -> bool:
        """Whether a slot may tell that its trial has failed; else it gives it back: as many have failed as may, and this one broke at once."""
        with self._lock:
            place = self._places[who]
            told = self._row + sum(each.fails for each in self._places.values())
            at_once = self._age(place) < YOUNG_SECONDS
            place.fails = self._trusted or told < self.limit or not at_once or self._one_is_far()
            return place.fails

    def ended(self, who: Hashable, *, outcome: str, message: str = "") -> None:
        """Take in what became of a slot's trial."""
        with self._lock:
            place = self._places.pop(who, None)
            if outcome == "failed":
                self._row += 1
                self._longest = max(self._longest, self._age(place) if place else 0.0)
                self.last_failure = message
            elif outcome == "infeasible":
                # Whatever says so, works.
                self._row, self._longest = 0, 0.0
            elif outcome in ("succeeded", "stopped"):
                self._trusted = True

    def left(self, who: Hashable) -> None:
        """Take in that a slot takes no more trials. A second time does nothing."""
        with self._lock:
            self._places.pop(who, None)
