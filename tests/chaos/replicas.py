"""Several servers on one database, as one target, and what they say of their health."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.processes import PATIENCE, Processes, Server, until
from tests.wire import Wire

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass(slots=True)
class Replicas:
    """Servers on one PostgreSQL database, each on a port that it keeps."""

    processes: Processes
    servers: list[Server]

    @classmethod
    def start(cls, processes: Processes, database: str, count: int) -> Replicas:
        """So many servers, all of them ready."""
        replicas = cls(processes, [processes.serve(database) for _ in range(count)])
        for server in replicas.servers:
            await_health(server, SERVING)
        return replicas

    @property
    def target(self) -> str:
        """All of them, for a client that goes round them."""
        return "ipv4:" + ",".join(server.target for server in self.servers)

    def restart(self, index: int) -> int:
        """SIGTERM one and start it again once it has ended; its exit status. Returns when it is ready again."""
        ending = self.servers[index]
        ending.terminate()
        status = ending.wait()
        self.servers[index] = self.processes.again(ending)
        await_health(self.servers[index], SERVING)
        return status


def health_of(server: Server) -> int | None:
    """What a server says of its health; None if it does not answer."""
    with Wire(server.target) as wire, suppress(grpc.RpcError):
        check = health_pb2_grpc.HealthStub(wire.channel).Check
        status: int = check(health_pb2.HealthCheckRequest(), timeout=PATIENCE).status
        return status
    return None


def await_health(server: Server, status: int) -> None:
    """Return once the server says so."""
    until(lambda: health_of(server) == status)


@dataclass(slots=True)
class Watched:
    """What a server has said of its health so far."""

    seen: list[int] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def wait_for(self, status: int) -> None:
        """Return once it has said so last."""
        with self.changed:
            assert self.changed.wait_for(lambda: bool(self.seen) and self.seen[-1] == status, timeout=PATIENCE)

    def listen(self, server: Server) -> None:
        """Until the server ends, or says that it is about to."""
        with Wire(server.target) as wire, suppress(grpc.RpcError):
            stream = health_pb2_grpc.HealthStub(wire.channel).Watch(health_pb2.HealthCheckRequest())
            for reply in stream:
                with self.changed:
                    self.seen.append(reply.status)
                    self.changed.notify_all()
                if self.seen[-2:] == [SERVING, NOT_SERVING]:
                    # An open stream would keep the server for as long as it drains at most.
                    stream.cancel()


@contextmanager
def watched(server: Server) -> Iterator[Watched]:
    """A server's health, followed from now, from SERVING."""
    told = Watched()
    listener = threading.Thread(target=told.listen, args=(server,), daemon=True)
    listener.start()
    told.wait_for(SERVING)
    yield told
    listener.join(PATIENCE)
