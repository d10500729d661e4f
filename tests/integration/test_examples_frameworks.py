"""The examples of docs/frameworks.md do what it says, by themselves and in the hands of a worker."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from asktell import client as at
from examples.frameworks.digits import PARAMETERS
from tests.processes import ASKTELL
from tests.trainings import one_thread  # noqa: F401 - a fixture.

ROOT = Path(__file__).parents[2]
FRAMEWORKS = ["plain_pytorch", "with_lightning", "with_keras", "with_transformers"]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_example_stops_what_falls_behind_and_finds_a_good_network(example, framework: str) -> None:
    epochs, best = example(f"frameworks.{framework}")
    trials, stopped, trained, whole = map(int, re.findall(r"\d+", epochs))
    assert (trials, whole) == (9, 81)
    assert 0 < stopped < 9
    assert 9 < trained < 60
    assert float(re.search(r"accuracy (\S+),", best)[1]) > 0.7


@pytest.mark.parametrize(
    ("framework", "file"),
    [
        ("plain_pytorch", "loop.pt"),
        pytest.param("with_lightning", "lightning.ckpt", marks=pytest.mark.slow),
        pytest.param("with_keras", "keras-trial-1-epoch-9.weights.h5", marks=pytest.mark.slow),
        pytest.param("with_transformers", "trainer_state.json", marks=pytest.mark.slow),
    ],
)
def test_a_worker_runs_it_and_the_state_lies_in_the_trials_directory(
    framework: str, file: str, client: at.Client, tmp_path: Path
) -> None:
    study = client.create_study(
        "digits", parameters=PARAMETERS, objectives=[at.Maximize("accuracy")], max_trials=1, policy="random", seed=0
    )
    where = ["--target", client.target, "--project", client.project, "--study", study.id]
    command = [ASKTELL, "work", *where, "--checkpoints", str(tmp_path), f"examples.frameworks.{framework}:train"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stderr[-3000:]
    trial = study.get_trial(1)
    assert trial.state is at.TrialState.SUCCEEDED
    assert [each.step for each in trial.measurements] == list(range(1, 10))
    assert trial.checkpoint_uri.startswith(tmp_path.as_uri())
    assert list(tmp_path.rglob(file))


def test_the_range_test_names_a_range_and_draws_it(example, tmp_path: Path) -> None:
    picture = tmp_path / "range.png"
    found, parameter = example("frameworks.learning_rate_range", str(picture))
    low, high, suggestion = map(float, re.findall(r"[\d.e-]*\d", found))
    assert 1e-4 < low < suggestion < high < 1
    assert parameter.startswith("Float(name='learning_rate'")
    assert picture.read_bytes().startswith(b"\x89PNG")
