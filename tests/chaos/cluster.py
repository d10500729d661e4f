"""Several servers on one database, each behind a proxy of its own, that can be killed and come back where they were."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.chaos.broken_server import PROGRAM, VARIABLE
from tests.chaos.proxy import LossyProxy
from tests.ports import free_port
from tests.postgres import Postgres
from tests.processes import DidNotStart, Processes, Server, until


@dataclass(slots=True)
class Cluster:
    """Servers on one database. `ways` are the proxies before them; without any, clients reach the servers themselves."""

    processes: Processes
    database: str
    servers: list[Server]
    ways: list[LossyProxy] = field(default_factory=list)
    kills: int = 0
    _starting: dict[int, Future[None]] = field(default_factory=dict)
    _starter: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "starter"))

    @property
    def target(self) -> str:
        """All servers, or the proxies before them, as one target for the SDK, which takes them in turn."""
        return "ipv4:" + ",".join(way.target for way in self.ways or self.servers)

    @property
    def replies(self) -> int:
        """How many replies the servers began, as the proxies saw it."""
        return sum(way.replies for way in self.ways)

    @property
    def lost(self) -> int:
        """How many replies the proxies kept from their clients."""
        return sum(way.lost for way in self.ways)

    def kill(self, index: int) -> None:
        """SIGKILL one server, and start it again on its port in the background."""
        self.servers[index].kill()
        self.kills += 1
        self._starting[index] = self._starter.submit(self._start_again, index)

    def _start_again(self, index: int) -> None:
        def attempt() -> Server | None:
            try:
                return self.processes.again(self.servers[index])
            except DidNotStart:
                return None  # The database is not back yet.

        self.servers[index] = until(attempt)

    def up(self) -> list[int]:
        """The servers that are not being started."""
        return [
            index for index in range(len(self.servers)) if index not in self._starting or self._starting[index].done()
        ]

    def complete(self) -> None:
        """Return once all servers that were killed have started again; raises what kept one from it."""
        for started in self._starting.values():
            started.result()

    def close(self) -> None:
        """Start no more servers."""
        self._starter.shutdown(cancel_futures=True)

    def serving(self) -> bool:
        """Whether all servers say that they can do their work."""
        return all(is_serving(server.target) for server in self.servers)


def is_serving(target: str) -> bool:
    """What a load balancer is told."""
    with grpc.insecure_channel(target) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.RpcError:
            return False
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


@contextmanager
def cluster(
    processes: Processes,
    database: str,
    *,
    servers: int,
    loss: float = 0.0,
    seed: int = 0,
    breach: str = "",
) -> Iterator[Cluster]:
    """Servers on a database that has the schema; with a `loss`, each behind a proxy that loses such a share of replies.

    With a `breach` they are broken servers, see there, and none of them may be killed.
    """
    how: dict[str, Any] = {"program": PROGRAM, "environment": {VARIABLE: breach}} if breach else {}
    started = [processes.serve(database, listen=f"127.0.0.1:{free_port()}", **how) for _ in range(servers)]
    with ExitStack() as stack:
        ways = [
            stack.enter_context(LossyProxy(server.port, share=loss, seed=seed + index))
            for index, server in enumerate(started if loss else ())
        ]
        whole = Cluster(processes, database, started, ways)
        try:
            yield whole
        finally:
            whole.close()


@contextmanager
def own_postgres(*, fsync: bool) -> Iterator[Postgres]:
    """A PostgreSQL that may be crashed."""
    server = Postgres(settings={"fsync": "on" if fsync else "off"})
    server.start()
    try:
        yield server
    finally:
        server.remove()
