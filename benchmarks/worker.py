"""Measures what a worker adds to its trainings: `make bench-worker`, or `python -m benchmarks.worker --help`.

Overhead: a trial of a command that does nothing (ask, spawn, tell), less what the same command takes when it is merely started and awaited,
which is measured in the same run, before and after. Slots: how much of their time 16 slots have a training under way.
"""

from __future__ import annotations

import itertools
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import cyclopts
import psutil
from cyclopts import Parameter

from asktell.client import Client, Float, Minimize, Study
from benchmarks.server import ASKTELL, ROOT, Broken, end_in_order, served

FILE = ROOT / "benchmarks" / "results" / "worker.md"
NOTHING = ("sh", "-c", """echo '{"loss": 1}'""")
BAR_MS = 50.0
BAR_BUSY = 0.95
SLOTS = 16
SECONDS = 2.0
PATIENCE = 600.0

app = cyclopts.App(name="python -m benchmarks.worker", help_format="plaintext", version_flags=[])


@dataclass(frozen=True, slots=True)
class Line:
    """One figure, and its bar."""

    what: str
    figure: str
    bar: str
    met: bool
    made_of: str

    def __str__(self) -> str:
        return f"| {self.what} | {self.figure} | {self.bar} | {'met' if self.met else 'NOT met'} | {self.made_of} |"


@app.default
def main(*, trials: int = 100, rounds: int = 4, record: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Measure a worker's overhead per trial, and how busy it keeps 16 slots.

    Parameters
    ----------
    trials
        Trials of the command that does nothing.
    rounds
        Trials of two seconds that each of the slots has.
    record
        Write the table to benchmarks/results/worker.md.
    """
    end_in_order()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="asktell-bench-") as folder:
        try:
            lines = list(_measured(Path(folder), trials=trials, rounds=rounds))
        except Broken as error:
            print(f"benchmarks.worker: {error}", file=sys.stderr)
            return 1
    table = "\n".join(["| what | figure | bar | | made of |", "|---|---|---|---|---|", *map(str, lines)])
    print(table)
    if record:
        FILE.write_text(_preamble(load) + table + "\n", encoding="utf-8")
    return 0


def _measured(folder: Path, *, trials: int, rounds: int) -> Iterator[Line]:
    with served(folder) as server, Client(server.target) as client:
        yield _overhead(client, folder, trials=trials)
        yield _busy(client, folder, rounds=rounds)


def _study(client: Client, name: str, *, trials: int) -> Study:
    return client.create_study(
        name, parameters=[Float("x", 0, 1)], objectives=[Minimize("loss")], policy="random", max_trials=trials
    )


def _work(study: Study, client: Client, folder: Path, *, options: Sequence[str], command: Sequence[str]) -> float:
    """Run a worker to its end; return the processor seconds that it and its processes took."""
    before = os.times()
    place = ["--study", study.id, "--target", client.target, "--logs", str(folder / "logs"), "--quiet"]
    done = subprocess.run(
        [ASKTELL, "work", *place, *options, "--", *command],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode:
        raise Broken(f"the worker ended with {done.returncode}: {done.stderr[-2000:]}")
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def _overhead(client: Client, folder: Path, *, trials: int) -> Line:
    # The first trial's start and the last one's end are the service's; what the worker takes to start is not a trial's.
    study = _study(client, "overhead", trials=trials)
    escaped = [part.replace("{", "{{").replace("}", "}}") for part in NOTHING]
    starts = _starts(trials // 2)
    processor = _work(study, client, folder, options=(), command=escaped)
    starts += _starts(trials // 2)
    records = [trial.record for trial in study.list_trials()]
    begins = sorted(_at(record.start_time) for record in records)
    turns = [later - earlier for earlier, later in itertools.pairwise(begins)]
    turn, start = statistics.median(turns) * 1e3, statistics.median(starts) * 1e3
    made_of = {
        "ms from ask to ask": turn,
        "p95": statistics.quantiles(turns, n=20)[-1] * 1e3,
        "ms of the process alone": start,
        "ms of processor a trial, the worker's own start included": processor / trials * 1e3,
        "trials": float(len(records)),
    }
    return Line(
        "overhead of a trial, beyond the start of its process",
        f"median {turn - start:.1f} ms",
        f"≤ {BAR_MS:g} ms",
        turn - start <= BAR_MS,
        _made_of(made_of),
    )


def _starts(count: int) -> list[float]:
    found = []
    for _ in range(count):
        begin = time.perf_counter()
        subprocess.run(NOTHING, stdout=subprocess.DEVNULL, check=True)
        found.append(time.perf_counter() - begin)
    return found


def _busy(client: Client, folder: Path, *, rounds: int) -> Line:
    study = _study(client, "busy", trials=SLOTS * rounds)
    command = ["sh", "-c", f"""sleep {SECONDS:g}; echo '{{{{"loss": 1}}}}'"""]
    options = ("--slots", str(SLOTS), "--gpus", "none")
    _work(study, client, folder, options=options, command=command)
    by_slot: dict[str, list[tuple[float, float]]] = {}
    for trial in study.list_trials():
        by_slot.setdefault(trial.worker_id, []).append((_at(trial.start_time), _at(trial.end_time)))
    # A slot's time begins with its first trial; what its trainings themselves sleep is the time that it is busy.
    spans = [max(end for _, end in spells) - min(start for start, _ in spells) for spells in by_slot.values()]
    fraction = SECONDS * SLOTS * rounds / sum(spans)
    whole = max(end for spells in by_slot.values() for _, end in spells)
    first = min(start for spells in by_slot.values() for start, _ in spells)
    made_of = {
        "slots that had trials": float(len(by_slot)),
        "seconds in all": whole - first,
        "seconds of sleep a slot": SECONDS * rounds,
    }
    return Line(
        f"time that {SLOTS} slots have a training under way, which sleeps {SECONDS:g} s",
        f"{fraction:.1%}",
        f"≥ {BAR_BUSY:.0%}",
        fraction >= BAR_BUSY and len(by_slot) == SLOTS,
        _made_of(made_of),
    )


def _at(moment: datetime | None) -> float:
    return 0.0 if moment is None else moment.timestamp()


def _made_of(parts: dict[str, float]) -> str:
    return "; ".join(f"{name} {value:,.4g}" for name, value in parts.items())


def _preamble(load: float) -> str:
    machine = (
        f"{platform.machine()} with {psutil.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    )
    return (
        "# What a worker adds to its trainings\n\n"
        f"By `make bench-worker` on {machine}. Load of the machine before: {load:.1f}. The server and the worker share it.\n\n"
    )


if __name__ == "__main__":
    sys.exit(app(result_action="return_value"))
