"""The benchmark's own gRPC client, against gRPC's own server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from benchmarks.serving.http2 import Call, drive, prepared

SERVICE = "asktell.test.Echo"
ECHO, REFUSE = f"/{SERVICE}/Echo", f"/{SERVICE}/Refuse"


def _echo(request: bytes, _context: grpc.ServicerContext) -> bytes:
    return request


def _refuse(_request: bytes, context: grpc.ServicerContext) -> bytes:
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no")


@pytest.fixture
def target() -> Iterator[str]:
    """A server that echoes and refuses."""
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        handlers = {
            "Echo": grpc.unary_unary_rpc_method_handler(_echo),
            "Refuse": grpc.unary_unary_rpc_method_handler(_refuse),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


def _driven(target: str, supplies: list[list[tuple[bytes, bytes]]]) -> list[list[Call]]:
    calls: list[list[Call]] = [[] for _ in supplies]
    drive(target, map(iter, supplies), took=lambda index, call: calls[index].append(call))
    return calls


def test_each_connection_gets_the_replies_to_its_own_requests_in_order(target: str) -> None:
    bodies = [[f"{client}-{number}".encode() for number in range(50)] for client in range(8)]
    calls = _driven(target, [[prepared(ECHO, body) for body in of_client] for of_client in bodies])
    assert [[call.reply for call in of_client] for of_client in calls] == bodies


def test_a_reply_of_many_frames_arrives_whole(target: str) -> None:
    # Requests stay below a connection's first window, which this client does not watch.
    body = bytes(range(256)) * 60
    ((first, second),) = _driven(target, [[prepared(ECHO, body), prepared(ECHO, body)]])
    assert first.reply == second.reply == body


def test_a_refused_call_has_no_reply_and_the_next_one_has(target: str) -> None:
    ((refused, echoed),) = _driven(target, [[prepared(REFUSE, b"x"), prepared(ECHO, b"x")]])
    assert refused.reply is None
    assert echoed.reply == b"x"


def test_no_supplies_are_no_calls(target: str) -> None:
    assert _driven(target, [[], []]) == [[], []]
