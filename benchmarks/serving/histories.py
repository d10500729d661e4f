"""Asks and tells in a study of 100,000 trials beside those in one of 1,000, in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from asktell.v1 import metric_pb2 as metric
from asktell.v1 import search_space_pb2 as space
from asktell.v1 import study_service_pb2 as studies
from asktell.v1 import trial_service_pb2 as pb
from benchmarks.serving.clients import quantile
from benchmarks.serving.databases import KINDS, Databases
from benchmarks.serving.line import Line, Say, figures
from tests.wire import Wire, real, tell_request

SHORT, LONG = 1_000, 100_000
PARAMETERS = 6
BATCH = 1_000
ROUNDS = 300
WARM_UP = 10
"""Rounds that count for nothing: the server has yet to read the histories."""
TIMES = 2.0


@dataclass(slots=True)
class Taken:
    """Seconds of the calls on one study."""

    first_ask: float = 0.0
    asks: list[float] = field(default_factory=list)
    tells: list[float] = field(default_factory=list)


def measure(say: Say, databases: Databases, environments: Path) -> Iterator[Line]:  # noqa: ARG001
    """Two lines for each database."""
    for kind in KINDS:
        with databases.served(kind) as server, Wire(server.target) as wire:
            say(f"{kind}: adding {LONG:,} finished trials to a study, and {SHORT:,} to another")
            names = {length: filled(wire, length) for length in (SHORT, LONG)}
            say(f"{kind}: {ROUNDS} asks and tells of each in turn")
            taken = _in_turn(wire, names)
        for call in ("ask", "tell"):
            yield _line(kind, call, taken)


def filled(wire: Wire, length: int, *, policy: str = "random", parameters: int = PARAMETERS) -> str:
    """The name of a new study with so many finished trials."""
    specs = [
        space.ParameterSpec(name=f"x{index}", float_spec=space.FloatSpec(low=0, high=1)) for index in range(parameters)
    ]
    objective = metric.Objective(metric="loss", goal=metric.Objective.GOAL_MINIMIZE)
    spec = studies.StudySpec(parameters=specs, objectives=[objective], policy=policy, seed=1)
    study = wire.create(f"filled-{policy}-{length}-{time.time_ns()}", studies.Study(spec=spec)).name
    generator = np.random.default_rng(length)
    for begin in range(0, length, BATCH):
        points = generator.uniform(size=(min(BATCH, length - begin), parameters))
        wire.call("AddTrials", pb.AddTrialsRequest(parent=study, trials=[_finished(point) for point in points]))
    return study


def _finished(point: np.ndarray) -> pb.NewTrial:
    return pb.NewTrial(
        parameters={f"x{index}": real(float(value)) for index, value in enumerate(point)},
        state=pb.Trial.STATE_SUCCEEDED,
        metrics={"loss": metric.MetricValue(value=float(np.sum((point - 0.3) ** 2)))},
    )


def _in_turn(wire: Wire, names: dict[int, str]) -> dict[int, Taken]:
    taken = {length: Taken() for length in names}
    for number in range(WARM_UP + ROUNDS):
        for length, name in names.items():
            found = taken[length]
            ask, trial = _timed(lambda name=name: wire.one(name))  # type: ignore[misc]
            tell, _ = _timed(lambda trial=trial: wire.call("Tell", tell_request(trial, 0.5)))  # type: ignore[misc]
            found.first_ask = found.first_ask or ask
            if number >= WARM_UP:
                found.asks.append(ask)
                found.tells.append(tell)
    return taken


def _timed(call: Callable[[], pb.Trial]) -> tuple[float, pb.Trial]:
    began = time.perf_counter()
    reply = call()
    return time.perf_counter() - began, reply


def _line(kind: str, call: str, taken: dict[int, Taken]) -> Line:
    short, long = (sorted(taken[length].asks if call == "ask" else taken[length].tells) for length in (SHORT, LONG))
    times = quantile(long, 0.95) / quantile(short, 0.95)
    details = {
        f"p50 ms at {SHORT:,}": 1e3 * quantile(short, 0.5),
        f"p50 ms at {LONG:,}": 1e3 * quantile(long, 0.5),
        f"p95 ms at {SHORT:,}": 1e3 * quantile(short, 0.95),
        f"p95 ms at {LONG:,}": 1e3 * quantile(long, 0.95),
    }
    if call == "ask":
        details[f"ms of the server's first ask at {LONG:,}"] = 1e3 * taken[LONG].first_ask
    return Line(
        f"{call} (random) at {LONG:,} trials, {kind}",
        f"p95 {times:.2f} × that at {SHORT:,}",
        f"≤ {TIMES:g} ×",
        met=times <= TIMES,
        details=figures(details),
    )
