"""Several server processes that share one port, kept running by a process that does nothing else.

The operating system deals connections out among those that listen. The processes are replicas, as on several machines: they meet in the
database alone. What is loaded here stays small: only the processes themselves load what a server needs.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

import structlog

from asktell.server.logs import show_logs
from asktell.server.settings import Settings, StartError

log = structlog.get_logger("asktell.supervision")

_SPAWN = multiprocessing.get_context("spawn")

PAUSE = 1.0
"""Seconds before a process that died is started anew, so that one that cannot run does not keep a core busy."""
LARGEST_READ = 65_536
PATIENCE = 15.0
"""Seconds beyond the drain after which a process that does not end is killed."""


async def supervise(settings: Settings, *, announce: Callable[[str], None]) -> None:
    """Run `settings.processes` servers until SIGTERM or SIGINT, which ends them as it ends one; `announce` gets HOST:PORT once all answer.

    Raises StartError if one cannot start. One that dies later, or gives no sign of life for too long, is started anew, again and again.
    """
    _require_shareable(settings)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    with reserved(settings.listen) as listen:
        members = [_Member(_own(settings, listen, place)) for place in range(settings.processes)]
        try:
            await _until(stopped, [member.start() for member in members])
            if not stopped.is_set():
                announce(listen)
                await _until(stopped, [member.keep() for member in members])
        finally:
            await asyncio.gather(*(member.stop() for member in members))
    log.info("all_stopped")


def _own(settings: Settings, listen: str, place: int) -> Settings:
    """The settings of one of the processes: pages for Prometheus, of which each has its own, are on ports that follow each other."""
    return replace(settings, listen=listen, prometheus_listen=settings.prometheus_of(place))


async def _until(stopped: asyncio.Event, work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all the work at once, to its end or until the event, which cancels it; raise what goes wrong before that."""
    doing = asyncio.gather(*work)
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait((doing, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if stopped.is_set():
        doing.cancel()
        await asyncio.gather(doing, return_exceptions=True)
    else:
        await doing


def _require_shareable(settings: Settings) -> None:
    if settings.embedded:
        raise StartError(f"--processes {settings.processes} needs PostgreSQL: a SQLite file has one server process")
    if not hasattr(socket, "SO_REUSEPORT"):
        raise StartError(f"--processes {settings.processes}: on this system, processes cannot share a port")


@contextmanager
def reserved(listen: str) -> Iterator[str]:
    """HOST:PORT with a port that nobody listens on, kept for the processes during the block, also while none of them runs."""
    host, _, port = listen.rpartition(":")
    with socket.socket(*_family(listen)) as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            # Asked for without sharing, a port is refused also where others share it.
            with socket.create_server((host.strip("[]"), int(port)), family=kept.family) as probe:
                chosen = probe.getsockname()[1]
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            kept.bind((host.strip("[]"), chosen))
            # From now on also a server that starts before any of the processes listens is refused the port.
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        except OSError as error:
            raise StartError(f"cannot listen on {listen}: {error}") from error
        yield f"{host}:{chosen}"


def _family(listen: str) -> tuple[socket.AddressFamily, socket.SocketKind]:
    host, _, port = listen.rpartition(":")
    try:
        family, kind, *_ = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise StartError(f"cannot listen on {listen}: {error}") from error
    return family, kind


@dataclass(slots=True)
class _Member:
    """One of the processes, and the one that takes its place."""

    settings: Settings
    process: SpawnProcess | None = field(default=None)
    heard: Connection | None = field(default=None)

    async def start(self) -> None:
        """Start a process and return once it answers. Raises StartError with what kept it from that, OSError if there is no room for it."""
        self.forget()
        self.heard, say = _SPAWN.Pipe(duplex=False)
        process = _SPAWN.Process(target=_serve, args=(self.settings, say), name="asktell-server")
        process.start()
        self.process = process
        say.close()
        await _readable(self.heard.fileno())
        try:
            failure: str = self.heard.recv()
        except EOFError:
            failure = f"server process {process.pid} ended before it answered"
        if failure:
            raise StartError(failure)

    async def keep(self) -> None:
        """Start a process anew whenever it has ended, until cancelled; one that hangs is killed first."""
        while self.process is not None:
            await self._ended(self.process)
            self.process.join()
            log.warning("process_lost", process=self.process.pid, status=self.process.exitcode)
            await asyncio.sleep(PAUSE)
            try:
                await self.start()
                log.info("process_started_anew", process=self.process.pid)
            except (StartError, OSError) as error:
                log.warning("process_not_started", error=str(error))

    async def _ended(self, process: SpawnProcess) -> None:
        watched = asyncio.create_task(self._kill_if_silent(process), name="watch-process")
        try:
            await _readable(process.sentinel)
        finally:
            watched.cancel()

    async def _kill_if_silent(self, process: SpawnProcess) -> None:
        while self.heard is not None:
            try:
                async with asyncio.timeout(self.settings.hang_limit):
                    await _readable(self.heard.fileno())
            except TimeoutError:
                # This process itself may have been stopped for so long; then the signs of life are there.
                if not self.heard.poll():
                    log.warning("process_hangs", process=process.pid, seconds=self.settings.hang_limit)
                    process.kill()
                    return
            if not os.read(self.heard.fileno(), LARGEST_READ):
                return

    def forget(self) -> None:
        """Hear no more of a process that has ended."""
        if self.heard is not None:
            self.heard.close()
            self.heard = None

    async def stop(self) -> None:
        """End the process in order, if it runs, and wait for it."""
        if self.process is None or not self.process.is_alive():
            self.forget()
            return
        self.process.terminate()
        try:
            async with asyncio.timeout(self.settings.drain + PATIENCE):
                await _readable(self.process.sentinel)
        except TimeoutError:
            log.warning("process_killed", process=self.process.pid)
            self.process.kill()
        self.process.join()
        self.forget()


async def _readable(descriptor: int) -> None:
    """Return once the file descriptor can be read, as a pipe whose other end is closed."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)


def _serve(settings: Settings, say: Connection) -> None:
    """What a process does: it says "" once it answers, or else what kept it from that; then, from time to time, that it lives."""
    from asktell.server import bootstrap

    show_logs(level=settings.log_level, style=settings.log_format)
    parent: Any = multiprocessing.parent_process()
    overseer = bootstrap.Overseer(parent.sentinel, lambda: _show_life(say))
    try:
        bootstrap.serve(settings, announce=lambda _: _tell(say, ""), overseer=overseer)
    except StartError as error:
        _tell(say, str(error))


def _tell(say: Connection, what: str) -> None:
    # A first process that is gone or ends hears nothing; this one ends with it.
    with suppress(BrokenPipeError):
        say.send(what)
        # The first process may be stopped for long, until the pipe is full: no reason to wait for it.
        os.set_blocking(say.fileno(), False)


def _show_life(say: Connection) -> None:
    with suppress(BrokenPipeError, BlockingIOError):
        os.write(say.fileno(), b".")
