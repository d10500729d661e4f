"""The example of docs/stopping.md does what it says."""

from __future__ import annotations

from pathlib import Path

import pytest


def test_the_example_saves_epochs_says_why_and_draws_the_curves(example, tmp_path: Path) -> None:
    picture = tmp_path / "curves.png"
    saved, why, best = example("stopping", str(picture))
    epochs = int(saved.split(";")[1].split()[0])
    assert 81 < epochs < 0.7 * 2430
    assert "go on" in why or "goes on" in why
    assert best.startswith("best: trial ")
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("module", ["stopping", "population", "frameworks.learning_rate_range"])
def test_an_example_that_draws_can_be_asked_how_and_draws_nothing(
    module: str, example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert any("PICTURE" in line for line in example(module, "--help"))
    assert not list(tmp_path.iterdir())
