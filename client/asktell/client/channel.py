"""How a channel is set up, for threads and for asyncio alike."""

from __future__ import annotations

import json
import os
import socket
from importlib import metadata
from typing import Final, TypedDict

DEFAULT_TARGET: Final = "localhost:50051"
TARGET_VARIABLE: Final = "ASKTELL_TARGET"
MAX_MESSAGE_BYTES: Final = 64 * 2**20

_LOOPBACK = ("localhost:", "127.", "[::1]:", "unix:")
_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [
                {"service": f"asktell.v1.{name}"} for name in ("StudyService", "TrialService", "SurrogateService")
            ],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.05s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                # A server that ends may cancel a call that it has not begun. Every call is safe to repeat.
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ],
}


def target_or_default(target: str | None) -> str:
    """The target given, else that of the environment variable ASKTELL_TARGET, else localhost:50051."""
    return target or os.environ.get(TARGET_VARIABLE) or DEFAULT_TARGET


def default_worker_id() -> str:
    """A name for this process: its host and process id."""
    return f"{socket.gethostname()}-{os.getpid()}"


def options(target: str) -> list[tuple[str, str | int]]:
    """Channel options. A target on this machine is reached without a proxy, whatever the environment says.

    Pings every 30 s while a call runs find dead connections; a server must allow them. A lost connection is tried again within 2 s,
    since the retries of a call count on it.
    """
    return [
        ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.primary_user_agent", f"asktell-python/{_version()}"),
        ("grpc.enable_http_proxy", 0 if target.startswith(_LOOPBACK) else 1),
    ]


class Retries(TypedDict):
    """How stamina repeats a call."""

    attempts: None
    timeout: float
    wait_initial: float
    wait_max: float
    wait_jitter: float


def retries(retry_for: float) -> Retries:
    """Repeat for `retry_for` seconds (above 0), with pauses that grow to 2 s; gRPC has made the first, quick ones by then."""
    return {"attempts": None, "timeout": retry_for, "wait_initial": 0.1, "wait_max": 2.0, "wait_jitter": 0.2}


def _version() -> str:
    try:
        return metadata.version("asktell")
    except metadata.PackageNotFoundError:
        return "0"
