"""The example of docs/pbt.md does what it says."""

from __future__ import annotations

import re
from pathlib import Path


def test_the_example_finds_a_falling_learning_rate_and_draws_it(example, tmp_path: Path) -> None:
    picture = tmp_path / "schedule.png"
    *shown, members = example("population", str(picture))
    rates, losses = (
        [float(number) for line in shown for number in re.findall(rf"{name} (\d+\.\d+)", line)]
        for name in ("rate", "loss")
    )
    assert rates[-1] < 0.5 * rates[0]
    assert losses[-1] < 0.01 < losses[0]
    assert len(set(re.findall(r"\d+", members))) > 1
    assert picture.read_bytes().startswith(b"\x89PNG")
