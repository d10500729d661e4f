"""What the server's processor does when nothing happens but renewals: ten thousand studies, a thousand workers that train."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from asktell.v1 import study_service_pb2 as studies
from asktell.v1 import trial_service_pb2 as pb
from benchmarks.meter import ServerMeter
from benchmarks.server import Server
from benchmarks.serving.clients import Request
from benchmarks.serving.databases import KINDS, Databases, Spent
from benchmarks.serving.http2 import Call, drive, prepared
from benchmarks.serving.line import Line, Say, figures
from tests.wire import METHODS, renew_request, seconds, small_study

STUDIES, WORKERS = 10_000, 1_000
CLIENTS = 32
LEASE = 60.0
"""Seconds, the default of studies; workers renew at a third of it."""
WATCHED = 40.0
"""Seconds: two renewals of each worker."""
BAR = 0.1


def measure(say: Say, databases: Databases, environments: Path) -> Iterator[Line]:  # noqa: ARG001
    """A line for each database."""
    for kind in KINDS:
        with databases.served(kind) as server:
            say(f"{kind}: creating {STUDIES:,} studies")
            names = _create(server)
            renewals = _renewals(_ask(server, names[:WORKERS]))
            say(f"{kind}: {WORKERS:,} workers renew their leases for {WATCHED:g} s")
            idle = _idle(server)
            share, refused = _watch(server, renewals)
        yield Line(
            f"{STUDIES:,} studies, {WORKERS:,} workers that renew, {kind}",
            f"{100 * share:.1f} % of a core",
            f"< {100 * BAR:g} %",
            met=share < BAR and not refused,
            details=figures(
                {
                    "% of a core without renewals": 100 * idle,
                    "renewals/s": WORKERS / (LEASE / 3),
                    "µs CPU/renewal": 1e6 * (share - idle) / (WORKERS / (LEASE / 3)),
                    "refused": refused,
                }
            ),
        )


def _create(server: Server) -> list[str]:
    requests = [
        studies.CreateStudyRequest(parent="projects/p", study_id=f"s{number}", study=small_study())
        for number in range(STUDIES)
    ]
    _replies(server, [prepared(METHODS["CreateStudy"], request.SerializeToString()) for request in requests])
    return [f"projects/p/studies/s{number}" for number in range(STUDIES)]


def _ask(server: Server, names: list[str]) -> list[pb.Trial]:
    requests = [
        pb.AskRequest(parent=name, worker_id=f"w{number}", lease_duration=seconds(10 * LEASE))
        for number, name in enumerate(names)
    ]
    replies = _replies(server, [prepared(METHODS["Ask"], request.SerializeToString()) for request in requests])
    return [pb.AskResponse.FromString(reply).trials[0] for reply in replies]


def _renewals(trials: list[pb.Trial]) -> list[Request]:
    return [prepared(METHODS["RenewLeases"], renew_request(trial).SerializeToString()) for trial in trials]


def _replies(server: Server, requests: list[Request]) -> list[bytes]:
    """The replies, in the order of those that came first; ValueError if one was refused."""
    calls: list[Call] = []
    shares = [requests[client::CLIENTS] for client in range(CLIENTS)]
    drive(server.target, map(iter, shares), took=lambda _, call: calls.append(call))
    replies = [call.reply for call in calls if call.reply is not None]
    if len(replies) < len(requests):
        raise ValueError(f"{len(requests) - len(replies)} of {len(requests)} calls were refused")
    return replies


def _idle(server: Server) -> float:
    """The share of a core that the server takes when nobody calls."""
    spent, began = Spent(ServerMeter(server.pid)), time.perf_counter()
    time.sleep(WATCHED / 4)
    return spent.seconds()[0] / (time.perf_counter() - began)


def _watch(server: Server, renewals: list[Request]) -> tuple[float, int]:
    """The share of a core that the server takes while every worker renews at a third of its lease, and how many were refused."""
    spent, began = Spent(ServerMeter(server.pid)), time.perf_counter()
    refused = 0

    def took(_client: int, call: Call) -> None:
        nonlocal refused
        refused += call.reply is None

    drive(server.target, [_paced(renewals, began)], took=took)
    return spent.seconds()[0] / (time.perf_counter() - began), refused


def _paced(renewals: list[Request], began: float) -> Iterator[Request]:
    """Each renewal once in a third of a lease, evenly spread."""
    interval = LEASE / 3 / len(renewals)
    for number in range(int(WATCHED / interval)):
        time.sleep(max(0.0, began + number * interval - time.perf_counter()))
        yield renewals[number % len(renewals)]
