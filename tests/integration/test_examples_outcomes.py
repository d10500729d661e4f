"""The examples of docs/constraints.md and docs/noise.md do what they say."""

from __future__ import annotations

import re


def numbers(line: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+\.\d+", line)]


def test_the_example_of_constraints_finds_the_best_within_the_bound(example) -> None:
    best, expected, infeasible = example("constraints")
    accuracy, latency = numbers(best)
    assert accuracy > 0.895
    assert 40.0 < latency <= 50.0
    assert "latency" in expected
    assert int(infeasible.split()[0]) <= 4


def test_the_example_of_noise_measures_again_and_does_not_trust_luck(example) -> None:
    repeats, luckiest, likeliest = example("noise")
    assert 1 <= int(repeats.split()[0]) <= 10
    _, told, expected, error = numbers(luckiest)
    assert told < expected - 2.0 * error
    assert abs(numbers(likeliest)[0] - 0.62) < 0.1
