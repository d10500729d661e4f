"""How a channel is set up, for threads and for asyncio alike."""

from __future__ import annotations

import json
import logging
import os
import random
import socket
from collections.abc import Callable
from importlib import metadata
from typing import Final, TypedDict

import grpc
from tenacity import RetryCallState, retry_if_exception, stop_after_delay, wait_exponential, wait_random

from asktell.client import encryption
from asktell.client import target as targets
from asktell.client.errors import worth_retrying

logger = logging.getLogger("asktell.client.retries")

DEFAULT_TARGET: Final = f"localhost:{targets.PORT}"
TARGET_VARIABLE: Final = "ASKTELL_TARGET"
MAX_MESSAGE_BYTES: Final = 64 * 2**20
LONGEST_STREAM_PAUSE: Final = 0.5

_GROWING = wait_exponential(multiplier=0.1, max=1.8) + wait_random(0.0, 0.2)
_LOOPBACK = ("localhost:", "127.", "[::1]:", "unix:", "ipv4:127.", "ipv6:[::1]", "ipv6:%5B::1%5D")
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
    """The target given, else that of the environment variable ASKTELL_TARGET, else localhost:50051. InvalidArgument for what is none."""
    found = target or os.environ.get(TARGET_VARIABLE) or DEFAULT_TARGET
    targets.check(found, source="target" if target else TARGET_VARIABLE)
    return found


def credentials(given: grpc.ChannelCredentials | None, *, local: bool) -> grpc.ChannelCredentials | None:
    """Those given, else those of the environment, which are not for a server within this process. None: no encryption."""
    if given is not None or local:
        return given
    return encryption.credentials(os.environ)


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
        # After this long an attempt to connect is given up: one that was begun while the line was cut knocks too rarely after a while.
        ("grpc.min_reconnect_backoff_ms", 5_000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.primary_user_agent", f"asktell-python/{_version()}"),
        ("grpc.enable_http_proxy", 0 if target.startswith(_LOOPBACK) else 1),
    ]


def pause_before_next_stream() -> float:
    """Seconds before a stream that was cut is taken up again: short, and spread, since a server that stops cuts those of many."""
    return random.uniform(0.0, LONGEST_STREAM_PAUSE)  # noqa: S311 - nothing depends on its being unpredictable.


class Retries(TypedDict):
    """How tenacity repeats a call."""

    stop: stop_after_delay
    wait: Callable[[RetryCallState], float]
    retry: retry_if_exception
    before_sleep: Callable[[RetryCallState], None]
    reraise: bool


def retries(retry_for: float) -> Retries:
    """Repeat for `retry_for` seconds (above 0), with pauses that grow to 2 s; gRPC has made the first, quick ones by then."""

    def say_once(state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            logger.warning("%s; trying again for up to %g s", state.outcome.exception(), retry_for)

    return {
        "stop": stop_after_delay(retry_for),
        "wait": _pause,
        "retry": retry_if_exception(lambda error: _asked(error) is not False),
        "before_sleep": say_once,
        "reraise": True,
    }


def _pause(state: RetryCallState) -> float:
    """What the service asked for, else longer and longer."""
    asked = _asked(state.outcome.exception() if state.outcome is not None else None)
    return _GROWING(state) if isinstance(asked, bool) else asked


def _asked(error: BaseException | None) -> bool | float:
    return isinstance(error, Exception) and worth_retrying(error)


def _version() -> str:
    try:
        return metadata.version("asktell")
    except metadata.PackageNotFoundError:
        return "0"
