"""How asktell's best compares with the defaults and with random search at the same budget: the numbers, and a fair sentence."""

import statistics
from dataclasses import dataclass

from rich.table import Table

from examples.digits.history import History
from examples.digits.random_search import RandomSearch


@dataclass(frozen=True, slots=True)
class Comparison:
    """The best accuracy of this run beside what else one could have done. Accuracies in [0, 1].

    Attributes:
        best: the best of this run.
        trials: how many trials this run took.
        defaults: accuracy of the defaults, on the same folds.
        random_bests: the best of each recorded random search.
        random_trials: after how many trials: as many as this run's, or all there are if the record is shorter.
        trials_to_random: how many trials this run took to be at least as good as the median of those; None if it never was.
    """

    best: float
    trials: int
    defaults: float
    random_bests: tuple[float, ...]
    random_trials: int
    trials_to_random: int | None

    @property
    def random_median(self) -> float:
        """What random search typically finds."""
        return statistics.median(self.random_bests)

    def sentence(self) -> str:
        """Which was better, and by how much: also when it was not asktell."""
        seeds, beaten = len(self.random_bests), sum(self.best > other for other in self.random_bests)
        if self.best > self.random_median:
            fewer = _share(1 - self.best, 1 - self.random_median)
            return (
                f"asktell beat {beaten} of {seeds} random searches; it makes {fewer} fewer errors than their median, which it "
                f"passed after {self.trials_to_random} of {self.trials} trials."
            )
        return (
            f"In this run asktell did NOT beat the median of {seeds} random searches of {self.random_trials} trials "
            f"({self.best:.2%} against {self.random_median:.2%}; it beat {beaten} of them). Another --seed may do better or worse."
        )


def compare(history: History, *, random_search: RandomSearch, defaults: float) -> Comparison:
    """Put the run beside the others. ValueError if no trial came to an accuracy."""
    best = history.best
    if best is None or best.accuracy is None:
        raise ValueError(f"none of the {len(history.results)} trials came to an accuracy")
    trials = len(history.results)
    bests = tuple(random_search.bests(trials))
    return Comparison(
        best=best.accuracy,
        trials=trials,
        defaults=defaults,
        random_bests=bests,
        random_trials=min(trials, random_search.trials),
        trials_to_random=history.trials_to_reach(statistics.median(bests)),
    )


def table(comparison: Comparison) -> Table:
    """The comparison as a table: accuracy, and errors against the defaults'."""
    seeds = len(comparison.random_bests)
    span = f"{min(comparison.random_bests):.2%} to {max(comparison.random_bests):.2%}"
    drawn = Table(title="3-fold cross-validated accuracy", title_justify="left", header_style="bold")
    drawn.add_column("")
    drawn.add_column("accuracy", justify="right")
    drawn.add_column("errors", justify="right")
    drawn.add_column("how")
    drawn.add_row("asktell", *_numbers(comparison.best), f"best of {comparison.trials} trials", style="bold green")
    drawn.add_row(
        "random search",
        *_numbers(comparison.random_median),
        f"best of {comparison.random_trials} trials: median of {seeds} recorded seeds ({span})",
    )
    drawn.add_row("defaults", *_numbers(comparison.defaults), "no tuning, the same folds and epochs")
    return drawn


def _numbers(accuracy: float) -> tuple[str, str]:
    return f"{accuracy:.2%}", f"{1 - accuracy:.2%}"


def _share(part: float, whole: float) -> str:
    return f"{1 - part / whole:.0%}"
