"""The simulated trainings that stopping rules are measured with."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from benchmarks.problem import drawn
from benchmarks.simulation import WORKERS, Simulation
from benchmarks.trainings import BEST, EPOCHS, FAMILIES, WORST


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("seed", [0, 1])
def test_losses_never_rise_and_stay_between_the_best_and_the_worst(name: str, seed: int) -> None:
    family, generator = FAMILIES[name](seed), np.random.default_rng(seed)
    for _ in range(20):
        curve = family.curve(drawn(family.problem.params, generator))
        losses = [curve(epoch) for epoch in range(1, EPOCHS + 1)]
        assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(losses))
        assert min(losses) >= BEST
        assert max(losses) <= WORST


def test_curves_cross_in_the_family_that_is_named_so() -> None:
    family = FAMILIES["crossing"](0)
    assert family.problem.optimum is not None
    best = family.curve(family.problem.optimum)
    generator = np.random.default_rng(0)
    near = [
        family.curve({name: value + generator.uniform(-0.2, 0.2) for name, value in family.problem.optimum.items()})
        for _ in range(100)
    ]
    ahead = [curve for curve in near if curve(3) < best(3)]
    assert len(ahead) > 10
    assert all(best(EPOCHS) < curve(EPOCHS) for curve in ahead)


class Once:
    """Asks at random, and stops what comes to the third epoch with an odd number."""

    def __init__(self, params: Any) -> None:
        self.params, self.number = params, 0
        self.told: list[tuple[int, bool]] = []

    def ask(self) -> tuple[int, dict[str, Any]]:
        self.number += 1
        return self.number, drawn(self.params, np.random.default_rng(self.number))

    def report(self, token: int, epoch: int, loss: float) -> bool:
        return epoch == 3 and token % 2 == 1

    def tell(self, token: int, loss: float, *, stopped: bool) -> None:
        self.told.append((token, stopped))


def test_the_simulation_counts_epochs_and_stops_where_it_is_told_to() -> None:
    family = FAMILIES["power"](0)
    peer = Once(family.problem.params)
    run = Simulation(peer, family, 0).run(trials=10, epochs=0)
    assert (run.trials, run.stopped, run.epochs) == (10, 5, 5 * 3 + 5 * EPOCHS)
    assert sorted(peer.told) == [(number, number % 2 == 1) for number in range(1, 11)]
    again = Simulation(Once(family.problem.params), family, 0).run(trials=10, epochs=0)
    assert again == run


def test_a_budget_of_epochs_is_overdrawn_by_less_than_a_round() -> None:
    family = FAMILIES["power"](0)
    run = Simulation(Once(family.problem.params), family, 0).run(trials=1, epochs=100)
    assert 100 <= run.epochs < 100 + WORKERS
