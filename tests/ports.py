"""Ports for servers of tests that must come back where they were."""

from __future__ import annotations

import random
import socket

# Below the range from which the system gives ports to outgoing connections (32768 and up on Linux): one of those could take the port of a
# server that is down for a moment, or even connect to itself on it.
LOWEST, HIGHEST = 20_000, 32_000
ATTEMPTS = 100


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now and that no outgoing connection will take."""
    for _ in range(ATTEMPTS):
        port = random.SystemRandom().randrange(LOWEST, HIGHEST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port from {LOWEST} to {HIGHEST}")
