"""Durable tells per second beside what the bare database reaches in the same minutes, and beside Optuna's gRPC proxy."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
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
SHARED_PORT = 2
"""Processes of one server that are measured beside a server of one, on PostgreSQL: a SQLite file has one."""
SHARE_OF_BARE = {SQLITE: 0.6, POSTGRESQL: 0.3}
TIMES_OPTUNA = 10.0


@dataclass(frozen=True, slots=True)
class Round:
    """What was measured one right after the other: rates a second, and what the tells took."""

    bare: float
    echo: Storm
    together: Storm
    apart: Storm
    batches: Storm
    shared_together: Storm | None = None
    shared_apart: Storm | None = None


def measure(say: Say, databases: Databases, environments: Path) -> Iterator[Line]:
    """Lines for both databases: of tells of one study, and of a study for each client."""
    for kind in KINDS:
        rounds = _rounds(say, databases, kind)
        found = _optuna(say, databases, kind, environments)
        one, each_its_own = f"{CLIENTS} clients tell one study", f"{CLIENTS} clients tell a study each"
        shared = f"one server of {SHARED_PORT} processes"
        for name, found_storms in (
            (one, [each.together for each in rounds]),
            (each_its_own, [each.apart for each in rounds]),
            (f"{one}, {shared}", [each.shared_together for each in rounds]),
            (f"{each_its_own}, {shared}", [each.shared_apart for each in rounds]),
        ):
            storms = [each for each in found_storms if each is not None]
            if not storms:
                continue
            yield _beside_bare(kind, name, rounds, storms)
            yield _beside_optuna(kind, name, storms, found)
        yield _in_batches(kind, [each.batches for each in rounds])


def _rounds(say: Say, databases: Databases, kind: str) -> list[Round]:
    with ExitStack() as stack:
        server = stack.enter_context(databases.served(kind))
        wire = stack.enter_context(Wire(server.target))
        shared = None
        if kind == POSTGRESQL:
            sharing = stack.enter_context(databases.served(kind, processes=SHARED_PORT))
            shared = (sharing, stack.enter_context(Wire(sharing.target)))
        echo = stack.enter_context(echoing())
        return [_round(say, databases, kind, (server, wire), shared, echo, number) for number in range(ROUNDS)]


def _round(
    say: Say,
    databases: Databases,
    kind: str,
    alone: tuple[Server, Wire],
    shared: tuple[Server, Wire] | None,
    echo: Server,
    number: int,
) -> Round:
    say(f"{kind}: tells, round {number + 1} of {ROUNDS}")
    server, wire = alone
    together, apart = (tells(wire, studies=studies, count=TELLS) for studies in (1, CLIENTS))
    batches = tells(wire, studies=CLIENTS, count=TOGETHER * TELLS // 8, together=TOGETHER)
    return Round(
        bare=bare.commits(kind, databases.empty(kind), clients=CLIENTS, seconds=BARE_SECONDS),
        together=storm(server, together, clients=CLIENTS),
        apart=storm(server, apart, clients=CLIENTS),
        batches=storm(server, batches, clients=CLIENTS),
        shared_together=_shared(shared, studies=1),
        shared_apart=_shared(shared, studies=CLIENTS),
        echo=storm(echo, echoes(count=TELLS), clients=CLIENTS),
    )


def _shared(shared: tuple[Server, Wire] | None, *, studies: int) -> Storm | None:
    """Tells of a server whose processes share a port; its clients' connections are the system's to deal out."""
    if shared is None:
        return None
    server, wire = shared
    return storm(server, tells(wire, studies=studies, count=TELLS), clients=CLIENTS)


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
