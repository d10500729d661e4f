"""A real asktell server for a benchmark: a process of its own, on a free port, with one engine process."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ASKTELL = str(Path(sys.executable).with_name("asktell"))
ENGINE = ROOT / "server" / "asktell" / "server" / "policies"
ANNOUNCEMENT = re.compile(r"^asktell serves on (\S+)$", re.MULTILINE)
PATIENCE = 60.0
"""Seconds that the server has to come up."""
GRACE = 15.0
"""Seconds that it has to end."""
ASK_TIME_LIMIT = 120
"""Seconds that an ask may take: what it takes is measured, not cut short."""


class Broken(Exception):
    """A process that a benchmark needs did not start or has failed; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    target: str
    pid: int


@contextmanager
def served(directory: Path, *, database: str = "", processes: int = 1, torch_device: str = "cpu") -> Iterator[Server]:
    """A server on a database, or on `bench.db` in the directory, which may be there; it is stopped at the end.

    Its meter counts all of its processes.
    """
    log = directory / "server.log"
    process = _start(database or f"sqlite:///{directory / 'bench.db'}", log, processes, torch_device)
    try:
        yield Server(_target(process, log), process.pid)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        process.kill()
        process.wait()


def end_in_order() -> None:
    """Have SIGTERM and a closed terminal end the benchmark as Ctrl-C does, so that its server ends too."""

    def interrupt(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


def engine_version() -> str:
    """A short hash of the code that chooses candidates: runs by other code are not this engine's."""
    paths = sorted(ENGINE.rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:10]


def log_end(log: Path) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-25:])


def _start(database: str, log: Path, processes: int, torch_device: str) -> subprocess.Popen[bytes]:
    options = {
        "--listen": "127.0.0.1:0",
        "--database": database,
        "--engine-processes": "1",
        "--processes": str(processes),
        "--torch-device": torch_device,
        "--ask-time-limit": str(ASK_TIME_LIMIT),
        "--log-level": "warning",
    }
    with log.open("wb") as output:
        return subprocess.Popen(
            [ASKTELL, "serve", *(text for option in options.items() for text in option)],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _target(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if match := ANNOUNCEMENT.search(log.read_text(encoding="utf-8", errors="replace")):
            return match[1]
        if process.poll() is not None:
            raise Broken(f"the server ended before it listened:\n{log_end(log)}")
        time.sleep(0.005)
    raise Broken(f"the server did not listen within {PATIENCE:.0f} s:\n{log_end(log)}")
