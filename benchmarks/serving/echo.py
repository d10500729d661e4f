"""A gRPC server on asyncio that returns what it is sent: what any service in Python reaches at most, whatever its database."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from benchmarks.server import ROOT, Server

METHOD = "/asktell.bench.Echo/Echo"
LOOPBACK = "127.0.0.1"


@contextmanager
def echoing() -> Iterator[Server]:
    """An echo in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.serving.echo"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Server(process.stdout.readline().strip(), process.pid)
        finally:
            process.kill()


async def _echo(request: bytes, _context: Any) -> bytes:
    return request


async def _serve() -> None:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    service, method = METHOD.strip("/").split("/")
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(_echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port(f"{LOOPBACK}:0")
    await server.start()
    print(f"{LOOPBACK}:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve())
