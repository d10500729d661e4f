"""Many clients of a server: studies and trials for them, and what their calls took."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from asktell.v1 import trial_service_pb2 as pb
from benchmarks.meter import ServerMeter
from benchmarks.server import Server
from benchmarks.serving.databases import Spent
from benchmarks.serving.echo import METHOD
from benchmarks.serving.http2 import Call, drive, prepared
from tests.wire import METHODS, Wire, seconds, small_study, tell_request

Request = tuple[bytes, bytes]

LONG_LEASE = 24 * 3600.0
BATCH = 1_000
BODY = 150
"""Bytes of a tell's request, near enough, for the echo."""


@dataclass(frozen=True, slots=True)
class Storm:
    """What many calls at once took: seconds of each, sorted, and processor seconds of the server and the clients, a call."""

    per_second: float
    seconds: Sequence[float]
    refused: int
    server_cpu: float
    client_cpu: float

    def quantile(self, share: float) -> float:
        """The seconds that this share of the calls took at most."""
        return quantile(self.seconds, share)


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value that this share of the sorted values is at most."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def new_study(wire: Wire, **spec: Any) -> str:
    """The name of a new study with one parameter, by random search unless `spec` says otherwise."""
    return wire.create(f"bench-{uuid.uuid4().hex[:12]}", small_study(**spec)).name


def leased(wire: Wire, study: str, count: int) -> Iterator[pb.Trial]:
    """So many new trials in the hands of one worker, for long."""
    while count > 0:
        batch = min(count, BATCH)
        wire.enqueue(study, [0.5] * batch)
        yield from wire.ask(study, count=batch, lease_duration=seconds(LONG_LEASE)).trials
        count -= batch


def tells(wire: Wire, *, studies: int, count: int, together: int = 1) -> list[list[Request]]:
    """Requests that each tell so many trials of a study together, for each of some new studies; of `count` trials in all."""
    return [
        [
            prepared(METHODS["Tell"], _tell_together(trials).SerializeToString())
            for trials in _parts(leased(wire, new_study(wire), count // studies), together)
        ]
        for _ in range(studies)
    ]


def _parts(trials: Iterator[pb.Trial], size: int) -> Iterator[list[pb.Trial]]:
    while part := list(itertools.islice(trials, size)):
        yield part


def _tell_together(trials: Sequence[pb.Trial]) -> pb.TellRequest:
    requests = [tell_request(trial, 0.25) for trial in trials]
    return pb.TellRequest(parent=requests[0].parent, results=[each.results[0] for each in requests])


def echoes(*, count: int) -> list[list[Request]]:
    """Requests for the echo, as long as a tell's."""
    return [[prepared(METHOD, bytes(BODY))] * count]


def storm(server: Server, requests: Sequence[Sequence[Request]], *, clients: int) -> Storm:
    """Have clients, each with a connection and one call under way, send all requests; a study's clients share its requests."""
    shares = _shares(requests, clients)
    calls: list[Call] = []
    spent = Spent(ServerMeter(server.pid))
    drive(server.target, map(iter, shares), took=lambda _, call: calls.append(call))
    taken = sorted(call.seconds for call in calls)
    began = min(call.at - call.seconds for call in calls)
    of_server, of_clients = spent.seconds()
    return Storm(
        per_second=len(calls) / (max(call.at for call in calls) - began),
        seconds=taken,
        refused=sum(call.reply is None for call in calls),
        server_cpu=of_server / len(calls),
        client_cpu=of_clients / len(calls),
    )


def _shares(requests: Sequence[Sequence[Request]], clients: int) -> list[list[Request]]:
    """Each client's requests: studies are dealt to clients in turn, and a study's requests to its clients in turn."""
    shares: list[list[Request]] = [[] for _ in range(clients)]
    for number, of_study in enumerate(requests):
        mine = itertools.cycle(shares[number % len(requests) :: len(requests)])
        for request, share in zip(of_study, mine, strict=False):
            share.append(request)
    return shares
