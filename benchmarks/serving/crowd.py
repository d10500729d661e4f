"""Sixty-four clients that ask, report and tell at once on one SQLite file: nothing refused, nothing lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from asktell.v1 import trial_service_pb2 as pb
from benchmarks.meter import ServerMeter
from benchmarks.serving.clients import Request, new_study, quantile
from benchmarks.serving.databases import SQLITE, Databases, Spent
from benchmarks.serving.http2 import Call, drive, prepared
from benchmarks.serving.line import Line, Say, figures
from tests.wire import METHODS, Wire, report_request, study_of, tell_request

CLIENTS = 64
STUDIES = 4
TRIALS = 30
"""Of each client."""


@dataclass(slots=True)
class Client:
    """One client's calls: each needs the reply to the one before."""

    study: str
    worker: str
    calls: list[Call] = field(default_factory=list)
    told: set[str] = field(default_factory=set)

    def requests(self) -> Iterator[Request]:
        """Ask, report, tell, again and again; a refused ask is asked again."""
        for _ in range(TRIALS):
            yield _ready("Ask", pb.AskRequest(parent=self.study, worker_id=self.worker))
            reply = self.calls[-1].reply
            if reply is None:
                continue
            (trial,) = pb.AskResponse.FromString(reply).trials
            yield _ready("Report", report_request(trial, 1, 0.5))
            yield _ready("Tell", tell_request(trial, 0.5))
            if self.calls[-1].reply is not None:
                self.told.add(trial.name)


def measure(say: Say, databases: Databases, environments: Path) -> Iterator[Line]:  # noqa: ARG001
    """One line."""
    say(f"{SQLITE}: {CLIENTS} clients with {TRIALS} trials each, in {STUDIES} studies")
    with databases.served(SQLITE) as server, Wire(server.target) as wire:
        names = [new_study(wire) for _ in range(STUDIES)]
        clients = [Client(names[number % STUDIES], f"w{number}") for number in range(CLIENTS)]
        spent = Spent(ServerMeter(server.pid))
        drive(server.target, [client.requests() for client in clients], took=lambda i, c: clients[i].calls.append(c))
        cpu = spent.seconds()[0]
        stored = [trial for name in names for trial in wire.all_trials(name)]
        log = _complaints(databases)
    yield _line(clients, stored, cpu, log)


def _line(clients: list[Client], stored: list[pb.Trial], cpu: float, complaints: int) -> Line:
    calls = [call for client in clients for call in client.calls]
    told = {name for client in clients for name in client.told}
    kept = {trial.name for trial in stored if trial.state == pb.Trial.STATE_SUCCEEDED}
    points = {(study_of(trial), trial.parameters["x"].double_value) for trial in stored}
    wrong = {
        "refused": sum(call.reply is None for call in calls),
        "acknowledged but not stored": len(told - kept),
        "handed out twice": CLIENTS * TRIALS - len(told),
        "points proposed twice": len(stored) - len(points),
        '"database is locked" in the log': complaints,
    }
    taken = sorted(call.seconds for call in calls)
    wall = max(call.at for call in calls) - min(call.at - call.seconds for call in calls)
    return Line(
        f"{CLIENTS} clients ask, report and tell on a {SQLITE} file",
        f"{sum(wrong.values())} wrong of {len(calls):,} calls",
        "0",
        met=not sum(wrong.values()),
        details=figures(
            {
                **wrong,
                "trials/s": len(told) / wall,
                "p50 ms": 1e3 * quantile(taken, 0.5),
                "p99 ms": 1e3 * quantile(taken, 0.99),
                "server µs CPU/trial": 1e6 * cpu / max(len(told), 1),
            }
        ),
    )


def _complaints(databases: Databases) -> int:
    """How many lines of the servers' logs speak of a locked database."""
    logs = databases.directory.glob("server-*/server.log")
    return sum(line.count("database is locked") for log in logs for line in log.read_text().splitlines())


def _ready(method: str, request: pb.AskRequest | pb.ReportRequest | pb.TellRequest) -> Request:
    return prepared(METHODS[method], request.SerializeToString())
