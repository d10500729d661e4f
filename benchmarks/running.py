"""Runs what is missing of a suite: each peer in a process of its own, in its own environment."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import records
from benchmarks.evaluate import MARK
from benchmarks.peers import ASKTELL, PEERS
from benchmarks.progress import Progress
from benchmarks.server import ROOT, Server, engine_version
from benchmarks.suites import Suite

LOG_LINES = 8
"""So much of a failed process's log is shown."""


@dataclass(frozen=True, slots=True)
class Job:
    """Runs of one peer on one problem, which one process does."""

    suite: Suite
    peer: str
    problem: str
    seeds: tuple[int, ...]
    trials: int

    def __str__(self) -> str:
        workers = f", {self.suite.workers} workers" if self.suite.workers > 1 else ""
        return f"{self.peer} on {self.problem}{workers}"


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are: recorded runs, new runs, the peers' environments."""

    recorded: Path
    fresh: Path
    environments: Path

    def python(self, peer: str) -> Path | None:
        """The interpreter that has the peer's library; None if its environment was not made."""
        name = PEERS[peer].environment
        path = self.environments / name / "bin" / "python" if name else Path(sys.executable)
        return path if path.exists() else None

    def runs(self, suite: Suite) -> list[records.Run]:
        """All runs of a suite; of a cell that was run again, the new run."""
        return records.read(self.recorded / suite.name, self.fresh / suite.name)


def missing(suite: Suite, places: Places, *, peers: Iterable[str], seeds: Sequence[int], trials: int) -> Iterator[Job]:
    """What is still to do, of the peers that can run here."""
    engine = engine_version()
    known = records.done(places.runs(suite), trials=trials, engine=engine)
    for peer in peers:
        for problem in suite.problems:
            left = tuple(seed for seed in seeds if (peer, problem, seed) not in known)
            if left and places.python(peer):
                yield Job(suite, peer, problem, left, trials)


def run(jobs: Sequence[Job], places: Places, server: Server | None, progress: Progress) -> list[str]:
    """Run the jobs one after another. What failed, each with the end of its log: one peer's failure does not stop the others."""
    failures = []
    for job in jobs:
        progress.begin(str(job), runs=len(job.seeds), trials=job.trials)
        failure = _run(job, places, server, progress)
        if failure:
            failures.append(f"{job} failed:\n{failure}")
        if _output(job, places).exists():
            records.compact(_output(job, places))
    return failures


def _run(job: Job, places: Places, server: Server | None, progress: Progress) -> str:
    """The end of the process's log if it failed."""
    with tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(
            list(_command(job, places, server)),
            cwd=ROOT,
            env=_environment(server if job.peer == ASKTELL else None),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            errors="replace",
        )
        with process:
            try:
                _follow(process, job, progress)
            except BaseException:
                process.kill()
                raise
        errors.seek(0)
        return "".join(errors.readlines()[-LOG_LINES:]) if process.returncode else ""


def _follow(process: subprocess.Popen[str], job: Job, progress: Progress) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(MARK):
            seed, done = line[1:].split()
            progress.advance(int(seed), int(done), last=int(done) == job.trials)


def _command(job: Job, places: Places, server: Server | None) -> Iterator[str]:
    yield from (str(places.python(job.peer)), "-m", "benchmarks.evaluate", job.peer, job.problem)
    yield from ("--seeds", ",".join(map(str, job.seeds)), "--trials", str(job.trials))
    yield from ("--workers", str(job.suite.workers), "--output", str(_output(job, places)))
    if job.peer == ASKTELL and server:
        yield from ("--server-pid", str(server.pid), "--engine", engine_version())


def _output(job: Job, places: Places) -> Path:
    return places.fresh / job.suite.name / f"{job.peer}.jsonl"


def _environment(server: Server | None) -> dict[str, str]:
    ours = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    return os.environ | ours | ({"ASKTELL_TARGET": server.target} if server else {})
