"""Simulated optimisations in processes of their own, and what came of them in a file, so that a benchmark goes on where it was broken off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from benchmarks.server import ROOT

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
OPTUNA = ROOT / ".peers" / "optuna-ax" / "bin" / "python"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A program of `benchmarks` that prints what came of one optimisation, with what tells it from others."""

    program: str
    arguments: tuple[str | int, ...]
    python: Path = Path(sys.executable)

    def run(self, recorded: Recorded) -> Mapping[str, Any]:
        """What came of it, as it is recorded or from a process of the peer's environment."""
        found = recorded.found(self)
        if found is None:
            found = self._computed()
            recorded.keep(self, found)
        return found

    def _computed(self) -> Mapping[str, Any]:
        command = [str(self.python), "-m", f"benchmarks.{self.program}", *map(str, self.arguments)]
        environment = {**os.environ, **dict.fromkeys(THREADS, "1")}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{self.program} {self.arguments}: {done.stderr.strip()[-2000:]}")
        found: Mapping[str, Any] = json.loads(done.stdout)
        return found


class Recorded:
    """What came of jobs, in a file of JSON lines; without a file nothing is kept."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._lock = path, Lock()
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        self._found = {tuple(line["job"]): line["run"] for line in map(json.loads, lines)}

    def found(self, job: Job) -> Mapping[str, Any] | None:
        """What came of a job; None if it was not recorded."""
        return self._found.get(job.arguments)

    def keep(self, job: Job, run: Mapping[str, Any]) -> None:
        """Add a line at once, so that a benchmark that is broken off goes on where it was."""
        if self._path is None:
            return
        with self._lock, self._path.open("a") as file:
            file.write(json.dumps({"job": job.arguments, "run": run}, separators=(",", ":")) + "\n")
