"""The example of docs/pbt.md does what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_example_finds_a_falling_learning_rate_and_draws_it(tmp_path: Path) -> None:
    picture = tmp_path / "schedule.png"
    command = [sys.executable, "-m", "examples.population", str(picture)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=True)
    *shown, members = done.stdout.splitlines()
    rates, losses = (
        [float(number) for line in shown for number in re.findall(rf"{name} (\d+\.\d+)", line)]
        for name in ("rate", "loss")
    )
    assert rates[-1] < 0.5 * rates[0]
    assert losses[-1] < 0.01 < losses[0]
    assert len(set(re.findall(r"\d+", members))) > 1
    assert picture.read_bytes().startswith(b"\x89PNG")
