"""Processes that train one trial together: rank zero alone has the trial, all stop after the same epoch, and all go on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from asktell import client as at
from asktell.integrations.ranks import share
from tests.ports import free_port
from tests.processes import ASKTELL
from tests.trainings import state, steps, study_that_stops_above

SCRIPT = Path(__file__).with_name("ranks_training.py")
ROOT = SCRIPT.parents[2]


def two_processes(framework: str, place: Path, *, crash: int = 0) -> list[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1"]
    return [*command, f"--master-port={free_port()}", str(SCRIPT), framework, str(place), str(crash)]


def run(*command: str, status: int = 0) -> None:
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stderr[-3000:]


def said(place: Path) -> list[dict]:
    """What each process said at its end; the loss is bad from epoch 5 on."""
    return [json.loads(path.read_text()) for path in sorted(place.glob("rank-*.json"))]


def test_alone_a_process_has_its_own_trial_and_nobody_elses(client: at.Client) -> None:
    trial = study_that_stops_above(client, 10).ask()[0]
    assert share(trial) is trial
    with pytest.raises(at.FailedPrecondition, match="rank zero has no trial"):
        share(None)


@pytest.mark.parametrize(
    "framework",
    [
        "pytorch",
        pytest.param("lightning", marks=pytest.mark.slow),
        pytest.param("transformers", marks=pytest.mark.slow),
    ],
)
def test_ranks_stop_together_and_go_on_together(framework: str, client: at.Client, tmp_path: Path) -> None:
    study = study_that_stops_above(client, 10)
    run(*two_processes(framework, tmp_path, crash=3), client.target, client.project, status=1)
    run(*two_processes(framework, tmp_path), client.target, client.project)
    trial, heard = study.get_trial(2), said(tmp_path)
    assert [each["epochs"] for each in heard] == [[3, 4, 5]] * 2
    assert heard[0]["weights"] == heard[1]["weights"]
    assert heard[0]["parameters"] == heard[1]["parameters"] == trial.parameters
    assert steps(study, trial) == [1, 2, 3, 4, 5]
    assert (state(study, trial), trial.attempt) == (at.TrialState.STOPPED, 2)


def test_ranks_under_a_worker_save_into_the_trials_directory(client: at.Client, tmp_path: Path) -> None:
    study = study_that_stops_above(client, 10)
    root, place = tmp_path / "checkpoints", tmp_path / "said"
    place.mkdir()
    where = ["--target", client.target, "--project", client.project, "--study", study.id, "--max-trials", "1"]
    run(ASKTELL, "work", *where, "--checkpoints", str(root), "--", *two_processes("pytorch", place))
    trial = study.get_trial(2)
    assert [each["epochs"] for each in said(place)] == [[1, 2, 3, 4, 5]] * 2
    assert (state(study, trial), steps(study, trial)) == (at.TrialState.STOPPED, [1, 2, 3, 4, 5])
    assert [path.as_uri() for path in root.rglob("loop.pt")] == [trial.checkpoint_uri + "/loop.pt"]


def weights_of_an_undisturbed_training(epochs: int) -> float:
    """What one process that has the whole model comes to, with the batches of both."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    inputs = torch.randn(32, 4, generator=torch.Generator().manual_seed(1))
    for _ in range(epochs):
        for pair in zip(inputs[0::2].split(8), inputs[1::2].split(8), strict=True):
            optimizer.zero_grad()
            model(torch.cat(pair)).square().mean().backward()
            optimizer.step()
    return float(sum(parameter.detach().double().sum() for parameter in model.parameters()))


@pytest.mark.slow
def test_a_sharded_model_that_is_killed_while_it_is_saved_goes_on_to_the_same_weights_and_stops_as_one(
    client: at.Client, tmp_path: Path
) -> None:
    study = study_that_stops_above(client, 10)
    root, place = tmp_path / "checkpoints", tmp_path / "said"
    place.mkdir()
    where = ["--target", client.target, "--project", client.project, "--study", study.id, "--max-trials", "2"]
    where += ["--retry", "failed"]
    run(ASKTELL, "work", *where, "--checkpoints", str(root), "--", *two_processes("fsdp", place))
    trial, heard = study.get_trial(2), said(place)
    assert (state(study, trial), trial.attempt) == (at.TrialState.STOPPED, 2)
    # The shards of epoch 3 were there, but not yet what names them.
    assert [each["epochs"] for each in heard] == [[3, 4, 5]] * 2
    assert steps(study, trial) == [1, 2, 3, 4, 5]
    assert heard[0]["weights"] == heard[1]["weights"] == pytest.approx(weights_of_an_undisturbed_training(5), abs=1e-5)
    assert sorted(path.name for path in root.rglob("attempt-2/*")) == ["loop.pt", "shards-5"]
