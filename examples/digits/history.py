"""What the study has come to: the trials as the demo shows them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Result:
    """A trial that has ended. `accuracy` is in [0, 1]; None if the trial gave none."""

    number: int
    worker: str
    parameters: Mapping[str, Any]
    accuracy: float | None
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class History:
    """The ended trials, in the order in which they ended."""

    results: tuple[Result, ...] = ()

    @property
    def best(self) -> Result | None:
        """The earliest trial of those with the highest accuracy; None as long as there is no accuracy."""
        rated = [result for result in self.results if result.accuracy is not None]
        return max(rated, key=lambda result: result.accuracy or 0.0, default=None)

    def bests(self) -> list[float | None]:
        """The best accuracy after each trial; None as long as there is none."""
        return running_best(result.accuracy for result in self.results)

    def trials_to_reach(self, accuracy: float) -> int | None:
        """How many trials it took until one was at least that good; None if none was."""
        for count, result in enumerate(self.results, start=1):
            if result.accuracy is not None and result.accuracy >= accuracy:
                return count
        return None


def running_best(accuracies: Iterable[float | None]) -> list[float | None]:
    """The highest value so far, at each place; None as long as there is none."""
    best: float | None = None
    course: list[float | None] = []
    for accuracy in accuracies:
        if accuracy is not None:
            best = accuracy if best is None else max(best, accuracy)
        course.append(best)
    return course
