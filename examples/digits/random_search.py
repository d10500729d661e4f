"""Random search on the demo's space without a server: what asktell is compared with, and the record of it."""

import json
import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from asktell.client import Categorical, Float, Int, Ordinal, ParameterSpec
from examples.digits.space import PARAMETERS

RECORD = Path(__file__).with_name("random_search.json")
DECIMALS = 6
"""Places to which accuracies are recorded and compared: equal ones stay equal, and one image in 1,797 still counts."""


@dataclass(frozen=True, slots=True)
class RandomSearch:
    """Recorded runs of random search.

    `runs` holds, for each seed, the accuracies of its trials in the order of evaluation: at least one run, all of one length.
    """

    runs: tuple[tuple[float, ...], ...]

    @property
    def trials(self) -> int:
        """How many trials each run has."""
        return min(map(len, self.runs))

    def bests(self, trials: int) -> list[float]:
        """The best accuracy that each run had found after that many trials; after the last one if it has fewer."""
        return [max(run[:trials]) for run in self.runs]

    def course(self) -> Iterator[tuple[float, float, float]]:
        """Lowest, median and highest best-so-far over the runs, after each trial."""
        for bests in zip(*(accumulate(run, max) for run in self.runs), strict=True):
            yield min(bests), statistics.median(bests), max(bests)


def recorded() -> RandomSearch:
    """Read the record that comes with the demo. FileNotFoundError if there is none."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    return RandomSearch(tuple(tuple(run["accuracies"]) for run in record["runs"]))


def configurations(*, seed: int, count: int) -> Iterator[dict[str, Any]]:
    """Draw configurations independently: uniform in each parameter, on its own scale; inactive parameters are left out."""
    numbers = random.Random(seed)  # noqa: S311 - nothing here is a secret.
    for _ in range(count):
        yield _configuration(numbers)


def _configuration(numbers: random.Random) -> dict[str, Any]:
    drawn: dict[str, Any] = {}
    for spec in PARAMETERS:
        # A number is drawn for inactive parameters, too, so that one configuration does not shift the next.
        quantile = numbers.random()
        if spec.when is None or drawn.get(spec.when[0]) in spec.when[1]:
            drawn[spec.name] = _value(spec, quantile)
    return drawn


def _value(spec: ParameterSpec, quantile: float) -> Any:
    match spec:
        case Float(low=low, high=high, log=True):
            return low * (high / low) ** quantile
        case Float(low=low, high=high):
            return low + quantile * (high - low)
        case Int(low=low, high=high, log=False):
            return low + int(quantile * (high - low + 1))
        case Categorical(choices=values) | Ordinal(values=values):
            return _pick(values, quantile)
        case _:
            raise NotImplementedError(f"{spec!r}: random search here draws only what the demo's space is made of")


def _pick(values: Sequence[Any], quantile: float) -> Any:
    return values[int(quantile * len(values))]
