"""Eight workers of one study at the same time, through the real service: each has a configuration of its own, and its own metric."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from asktell import client as at
from tests.processes import Processes

WORKERS = 8
TRIALS = 40
PARAMETERS = [
    at.Float("x", 0.0, 1.0),
    at.Float("rate", 1e-4, 1.0, log=True),
    at.Int("i", 1, 9),
    at.Categorical("kind", ["a", "b"]),
    at.Float("momentum", 0.0, 1.0, when=("kind", ["a"])),
]


def objective(p) -> float:
    assert ("momentum" in p) == (p["kind"] == "a")
    return (p["x"] - 0.3) ** 2 + p["rate"] + abs(p["i"] - 6) / 9 + p.get("momentum", 0.5)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[at.Client]:
    with Processes(tmp_path) as processes, at.Client(processes.serve(str(tmp_path / "asktell.db")).target) as client:
        yield client


def work(study: at.Study, worker: int, start: threading.Barrier) -> list[int]:
    """Evaluate trials for durations of a worker's own, until there are no more; which ones it evaluated."""
    durations, numbers = random.Random(worker), []
    start.wait()
    for trial in study.trials(worker_id=f"w{worker}"):
        time.sleep(durations.expovariate(50.0))
        trial.tell(objective(trial.parameters))
        numbers.append(trial.number)
    return numbers


def test_eight_workers_share_a_study_and_no_configuration(client):
    study = client.create_study(
        "s", parameters=PARAMETERS, objectives=[at.Minimize("y")], policy="gp", seed=1, max_trials=TRIALS
    )
    start = threading.Barrier(WORKERS)
    with ThreadPoolExecutor(WORKERS) as pool:
        done = list(pool.map(lambda worker: work(study, worker, start), range(WORKERS)))
    assert sorted(number for numbers in done for number in numbers) == list(range(1, TRIALS + 1))
    trials = study.list_trials()
    assert len({tuple(sorted(trial.parameters.items())) for trial in trials}) == TRIALS
    for trial in trials:
        assert trial.state is at.TrialState.SUCCEEDED
        assert trial.metrics["y"].value == objective(trial.parameters)
    modelled = [trial for trial in trials if trial.origin.predictions]
    assert len(modelled) >= TRIALS - 10 - WORKERS
