"""`asktell health`: whether a server is ready, for people and for probes."""

from __future__ import annotations

import sys
from typing import Annotated

import grpc
from cyclopts import Parameter
from cyclopts.validators import Number
from grpc_health.v1 import health_pb2, health_pb2_grpc

from asktell.client import channel
from asktell.client.connection import open_channel


def health(
    target: Annotated[str, Parameter(env_var="ASKTELL_TARGET")] = channel.DEFAULT_TARGET,
    *,
    timeout: Annotated[float, Parameter(validator=Number(gt=0))] = 5.0,
    service: str = "",
) -> None:
    """Ask a server whether it is ready: exit status 0 and "SERVING", or 1 and why not.

    For example: `asktell health localhost:50051`

    Parameters
    ----------
    target
        HOST:PORT of the server.
    timeout
        Seconds to wait for the answer.
    service
        `liveness` asks whether it answers at all, whatever its database does; by default, whether calls shall come to it.
    """
    found = channel.target_or_default(target)
    with open_channel(found, credentials=channel.credentials(None, local=False)) as opened:
        try:
            reply = health_pb2_grpc.HealthStub(opened).Check(
                health_pb2.HealthCheckRequest(service=service), timeout=timeout
            )
        except grpc.RpcError as error:
            sys.exit(": ".join(filter(None, (found, error.code().name, error.details()))))
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)
    print(status)
    sys.exit(0 if status == "SERVING" else 1)
