"""`asktell work --on slurm` on a real Slurm. `make test-slurm` runs it, as root: it installs Debian's packages."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from asktell.client import Client, Study, TrialState
from tests.e2e.clusters import HELD, assert_complete, create, held
from tests.processes import ASKTELL, Process, Processes, Server, until
from tests.slurm import Slurm

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]

OBJECTIVE = """
import json, os, pathlib, threading, time


def train(parameters, trial):
    state = trial.checkpoint_dir / "state.json"
    epoch = json.loads(state.read_text())["epoch"] if state.exists() else 0
    with open("epochs", "a") as file:
        file.write(f"{{trial.number}} {{trial.attempt}} {{epoch}} {{os.getpid()}} {{os.environ.get('CUDA_VISIBLE_DEVICES', 'none')}}\\n")
    while epoch < 5:
        if trial.number == {held} and epoch == 2 and not pathlib.Path("go").exists():
            pathlib.Path("held").write_text(str(os.getpid()))
            while not pathlib.Path("go").exists():
                time.sleep(0.05)
        epoch += 1
        (trial.checkpoint_dir / "new").write_text(json.dumps({{"epoch": epoch}}))
        os.replace(trial.checkpoint_dir / "new", state)
        trial.report(loss=parameters["x"] / epoch, step=epoch)
    return parameters["x"]
"""
"""The held trial hangs after two epochs of five."""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with Processes(tmp_path_factory.mktemp("daemons")) as processes:
        found = Slurm(tmp_path_factory.mktemp("slurm"), processes)
        found.start()
        yield found
        found.stop()


@pytest.fixture
def study(server: Server, request: pytest.FixtureRequest) -> Iterator[Study]:
    with Client(server.target) as client:
        yield create(client, request.node.name)


@pytest.fixture
def lead(server: Server, slurm: Slurm, study: Study, processes: Processes, tmp_path: Path) -> Callable[..., Process]:
    """Starts `asktell work --on slurm` on the study."""
    (tmp_path / "objective.py").write_text(OBJECTIVE.format(held=HELD))

    def start(*arguments: str) -> Process:
        options = ["--study", study.id, "--target", server.target, "--checkpoints", str(tmp_path / "checkpoints")]
        command = [ASKTELL, "work", "--on", "slurm", *options, *arguments, "objective:train"]
        return processes.start(command, environment=slurm.environment, cwd=tmp_path)

    return start


def training_of(lead: Process, directory: Path) -> psutil.Process:
    """The process of the held attempt, once it has come to its second epoch."""

    def said() -> str:
        return lead.errors() + "".join(log.read_text() for log in directory.glob("asktell-*.log"))

    return held(directory, lead, said=said)


def task_of(training: psutil.Process) -> str:
    """The task of the array; its own job's number may be that of the whole array."""
    environment = training.environ()
    return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"


def job_of(lead: Process) -> str:
    (job,) = re.findall(r"job (\d+), an array", lead.errors())
    return job


def assert_resumed_once(study: Study, directory: Path) -> None:
    """The study has reached its budget; the held trial alone was handed out twice, and went on from its second epoch."""
    assert_complete(study)
    begun = [line.split() for line in (directory / "epochs").read_text().splitlines()]
    again = [(int(number), int(epoch)) for number, _, epoch, *_ in begun if int(epoch) > 0]
    assert again == [(HELD, 2)]
    assert len(begun) == 21


def test_a_requeued_workers_trial_is_resumed_once_and_the_study_reaches_its_budget(
    lead: Callable[..., Process], slurm: Slurm, study: Study, tmp_path: Path
) -> None:
    process = lead("--workers", "2", "--gpus-per-trial", "1")
    training = training_of(process, tmp_path)
    slurm.run("scontrol", "requeue", task_of(training))
    until(lambda: not training.is_running())
    (tmp_path / "go").touch()
    assert process.wait() == 0, process.errors()
    assert_resumed_once(study, tmp_path)
    seen = {line.split()[-1] for line in (tmp_path / "epochs").read_text().splitlines()}
    assert seen <= {"0", "1"}


def test_a_worker_that_comes_to_its_time_limit_gives_its_trial_back_and_queues_again(
    lead: Callable[..., Process], slurm: Slurm, study: Study, tmp_path: Path
) -> None:
    process = lead("--workers", "1", "--time", "2")
    training = training_of(process, tmp_path)
    # Slurm signals 90 s before the limit of two minutes, or a little earlier.
    until(lambda: not training.is_running())
    until(lambda: study.get_trial(HELD).state is TrialState.QUEUED)
    (tmp_path / "go").touch()
    # Slurm lets two minutes pass before it starts a requeued job: credentials are revoked by whole seconds. A few are enough here.
    until(lambda: set(slurm.tasks(job_of(process)).values()) == {"PENDING"})
    time.sleep(3)
    slurm.run("scontrol", "update", f"JobId={job_of(process)}", "StartTime=now")
    assert process.wait() == 0, process.errors()
    assert_resumed_once(study, tmp_path)


def test_a_lead_that_is_told_to_end_cancels_the_array_and_has_the_trials_given_back(
    lead: Callable[..., Process], slurm: Slurm, study: Study, tmp_path: Path
) -> None:
    process = lead("--workers", "6")
    training = training_of(process, tmp_path)
    process.terminate()
    assert process.wait() == 0, process.errors()
    assert not training.is_running()
    assert study.get_trial(HELD).state is TrialState.QUEUED
    until(lambda: set(slurm.tasks(job_of(process)).values()) == {"CANCELLED"})
