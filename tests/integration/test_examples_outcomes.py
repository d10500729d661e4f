"""The examples of docs/constraints.md and docs/noise.md do what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def lines_of(module: str) -> list[str]:
    command = [sys.executable, "-m", module]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    ).stdout.splitlines()


def numbers(line: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+\.\d+", line)]


def test_the_example_of_constraints_finds_the_best_within_the_bound() -> None:
    best, expected, infeasible = lines_of("examples.constraints")
    accuracy, latency = numbers(best)
    assert accuracy > 0.895
    assert 40.0 < latency <= 50.0
    assert "latency" in expected
    assert int(infeasible.split()[0]) <= 4


def test_the_example_of_noise_measures_again_and_does_not_trust_luck() -> None:
    repeats, luckiest, likeliest = lines_of("examples.noise")
    assert 1 <= int(repeats.split()[0]) <= 10
    _, told, expected, error = numbers(luckiest)
    assert told < expected - 2.0 * error
    assert abs(numbers(likeliest)[0] - 0.62) < 0.1
