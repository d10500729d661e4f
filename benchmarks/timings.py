"""What asks take at many sizes: each function is one measurement, through gRPC, on SQLite, with one engine process."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from asktell.client import InvalidArgument, Study
from benchmarks.loads import client, continuous, loaded, mixed10
from benchmarks.meter import ServerMeter
from benchmarks.peers.served import METRIC
from benchmarks.problem import Problem
from benchmarks.server import Server, served

ASKS = 5
COLD_STARTS = 5
COLD_OBSERVATIONS = 20
COLD_DIMENSIONS = 6
RANDOM_ASKS = 300
STUDIES, ASKS_EACH = 20, 100
EARLY = 50
"""The ask from which on memory should not grow."""
MODELLED = ("acquisition", "exploration")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report: what was measured, the figures with their units, what was asked for."""

    what: str
    figures: Mapping[str, float | str]
    bar: str = ""


@dataclass(slots=True)
class Asks:
    """Seconds and processor seconds of asks, one after another, each told."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    fallbacks: int = 0
    replaced: list[str] = field(default_factory=list)
    """Why neither the policy nor its device chose."""

    def take(self, study: Study, problem: Problem, meter: ServerMeter, *, count: int) -> None:
        """Ask and tell so many times."""
        for _ in range(count):
            cpu, began = meter.cpu(), time.perf_counter()
            (trial,) = study.ask()
            self.seconds.append(time.perf_counter() - began)
            self.cpu.append(meter.cpu() - cpu)
            origin = trial.origin
            self.fallbacks += bool(origin.fallback)
            if origin.fallback and (origin.acquisition is None or "the CPU computed" in origin.fallback):
                self.replaced.append(origin.fallback)
            trial.tell({METRIC: problem.function(trial.parameters)})

    def figures(self, meter: ServerMeter) -> dict[str, float | str]:
        """The first ask, the median of the others, their mean processor time, and memory."""
        return {
            "first ask, ms": milliseconds(self.seconds[0]),
            "later asks, median ms": milliseconds(statistics.median(self.seconds[1:])),
            "first ask, CPU ms": milliseconds(self.cpu[0]),
            "later asks, mean CPU ms": milliseconds(statistics.mean(self.cpu[1:])),
            "resident MiB": meter.resident(),
            "peak MiB": meter.peak(),
            "fallbacks": self.fallbacks,
        }


def sizes(say: Say) -> Iterator[Row]:
    """Asks of studies of many sizes, on one server that has worked before."""
    cases = [
        ("n = 50, d = 6", continuous(6), 50, ""),
        ("n = 100, ten mixed parameters", mixed10(), 100, "≤ 100 ms CPU"),
        ("n = 1,000, d = 20", continuous(20), 1000, "≤ 500 ms CPU, ≤ 1 GB"),
        ("n = 1,000, d = 50", continuous(50), 1000, ""),
        ("n = 5,000, d = 20", continuous(20), 5000, "≤ 3,000 ms CPU, ≤ 1 GB"),
    ]
    with temporary_server() as server:
        meter = ServerMeter(server.pid)
        _worked(server, meter)
        for what, problem, observations, bar in cases:
            say(f"Asking with {what}")
            with client(server.target) as connection:
                asks, study = Asks(), loaded(connection, problem, observations=observations)
                asks.take(study, problem, meter, count=1 + ASKS)
            yield Row(what, asks.figures(meter), bar)


def devices(say: Say) -> Iterator[Row]:
    """Asks of the policy that runs wholly on BoTorch, on the CPU and on each GPU that torch has, beside those of the default."""
    cases = [
        ("n = 50, d = 6", continuous(6), 50),
        ("n = 1,000, d = 20", continuous(20), 1000),
        ("n = 5,000, d = 20", continuous(20), 5000),
    ]
    for policy, device, name in [("auto", "cpu", "the default policy"), *_devices()]:
        with temporary_server(torch_device=device) as server, client(server.target) as connection:
            meter = ServerMeter(server.pid)
            _worked(server, meter, policy=policy)
            for what, problem, observations in cases:
                say(f"Asking with {what} of {name}")
                asks, study = Asks(), loaded(connection, problem, observations=observations, policy=policy)
                asks.take(study, problem, meter, count=1 + ASKS)
                if asks.replaced:
                    raise ValueError(f"not {name} chose but something else: {asks.replaced[-1]}")
                yield Row(f"{what}: {name}", asks.figures(meter))


def _devices() -> Iterator[tuple[str, str, str]]:
    """A policy, where torch computes it, and what to call that."""
    import torch  # noqa: PLC0415 - it takes seconds.

    yield "gp-botorch", "cpu", "gp-botorch on the CPU"
    for number in range(torch.cuda.device_count()):
        yield "gp-botorch", f"cuda:{number}", f"gp-botorch on cuda:{number} ({torch.cuda.get_device_name(number)})"


def cold_start(say: Say) -> Iterator[Row]:
    """From the start of a server's process to its first model-based answer, and the memory at that moment."""
    for policy, bar in (("auto", "≤ 2,000 ms, ≤ 200 MiB"), ("gp-botorch", "")):
        with tempfile.TemporaryDirectory(prefix="asktell-cold-") as directory:
            study = _prepared(Path(directory), policy)
            if not study:
                yield Row(f"cold start, {policy}", {"note": "this server has no such policy"})
                continue
            starts = []
            for number in range(COLD_STARTS):
                say(f"Cold start {number + 1} of {COLD_STARTS} with {policy}")
                starts.append(_cold(Path(directory), study))
        medians = {name: statistics.median(start[name] for start in starts) for name in starts[0]}
        torch = medians.pop("torch")
        yield Row(f"cold start, {policy}{', torch loaded' if torch else ', no torch'}", medians, bar)


def _prepared(directory: Path, policy: str) -> str:
    """The name of a study in the directory's database; empty if the server knows no such policy."""
    problem = continuous(COLD_DIMENSIONS)
    with served(directory) as server, client(server.target) as connection:
        try:
            return loaded(connection, problem, observations=COLD_OBSERVATIONS, policy=policy).id
        except InvalidArgument:
            return ""


def _cold(directory: Path, study: str) -> dict[str, float]:
    began = time.perf_counter()
    with served(directory) as server, client(server.target) as connection:
        listening = time.perf_counter() - began
        (trial,) = connection.get_study(study).ask()
        answered = time.perf_counter() - began
        meter = ServerMeter(server.pid)
        if trial.origin.method not in MODELLED or trial.origin.fallback:
            raise ValueError(f"the first ask was not model-based but {trial.origin}")
        taken = {
            "listening, ms": milliseconds(listening),
            "first answer, ms": milliseconds(answered),
            "CPU, ms": milliseconds(meter.cpu()),
            "resident MiB": meter.resident(),
            "proportional MiB": meter.proportional(),
            "torch": float(meter.loads("libtorch")),
        }
        # Told, not given back: the next start would be handed the same trial, and need no model.
        trial.tell({METRIC: continuous(COLD_DIMENSIONS).function(trial.parameters)})
        return taken


def overhead(say: Say) -> Iterator[Row]:
    """Asks that need no model: what gRPC and the database take."""
    say(f"Asking {RANDOM_ASKS} times for random candidates")
    problem = continuous(6)
    with temporary_server() as server, client(server.target) as connection:
        study, asks, meter = (
            loaded(connection, problem, observations=0, policy="random"),
            Asks(),
            ServerMeter(server.pid),
        )
        asks.take(study, problem, meter, count=RANDOM_ASKS)
    late = sorted(asks.seconds)[int(0.95 * len(asks.seconds))]
    figures: dict[str, float | str] = {
        "median ms": milliseconds(statistics.median(asks.seconds)),
        "p95 ms": milliseconds(late),
        "mean CPU ms": milliseconds(statistics.mean(asks.cpu)),
    }
    yield Row("an ask that needs no model", figures, "≤ 5 ms")


def memory_growth(say: Say) -> Iterator[Row]:
    """Resident memory from ask 50 to ask 2,000, over twenty studies one after another."""
    problem, asks, early = continuous(6), Asks(), 0
    with temporary_server() as server, client(server.target) as connection:
        meter = ServerMeter(server.pid)
        for number in range(STUDIES):
            say(f"Memory: study {number + 1} of {STUDIES}, {meter.resident()} MiB")
            study = loaded(connection, problem, observations=0, seed=number)
            asks.take(study, problem, meter, count=EARLY)
            early = early or meter.resident()
            asks.take(study, problem, meter, count=ASKS_EACH - EARLY)
        late = meter.resident()
    figures = {f"MiB at ask {EARLY}": early, f"MiB at ask {STUDIES * ASKS_EACH}": late, "growth, MiB": late - early}
    yield Row("memory growth", figures, "≤ 100 MB")


def _worked(server: Server, meter: ServerMeter, *, policy: str = "auto") -> None:
    """Have the server's engine process started and its libraries loaded."""
    problem = continuous(2)
    with client(server.target) as connection:
        Asks().take(loaded(connection, problem, observations=10, policy=policy), problem, meter, count=1)


@contextmanager
def temporary_server(torch_device: str = "cpu") -> Iterator[Server]:
    """A server on a database of its own, which is gone with it."""
    with (
        tempfile.TemporaryDirectory(prefix="asktell-bench-") as directory,
        served(Path(directory), torch_device=torch_device) as server,
    ):
        yield server


def milliseconds(seconds: float) -> float:
    """Seconds as milliseconds, to two decimals."""
    return round(seconds * 1e3, 2)
