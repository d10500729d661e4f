"""Durable tells per second beside what the bare database reaches in the same minutes, and beside Optuna's gRPC proxy."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.server import Server
from benchmarks.serving import bare
from benchmarks.serving.clients import Storm, echoes, quantile, storm, tells
from benchmarks.serving.databases import KINDS, POSTGRESQL, SQLITE, Databases
from benchmarks.serving.echo import echoing
from benchmarks.serving.line import Line, Say, figures
from benchmarks.serving.optuna import Told, proxied
from tests.wire import Wire

CLIENTS = 64
ROUNDS = 3
TELLS = 4_096
"""Tells of a round, of all clients together."""
BARE_SECONDS = 2.0
OPTUNA_THREADS, OPTUNA_EACH = 32, 8
TOGETHER = 16
"""Trials that one call tells, where a client tells several: none of the bars' rows."""
PROCESSES = {SQLITE: (1,), POSTGRESQL: (1, 2)}
"""Of the servers that are measured, how many processes each is: a SQLite file has one."""
SHARE_OF_BARE = {SQLITE: 0.6, POSTGRESQL: 0.3}
TIMES_OPTUNA = 10.0


@dataclass(frozen=True, slots=True)
class Round:
    """What was measured one right after the other: rates a second, and what the tells took."""

    bare: float
    echo: Storm
    batches: Storm
    told: Mapping[str, Storm]
    """Of single tells: by whom, and of which server."""


def measure(say: Say, databases: Databases, environments: Path) -> Iterator[Line]:
    """Lines for both databases: of tells of one study, and of a study for each client."""
    for kind in KINDS:
        rounds = _rounds(say, databases, kind)
        found = _optuna(say, databases, kind, environments)
        for name in rounds[0].told:
            storms = [each.told[name] for each in rounds]
            yield _beside_bare(kind, name, rounds, storms)
            yield _beside_optuna(kind, name, storms, found)
        yield _in_batches(kind, [each.batches for each in rounds])


def _rounds(say: Say, databases: Databases, kind: str) -> list[Round]:
    with ExitStack() as stack:
        servers = [stack.enter_context(databases.served(kind, processes=number)) for number in PROCESSES[kind]]
        told = [(server, stack.enter_context(Wire(server.target))) for server in servers]
        echo = stack.enter_context(echoing())
        return [_round(say, databases, kind, told, echo, number) for number in range(ROUNDS)]


def _round(
    say: Say, databases: Databases, kind: str, servers: Sequence[tuple[Server, Wire]], echo: Server, number: int
) -> Round:
    say(f"{kind}: tells, round {number + 1} of {ROUNDS}")
    server, wire = servers[0]
    batches = tells(wire, studies=CLIENTS, count=TOGETHER * TELLS // 8, together=TOGETHER)
    return Round(
        bare=bare.commits(kind, databases.empty(kind), clients=CLIENTS, seconds=BARE_SECONDS),
        told={
            f"{CLIENTS} clients tell {what}{_of(processes)}": storm(
                server, tells(wire, studies=studies, count=TELLS), clients=CLIENTS
            )
            for processes, (server, wire) in zip(PROCESSES[kind], servers, strict=True)
            for what, studies in (("one study", 1), ("a study each", CLIENTS))
        },
        batches=storm(server, batches, clients=CLIENTS),
        echo=storm(echo, echoes(count=TELLS), clients=CLIENTS),
    )


def _of(processes: int) -> str:
    return "" if processes == 1 else f", one server of {processes} processes"


def _optuna(say: Say, databases: Databases, kind: str, environments: Path) -> Told | None:
    """What Optuna's proxy takes; None if it is not installed."""
    python = environments / "optuna-ax" / "bin" / "python"
    if not python.exists():
        return None
    say(f"{kind}: tells through Optuna's proxy")
    with proxied(python, kind, databases.empty(kind)) as proxy:
        return proxy.tell(threads=OPTUNA_THREADS, each=OPTUNA_EACH)


def _beside_bare(kind: str, name: str, rounds: list[Round], storms: list[Storm]) -> Line:
    shares = [of_round.per_second / each.bare for each, of_round in zip(rounds, storms, strict=True)]
    of_echo = [of_round.per_second / each.echo.per_second for each, of_round in zip(rounds, storms, strict=True)]
    share, bar = statistics.median(shares), SHARE_OF_BARE[kind]
    refused = sum(each.refused for each in storms)
    return Line(
        f"durable tells, {kind}, {name}",
        f"{share:.3f} × bare",
        f"≥ {bar:g} × bare",
        met=share >= bar and not refused,
        details=figures(
            {
                "tells/s": statistics.median(each.per_second for each in storms),
                "bare commits/s": statistics.median(each.bare for each in rounds),
                "echo calls/s": statistics.median(each.echo.per_second for each in rounds),
                "× echo": statistics.median(of_echo),
                **_latency(storms),
                "server µs CPU/tell": 1e6 * statistics.median(each.server_cpu for each in storms),
                "echo µs CPU/call": 1e6 * statistics.median(each.echo.server_cpu for each in rounds),
                "client µs CPU/tell": 1e6 * statistics.median(each.client_cpu for each in storms),
                "refused": refused,
            }
        ),
    )


def _in_batches(kind: str, storms: list[Storm]) -> Line:
    """What calls that tell several trials come to: each is one transaction's part, all or none."""
    each = TOGETHER * statistics.median(of_round.per_second for of_round in storms)
    return Line(
        f"durable tells, {kind}, {CLIENTS} clients tell a study each, {TOGETHER} trials a call",
        f"{each:,.0f} tells/s",
        "none: a row of its own",
        met=None,
        details=figures(
            {
                **_latency(storms),
                "server µs CPU/tell": 1e6 * statistics.median(of_round.server_cpu for of_round in storms) / TOGETHER,
                "refused": sum(of_round.refused for of_round in storms),
            }
        ),
    )


def _beside_optuna(kind: str, name: str, storms: list[Storm], found: Told | None) -> Line:
    what, bar = f"the same, {kind}, {name}", f"≥ {TIMES_OPTUNA:g} × Optuna's proxy"
    if found is None:
        return Line(what, "not measured: run `make bench-peers`", bar, met=None)
    times = statistics.median(each.per_second for each in storms) / found.per_second
    return Line(
        what,
        f"{times:.1f} × Optuna's proxy",
        bar,
        met=times >= TIMES_OPTUNA,
        details=figures(
            {
                "Optuna's tells/s": found.per_second,
                "p50 ms": 1e3 * quantile(found.seconds, 0.5),
                "p99 ms": 1e3 * quantile(found.seconds, 0.99),
                "proxy µs CPU/ask and tell": 1e6 * found.server_cpu,
                "client µs CPU/tell": 1e6 * found.client_cpu,
            }
        ),
    )


def _latency(storms: list[Storm]) -> dict[str, float]:
    return {
        f"p{round(100 * share)} ms": 1e3 * statistics.median(each.quantile(share) for each in storms)
        for share in (0.5, 0.99)
    }
