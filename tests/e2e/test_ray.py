"""`asktell work --on ray` on a real Ray cluster of two machines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from asktell.client import Client, Study, TrialState
from tests import ray_cluster
from tests.e2e.clusters import HELD, assert_complete, create, held
from tests.processes import ASKTELL, Process, Processes, Server, until

LEASE = "4"
OBJECTIVE = """
import os, pathlib, threading, time


def held(parameters, trial):
    if trial.number == {held} and trial.attempt == 1:
        pathlib.Path("new").write_text(str(os.getpid()))
        os.replace("new", "held")
        threading.Event().wait()
    time.sleep(0.1)
    return parameters["x"]
"""

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, str]]:
    """The process that has started the cluster, and the cluster's address."""
    with Processes(tmp_path_factory.mktemp("cluster")) as processes:
        process, address = ray_cluster.start(processes)
        yield process, address
        assert process.popen.stdin is not None
        process.popen.stdin.close()
        process.wait()


@pytest.fixture
def study(server: Server, request: pytest.FixtureRequest) -> Iterator[Study]:
    with Client(server.target) as client:
        yield create(client, request.node.name)


@pytest.fixture
def lead(
    server: Server, cluster: tuple[Process, str], study: Study, processes: Processes, tmp_path: Path
) -> Iterator[object]:
    """Starts `asktell work --on ray` on the study."""
    (tmp_path / "objective.py").write_text(OBJECTIVE.format(held=HELD))

    def start(*arguments: str) -> Process:
        options = ["--study", study.id, "--target", server.target, "--lease-duration", LEASE]
        command = [ASKTELL, "work", "--on", "ray", "--address", cluster[1], *options, *arguments]
        return processes.start(command, environment=ray_cluster.ENVIRONMENT, cwd=tmp_path)

    return start


def raylet(process: psutil.Process) -> int:
    """The process id of the raylet that a process descends from."""
    return next(parent.pid for parent in process.parents() if parent.name() == "raylet")


@pytest.mark.slow
def test_an_objective_that_the_workers_cannot_import_is_said_once(lead) -> None:
    process = lead("--workers", "2", "missing:objective")
    assert process.wait() == 1
    said = [line for line in process.errors().splitlines() if line.startswith("asktell work: a worker failed: ")]
    assert len(said) == 1, process.errors()
    assert "the objective missing:objective cannot be used" in process.errors()


@pytest.mark.slow
def test_a_lead_that_is_told_to_end_has_the_trials_given_back(lead, study: Study, tmp_path: Path) -> None:
    process = lead("--workers", "3", "objective:held")
    training = held(tmp_path, process, said=process.errors)
    process.terminate()
    assert process.wait() == 0, process.errors()
    assert not training.is_running()
    trial = study.get_trial(HELD)
    assert trial.state is TrialState.QUEUED
    assert [trial for trial in study.list_trials() if trial.state is TrialState.ACTIVE] == []


@pytest.mark.slow
def test_a_killed_leads_workers_give_their_trials_back(lead, study: Study, tmp_path: Path) -> None:
    process = lead("--workers", "1", "objective:held")
    training = held(tmp_path, process, said=process.errors)
    process.kill()
    until(lambda: study.get_trial(HELD).state is TrialState.QUEUED)
    until(lambda: not training.is_running())


def test_a_lost_machines_trial_is_offered_once_more_and_the_study_reaches_its_budget(
    lead, cluster: tuple[Process, str], study: Study, tmp_path: Path
) -> None:
    process = lead("--workers", "2", "objective:held")
    training = held(tmp_path, process, said=process.errors)
    cluster[0].say(f"kill {raylet(training)}")
    assert cluster[0].line() == "killed"
    assert process.wait() == 0, process.errors()
    assert_complete(study)
    assert {trial.number: trial.attempt for trial in study.list_trials() if trial.attempt > 1} == {HELD: 2}
    assert " was lost, another starts" in process.errors()
    until(lambda: not training.is_running())
