"""Trainings of so many epochs that save their state after each and write down what they do, and the workers that run them."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from asktell.client import Client, Float, Minimize, Study
from tests.processes import ASKTELL, Process, Processes, Server, until

SOURCE = """
import json, os, pathlib, sys, time

def work(epoch):
    end = time.monotonic() + (1.0 if epoch >= SLOW_FROM else PAUSE)
    while time.monotonic() < end and not os.path.exists("hurry"):
        time.sleep(0.02)

def train(x, number, place):
    state = place / "state.json"
    first = json.loads(state.read_text())["epoch"] if state.exists() else 0
    for epoch in range(first, EPOCHS):
        with open("epochs.log", "a") as log:
            print(number, epoch, os.getpid(), file=log)
        work(epoch)
        partial = place / "state.json.partial"
        partial.write_text(json.dumps({"epoch": epoch + 1}))
        partial.replace(state)
    return {"loss": x * x, "first": first}

def objective(parameters, trial):
    return train(parameters["x"], trial.number, trial.checkpoint_dir)

if __name__ == "__main__":
    place = pathlib.Path(os.environ["ASKTELL_CHECKPOINT_DIR"])
    print(json.dumps(train(float(sys.argv[1]), int(os.environ["ASKTELL_TRIAL"]), place)))
"""
COMMAND = ("--", "python3", "training.py", "{x}")
FUNCTION = ("training:objective",)


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch that some process began."""

    trial: int
    epoch: int
    pid: int


@dataclass(slots=True)
class Field:
    """A study on a server, a directory to train in, and workers, whose every descendant can be found."""

    server: Server
    processes: Processes
    directory: Path
    client: Client
    epochs: int = 60
    pause: float = 0.05
    slow_from: int = 1_000_000
    """From this epoch on each takes a second, so that none ends by itself before the test has done to it what it has to."""
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        constants = f"EPOCHS, PAUSE, SLOW_FROM = {self.epochs}, {self.pause}, {self.slow_from}\n"
        (self.directory / "training.py").write_text(constants + SOURCE)

    def hurry(self) -> None:
        """Let all trainings come to their ends at once."""
        (self.directory / "hurry").touch()

    def study(self, *, trials: int = 1, lease: float = 2.5) -> Study:
        """A study of so many trials."""
        return self.client.create_study(
            f"study-{self.mark}",
            parameters=[Float("x", -1, 1)],
            objectives=[Minimize("loss")],
            policy="random",
            seed=0,
            max_trials=trials,
            lease_duration=lease,
            max_attempts=100,
        )

    def work(
        self, study: Study, objective: Sequence[str], *options: str, target: str = "", root: str = "checkpoints"
    ) -> Process:
        """A worker, in the directory."""
        command = [ASKTELL, "work", "--study", study.id, "--target", target or self.server.target, "--grace", "1"]
        return self.processes.start(
            [*command, "--checkpoints", root, *options, *objective],
            cwd=self.directory,
            environment={"ASKTELL_TEST_MARK": self.mark},
        )

    def log(self) -> list[Epoch]:
        """What was trained, in the order in which it began."""
        path = self.directory / "epochs.log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [Epoch(*map(int, line.split())) for line in lines]

    def training(self, epoch: int) -> int:
        """The process that trains, once it has come to an epoch."""
        return until(lambda: next((each.pid for each in reversed(self.log()) if each.epoch >= epoch), 0))

    def alive(self) -> list[psutil.Process]:
        """All processes that descend from the workers, whatever became of these."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.status() != psutil.STATUS_ZOMBIE and process.environ().get("ASKTELL_TEST_MARK") == self.mark
        except psutil.Error:
            return False


def kill(pid: int) -> None:
    """SIGKILL."""
    os.kill(pid, signal.SIGKILL)
