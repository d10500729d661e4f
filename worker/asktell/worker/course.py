"""What the slots of a worker have in common: how far it has come, when it ends, and what it says only once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Summary:
    """What a worker did, and why it ended."""

    reason: str = ""
    outcomes: Counter[str] = field(default_factory=Counter)
    stopped_by_failure: bool = False
    last_failure: str = ""
    """What the last trial said of a worker that ended since so many had failed in a row; empty where that was not why."""

    def __str__(self) -> str:
        done = ", ".join(f"{count} {name}" for name, count in self.outcomes.items())
        return f"{self.reason}; {done or 'no trials'}"


class Course:
    """The course of a worker's work, of which each slot does a part. For any thread.

    Args:
        max_trials: Trials that all slots take together; None for no end.
        ends_at_failure: Whether no slot takes another trial after one has failed.
    """

    def __init__(self, *, max_trials: int | None, ends_at_failure: bool) -> None:
        self.summary = Summary()
        self._max_trials = max_trials
        self._ends_at_failure = ends_at_failure
        self._taken = 0
        self._told: set[int] = set()
        self._lock = threading.Lock()

    def may_take(self) -> bool:
        """Set a trial apart for a slot, which then asks until it has one; False if the worker takes no more."""
        with self._lock:
            spent = self._max_trials is not None and self._taken >= self._max_trials
            if spent:
                trials = "1 trial" if self._max_trials == 1 else f"{self._max_trials} trials"
                self.summary.reason = f"{trials} done, as many as were wanted here"
            else:
                self._taken += 1
            return not spent

    def ends(self) -> bool:
        """Whether a failed trial has ended the work."""
        with self._lock:
            if self._ends_at_failure and self.summary.outcomes["failed"]:
                self.summary.reason = "a trial failed"
                self.summary.stopped_by_failure = True
            return self.summary.stopped_by_failure

    def close(self, reason: str) -> None:
        """Take in why a slot takes no more trials."""
        with self._lock:
            if not self.summary.stopped_by_failure:
                self.summary.reason = reason

    def told(self, number: int) -> None:
        """Take in that a slot ended a trial by its word."""
        with self._lock:
            self._told.add(number)

    def has_told(self, number: int) -> bool:
        """Whether a slot ended a trial by its word: late perhaps, while another slot had it again."""
        with self._lock:
            return number in self._told

    def give_up(self, failures: int, *, last: str) -> None:
        """Take in that the objective is taken for broken, as `last` says."""
        with self._lock:
            self.summary.reason = f"{failures} trials failed in a row, and none of the study has succeeded"
            self.summary.stopped_by_failure = True
            self.summary.last_failure = last

    def count(self, outcome: str) -> None:
        """Take in what became of a trial."""
        with self._lock:
            self.summary.outcomes[outcome] += 1


class Notices:
    """Keeps many slots from saying what one of them has said. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: dict[str, str] = {}
        self._concerned: dict[str, set[Hashable]] = {}

    def is_news(self, topic: str, who: Hashable, text: str) -> bool:
        """Whether nobody has said this text of the topic since somebody said another, or it was over for all."""
        with self._lock:
            self._concerned.setdefault(topic, set()).add(who)
            news = self._said.get(topic) != text
            self._said[topic] = text
            return news

    def over(self, topic: str, who: Hashable) -> None:
        """Take in that the topic concerns a slot no more."""
        with self._lock:
            concerned = self._concerned.get(topic, set())
            concerned.discard(who)
            if not concerned:
                self._said.pop(topic, None)
