"""Runs one peer on problems, in the environment that has its library: `python -m benchmarks.evaluate --help`.

`make bench` starts it once for each peer and problem. It takes nothing but the standard library, NumPy and what peer and problem need.
"""

# ruff: noqa: E402 - the number of threads is set before NumPy starts them.
from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

# One thread each: the peers are compared by what they compute, and cores are shared.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

from benchmarks import records, seeds
from benchmarks.course import recorded
from benchmarks.meter import Meter, OwnMeter, ServerMeter
from benchmarks.peers import PEERS
from benchmarks.problems import problem

MARK = "\x1e"
"""Begins a line about the progress, among whatever a peer's library prints."""


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evaluate",
        description="Run a peer on problems and append each run as a JSON line; runs that are there are skipped.",
        epilog="For example: .peers/optuna-ax/bin/python -m benchmarks.evaluate optuna_gp branin,levy8 --seeds 0-4 --output runs.jsonl",
    )
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("problems", help="names, separated by commas")
    parser.add_argument("--seeds", default="0-4", help="such as 0-4 or 0,2,5 (default: %(default)s)")
    parser.add_argument("--trials", type=int, default=50, help="asks in each run (default: %(default)s)")
    parser.add_argument(
        "--workers", type=int, default=1, help="trials asked and not yet told at a time (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, default=Path("runs.jsonl"), help="default: %(default)s")
    parser.add_argument("--server-pid", type=int, help="the process whose time and memory count, for asktell")
    parser.add_argument("--engine", default="", help="which code answers, for asktell")
    return parser


def main() -> int:
    """Run what is missing."""
    asked = arguments().parse_args()
    meter: Meter = ServerMeter(asked.server_pid) if asked.server_pid else OwnMeter()
    for name in asked.problems.split(","):
        for seed in seeds.parsed(asked.seeds):
            known = records.done(records.read_file(asked.output), trials=asked.trials, engine=asked.engine)
            if (asked.peer, name, seed) not in known:
                run = recorded(
                    asked.peer,
                    problem(name, seed),
                    seed=seed,
                    trials=asked.trials,
                    workers=asked.workers,
                    meter=meter,
                    engine=asked.engine,
                    progress=lambda done, seed=seed: print(f"{MARK}{seed} {done}", flush=True),  # type: ignore[misc]
                )
                records.append(asked.output, run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
