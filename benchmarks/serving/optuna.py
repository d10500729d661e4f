"""Optuna's gRPC proxy, run in the environment that `make bench-peers` makes."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.meter import ServerMeter
from benchmarks.server import ROOT, Broken, log_end
from benchmarks.serving.databases import POSTGRESQL
from benchmarks.serving.echo import LOOPBACK

MODULE = "benchmarks.peers.optuna_proxy"
LONGEST = 300.0
"""Seconds that its asks and tells may take."""


@dataclass(frozen=True, slots=True)
class Told:
    """What tells through the proxy took: seconds of each, sorted, and processor seconds of the proxy and the clients, a tell."""

    per_second: float
    seconds: Sequence[float]
    server_cpu: float
    client_cpu: float


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running proxy."""

    python: Path
    port: int
    pid: int

    def tell(self, *, threads: int, each: int) -> Told:
        """Have threads ask for trials, then tell them all at once; Broken if that fails."""
        command = [str(self.python), "-m", MODULE, "load", str(self.port), str(threads), str(each)]
        meter = ServerMeter(self.pid)
        before = meter.cpu()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LONGEST, check=False)
        if done.returncode:
            raise Broken(f"Optuna's tells failed:\n{done.stderr[-2000:]}")
        found = json.loads(done.stdout)
        count = len(found["seconds"])
        # The proxy's time for the asks is in it: at most twice that of the tells.
        return Told(found["per_second"], found["seconds"], (meter.cpu() - before) / count, found["cpu"] / count)


@contextmanager
def proxied(python: Path, kind: str, address: str) -> Iterator[Proxy]:
    """A proxy on a new database."""
    url = address.replace("postgresql:", "postgresql+psycopg:") if kind == POSTGRESQL else f"sqlite:///{address}"
    with socket.create_server((LOOPBACK, 0)) as probe:
        port = probe.getsockname()[1]
    log = ROOT / "benchmarks" / "out" / "optuna-proxy.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [python, "-m", MODULE, "serve", url, str(port)], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield Proxy(python, port, process.pid)
    except Broken as error:
        raise Broken(f"{error}\n{log_end(log)}") from error
    finally:
        process.kill()
        process.wait()
