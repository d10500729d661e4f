"""The examples of docs/surrogate.md and docs/enqueue.md do what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def lines_of(module: str) -> list[str]:
    command = [sys.executable, "-m", module]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    ).stdout.splitlines()


def test_the_example_of_the_surrogate_finds_what_matters() -> None:
    expected, importance, left_out = lines_of("examples.beliefs")
    assert 0.3 < float(expected.split()[5]) < 0.9
    assert importance.startswith("importance: learning_rate ")
    assert importance.endswith("dropout 0%")
    assert "of 40 results within one standard deviation" in left_out


def test_the_example_of_enqueueing_hands_out_what_was_enqueued() -> None:
    lines = lines_of("examples.enqueue")
    assert [line.rpartition(" ")[2] for line in lines] == ["user", "user", "user", "gp"]
    assert ["0.005" in lines[0], "0.02" in lines[1], "0.03" in lines[2]] == [True] * 3
