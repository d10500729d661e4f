"""The gRPC server: services, health, reflection, and a shutdown that lets calls finish."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import cast

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from asktell.server.application.beliefs import Oracle
from asktell.server.application.clerk import Clerk
from asktell.server.application.desk import Desk
from asktell.server.application.leases import Renewals
from asktell.server.application.metering import Meter
from asktell.server.application.reports import Reports
from asktell.server.application.watch import Feeds
from asktell.server.rpc.boundary import Methods
from asktell.server.rpc.encryption import Encryption
from asktell.server.rpc.study_servicer import StudyServicer
from asktell.server.rpc.surrogate_servicer import SurrogateServicer
from asktell.server.rpc.trial_servicer import TrialServicer
from asktell.v1.study_service_pb2_grpc import add_StudyServiceServicer_to_server
from asktell.v1.surrogate_service_pb2_grpc import add_SurrogateServiceServicer_to_server
from asktell.v1.trial_service_pb2_grpc import add_TrialServiceServicer_to_server

LIVENESS = "liveness"
"""What a health check asks for that shall restart a server which hangs: SERVING from the start, whatever the database does, until it stops."""

SERVICES = ("asktell.v1.StudyService", "asktell.v1.TrialService", "asktell.v1.SurrogateService")

_OPTIONS = [
    # Workers keep idle connections alive through routers; refusing their pings ends in too_many_pings.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # When another server stops, its thousands of watchers come all at once; by default gRPC cancels some calls beyond 1,000 that wait.
    ("grpc.server.max_pending_requests", 5_000),
    ("grpc.server.max_pending_requests_hard_limit", 10_000),
    # Pings that measure how much a connection takes cost a twelfth of a small call; a window that uploads fill only far away makes up for them.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 1024 * 1024),
    ("grpc.max_receive_message_length", 8 * 1024 * 1024),
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
]


@dataclass(frozen=True, slots=True)
class RpcServer:
    """A gRPC server that is listening once `start` has returned."""

    server: grpc.aio.Server
    health: health.aio.HealthServicer
    feeds: Feeds
    port: int

    async def start(self) -> None:
        """Begin to answer, and to say NOT_SERVING until `set_serving` knows better: without that, NOT_FOUND. LIVENESS is SERVING at once."""
        await self.set_serving(serving=False)
        await self.health.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        await self.server.start()

    async def set_serving(self, *, serving: bool) -> None:
        """Tell load balancers whether to send calls here."""
        status = health_pb2.HealthCheckResponse
        state = status.SERVING if serving else status.NOT_SERVING
        for service in ("", *SERVICES):
            await self.health.set(service, state)

    async def stop(self, *, grace: float) -> None:
        """Say NOT_SERVING, refuse new calls, end the watches, and give other calls under way `grace` seconds."""
        await self.health.enter_graceful_shutdown()
        self.feeds.close()
        await self.server.stop(grace)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server listens: HOST:PORT, port 0 for any; encrypted or not; whether other processes of this user may listen there too."""

    listen: str
    encryption: Encryption | None = None
    shared: bool = False


def build_server(
    desk: Desk,
    clerk: Clerk,
    reports: Reports,
    feeds: Feeds,
    oracle: Oracle,
    *,
    endpoint: Endpoint,
    max_connection_age: float,
    meter: Meter,
) -> RpcServer:
    """A server. Raises OSError if the endpoint cannot be had, as where another one listens, unless both share the port, and if there is no
    certificate where its encryption says.

    Connections are closed gently after `max_connection_age` seconds, so that clients find new replicas.
    """
    options = [
        *_OPTIONS,
        ("grpc.so_reuseport", int(endpoint.shared)),
        ("grpc.max_connection_age_ms", int(max_connection_age * 1000)),
    ]
    methods, checks = Methods(meter), health.aio.HealthServicer()
    # All that the generated code does with a server is to add methods to it.
    adding = cast("grpc.aio.Server", methods)
    add_StudyServiceServicer_to_server(StudyServicer(desk.store, clerk, desk.engine, desk.history, feeds), adding)
    add_TrialServiceServicer_to_server(TrialServicer(desk, clerk, Renewals(desk.store, clerk), reports), adding)
    add_SurrogateServiceServicer_to_server(SurrogateServicer(oracle), adding)
    health_pb2_grpc.add_HealthServicer_to_server(checks, adding)
    shown = reflection.aio.ReflectionServicer((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME))
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(shown, adding)
    server = grpc.aio.server(handlers=[methods], options=options)
    listen = endpoint.listen
    credentials = None if endpoint.encryption is None else endpoint.encryption.credentials()
    try:
        port = server.add_insecure_port(listen) if credentials is None else server.add_secure_port(listen, credentials)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {listen}: {_obstacle(listen) or error}") from error
    return RpcServer(server, checks, feeds, port)


def _obstacle(listen: str) -> str:
    """Why nobody can listen there, as the operating system puts it; gRPC keeps that to its log."""
    host, _, port = listen.rpartition(":")
    try:
        socket.create_server((host.strip("[]"), int(port))).close()
    except (OSError, ValueError) as error:
        return str(error)
    return ""
