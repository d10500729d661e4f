"""Real asktell processes for tests: servers and workers on loopback, all of them gone at the end, come what may."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import psutil

T = TypeVar("T")

ASKTELL = str(Path(sys.executable).parent / "asktell")
READY = "asktell serves on "
PATIENCE = 60.0
"""Seconds that a test waits for what must happen, on a loaded machine. Only a broken service ever takes them."""


class DidNotStart(Exception):
    """A server ended before it served; the message is what it had to say."""


@dataclass(slots=True)
class Process:
    """A process of a test, in a process group of its own; what it writes to standard error is in `log`."""

    popen: subprocess.Popen[str]
    log: Path
    ended: bool = field(default=False, kw_only=True)

    @property
    def pid(self) -> int:
        return self.popen.pid

    def kill(self) -> None:
        """SIGKILL to the process alone, as a crash; its children see their parent gone."""
        self.popen.kill()
        self.popen.wait(PATIENCE)

    def pause(self) -> None:
        """SIGSTOP, as a machine that hangs; returns once it has stopped."""
        os.kill(self.pid, signal.SIGSTOP)
        until(lambda: psutil.Process(self.pid).status() == psutil.STATUS_STOPPED)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM, without waiting."""
        self.popen.terminate()

    def wait(self) -> int:
        """The exit status."""
        return self.popen.wait(PATIENCE)

    def line(self) -> str:
        """The next line of standard output, without its end; empty at the end of the output."""
        assert self.popen.stdout is not None
        return self.popen.stdout.readline().rstrip("\n")

    def rest(self) -> str:
        """What is left of standard output, once the process has ended."""
        return self.popen.communicate(timeout=PATIENCE)[0]

    def say(self, line: str) -> None:
        """Give it a line on standard input."""
        assert self.popen.stdin is not None
        print(line, file=self.popen.stdin, flush=True)

    def errors(self) -> str:
        """What it wrote to standard error so far."""
        return self.log.read_text()

    def end(self) -> None:
        """Kill the process and its whole group, if any of it is left. Once: later its number may be that of another's group."""
        if self.ended:
            return
        self.ended = True
        if self.popen.poll() is None:
            self.popen.kill()
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.popen.wait(PATIENCE)
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe is not None:
                pipe.close()


@dataclass(slots=True)
class Server(Process):
    """A server that answers at `target`."""

    target: str
    database: str

    @property
    def port(self) -> int:
        return int(self.target.rpartition(":")[2])


@dataclass(slots=True)
class Processes:
    """The processes of one test; `with` ends them all."""

    logs: Path
    started: list[Process] = field(default_factory=list)

    def serve(
        self,
        database: str,
        *,
        listen: str = "127.0.0.1:0",
        environment: Mapping[str, str] | None = None,
        program: Sequence[str] = (ASKTELL,),
        cwd: Path | None = None,
    ) -> Server:
        """Start a server and return once it answers; DidNotStart if it ends before."""
        fast = {"ASKTELL_LEASE_CHECK_INTERVAL": "0.2", "ASKTELL_ENGINE_PROCESSES": "1", **(environment or {})}
        process = self.start([*program, "serve", "--listen", listen, "--database", database], environment=fast, cwd=cwd)
        line = process.line()
        if not line.startswith(READY):
            raise DidNotStart(f"status {process.wait()}: {line}{process.errors()}")
        server = Server(process.popen, process.log, line.removeprefix(READY), database)
        self.started[self.started.index(process)] = server
        return server

    def again(self, server: Server) -> Server:
        """Start a server where one was, on the same database and port."""
        return self.serve(server.database, listen=server.target)

    def start(
        self, command: Sequence[str], *, environment: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> Process:
        """Start any process, without waiting for it."""
        log = self.logs / f"{len(self.started)}.log"
        with log.open("w") as errors:
            popen = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
                cwd=cwd,
                # What trials write is no user's business.
                env={"ASKTELL_LOGS": str(self.logs / "trials"), **os.environ, **(environment or {})},
            )
        process = Process(popen, log)
        self.started.append(process)
        return process

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self.started):
            process.end()


def until(condition: Callable[[], T]) -> T:
    """Ask again until the answer is true, and return it; AssertionError if it never is."""
    end = time.monotonic() + PATIENCE
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < end, f"it did not come true within {PATIENCE:g} s"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
