"""Asks that find a candidate which was prepared since the last tell."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.serving.clients import quantile
from benchmarks.serving.databases import KINDS, Databases
from benchmarks.serving.histories import filled
from benchmarks.serving.line import Line, Say, figures
from tests.wire import Wire

OBSERVATIONS, PARAMETERS = 50, 6
ROUNDS = 25
TRAINING = 2.0
"""Seconds from a tell to the next ask, as of a worker that has other things to do: enough to prepare a candidate."""
BAR_MS = 10.0


def measure(say: Say, databases: Databases, environments: Path) -> Iterator[Line]:  # noqa: ARG001
    """A line for each database."""
    for kind in KINDS:
        with databases.served(kind) as server, Wire(server.target) as wire:
            say(f"{kind}: {ROUNDS} asks, each {TRAINING:g} s after a tell")
            study = filled(wire, OBSERVATIONS, policy="auto", parameters=PARAMETERS)
            wire.tell(wire.one(study), 0.5)
            waited = sorted(_ask(wire, study) for _ in range(ROUNDS))
        median = 1e3 * quantile(waited, 0.5)
        yield Line(
            f"ask that finds a prepared candidate, {kind}",
            f"median {median:.1f} ms",
            f"≤ {BAR_MS:g} ms",
            met=median <= BAR_MS,
            details=figures(
                {
                    "p95 ms": 1e3 * quantile(waited, 0.95),
                    f"asks within {BAR_MS:g} ms": sum(seconds <= BAR_MS / 1e3 for seconds in waited),
                    "asks": len(waited),
                }
            ),
        )


def _ask(wire: Wire, study: str) -> float:
    """Seconds of an ask some time after a tell, and the tell that the next one needs."""
    time.sleep(TRAINING)
    began = time.perf_counter()
    trial = wire.one(study)
    taken = time.perf_counter() - began
    wire.tell(trial, 0.5)
    return taken
