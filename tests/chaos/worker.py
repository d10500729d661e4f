"""Workers that use the SDK as anybody does, with what they saw written to a file.

`python -m tests.chaos.worker` with the fields of `Crew` as JSON: so many workers, one a thread, that share one client and work until the
study is closed. The process ends with status 0 if all of them came to their end.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from asktell.client import Trial
from asktell.client.errors import FailedPrecondition
from tests.chaos.history import RecordedClient, RecordedConnection, Recorder

PROJECT = "p"
LOST = {"LEASE_LOST", "TRIAL_ENDED"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """Some workers in one process. `effort` is the mean time that a trial takes, `timeout` that of an attempt of a call, in seconds.

    A share `failing` of the attempts breaks, and another worker shall try; a share `again` of the calls is made twice.
    """

    name: str
    target: str
    study: str
    workers: int
    history: str
    seed: int
    effort: float
    timeout: float
    patience: float
    failing: float
    again: float

    def command(self) -> list[str]:
        """What starts it."""
        return [sys.executable, "-m", "tests.chaos.worker", json.dumps(asdict(self))]

    def work(self) -> None:
        """Work until the study is closed; raises what any worker raised."""
        connection = RecordedConnection(
            self.target,
            recorder=Recorder(Path(self.history)),
            timeout=self.timeout,
            retry_for=self.patience,
            again=self.again,
        )
        client = RecordedClient(self.target, project=PROJECT, connection=connection)
        with client, ThreadPoolExecutor(self.workers) as pool:
            for future in [pool.submit(self._worker, client, index) for index in range(self.workers)]:
                future.result()

    def _worker(self, client: RecordedClient, index: int) -> None:
        worker = f"{self.name}-{index}"
        threading.current_thread().name = worker
        chance = random.Random(f"{self.seed}-{worker}")
        for trial in client.get_study(self.study).trials(worker_id=worker):
            time.sleep(chance.expovariate(1 / self.effort))
            try:
                self._end(trial, broken=chance.random() < self.failing, mark=index)
            except FailedPrecondition as refusal:
                if refusal.reason not in LOST:
                    raise

    def _end(self, trial: Trial, *, broken: bool, mark: int) -> None:
        """Tell a value that no other attempt of any worker tells."""
        if broken:
            trial.fail("it broke", retry=True)
        else:
            trial.tell(loss=trial.number + trial.record.attempt / 1_000 + mark / 1_000_000)


if __name__ == "__main__":
    Crew(**json.loads(sys.argv[1])).work()
