"""The example of docs/stopping.md does what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_example_saves_epochs_says_why_and_draws_the_curves(tmp_path: Path) -> None:
    picture = tmp_path / "curves.png"
    command = [sys.executable, "-m", "examples.stopping", str(picture)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=True)
    saved, why, best = done.stdout.splitlines()
    epochs = int(saved.split(";")[1].split()[0])
    assert 81 < epochs < 0.7 * 2430
    assert "go on" in why or "goes on" in why
    assert best.startswith("best: trial ")
    assert picture.read_bytes().startswith(b"\x89PNG")
