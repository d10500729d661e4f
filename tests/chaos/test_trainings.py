"""Trainings and workers that are killed at random while a study runs: each trial comes to its end once, and little is trained twice."""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from asktell.client import Client, TrialState
from tests.chaos.seed import SEED
from tests.e2e.trainings import COMMAND, Field, kill
from tests.processes import PATIENCE, Process, Processes, gone

WORKERS = 4
TRIALS = 20
EPOCHS = 40
AFTER_A_FAULT = 5
"""Epochs that a fault may cost: the one under way, and those before the service knew where the state lies."""


class Trouble:
    """Ends trainings and workers, and starts new workers in their place."""

    def __init__(self, field: Field, start) -> None:
        self.field, self.start = field, start
        self.random = random.Random(SEED)
        self.workers: list[Process] = [start() for _ in range(WORKERS)]
        self.faults: Counter[str] = Counter()

    def strike(self) -> None:
        fault = self.random.choice([self.kill_training, self.kill_worker, self.end_worker])
        if fault():
            self.faults[fault.__name__] += 1

    def kill_training(self) -> bool:
        alive = [pid for pid in {each.pid for each in self.field.log()} if not gone(pid)]
        if not alive:
            return False
        with contextlib.suppress(ProcessLookupError, psutil.Error):
            kill(self.random.choice(sorted(alive)))
        return True

    def kill_worker(self) -> bool:
        return self._replace(Process.kill)

    def end_worker(self) -> bool:
        return self._replace(Process.terminate)

    def _replace(self, end) -> bool:
        place = self.random.randrange(WORKERS)
        if self.workers[place].popen.poll() is not None:
            return False
        end(self.workers[place])
        self.workers[place] = self.start()
        return True


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_trials_come_to_their_end_once_though_trainings_and_workers_are_killed(
    processes: Processes, tmp_path: Path
) -> None:
    server = processes.serve(str(tmp_path / "asktell.db"))
    with Client(server.target) as client:
        field = Field(server, processes, tmp_path, client, epochs=EPOCHS, pause=0.1)
        study = field.study(trials=TRIALS, lease=3)
        trouble = Trouble(field, lambda: field.work(study, COMMAND))
        deadline = time.monotonic() + 5 * PATIENCE
        while study.counts.succeeded < TRIALS:
            assert time.monotonic() < deadline, f"{study.counts} after {trouble.faults}"
            time.sleep(trouble.random.uniform(1, 3))
            trouble.strike()
            study.refresh()
        # Those that find nothing more to do end by themselves.
        assert [worker.wait() for worker in trouble.workers] == [0] * WORKERS
        trials = list(study.list_trials())
        log = field.log()
        once = {(each.trial, each.epoch) for each in log}
        print(
            f"{dict(trouble.faults)}; attempts {sum(trial.attempt for trial in trials)}; epochs {len(log)} for {len(once)}"
        )
        assert [trial.state for trial in trials] == [TrialState.SUCCEEDED] * TRIALS
        assert once == {(trial.number, epoch) for trial in trials for epoch in range(EPOCHS)}
        assert len(log) - len(once) <= AFTER_A_FAULT * trouble.faults.total()
        assert all(trial.checkpoint_uri.endswith(f"attempt-{trial.attempt}") for trial in trials)
        assert field.alive() == []
