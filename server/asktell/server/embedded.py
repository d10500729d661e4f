"""A server inside another process, as for a notebook: what `Client.local()` starts."""

from __future__ import annotations

import asyncio
import atexit
import threading
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from asktell.server.bootstrap import running
from asktell.server.logs import route_logs
from asktell.server.settings import Settings


@dataclass(slots=True)
class EmbeddedServer:
    """A server on a free loopback port, on a thread of its own. Its database is kept."""

    database: str
    speculate: bool = True
    target: str = ""
    users: int = 0
    _failure: BaseException | None = None
    _ready: threading.Event = field(default_factory=threading.Event)
    _stop: asyncio.Event | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _thread: threading.Thread | None = None

    def start(self) -> EmbeddedServer:
        """Return once the server answers; raise what kept it from starting."""
        self._thread = threading.Thread(target=self._run, name="asktell-server", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure
        return self

    @property
    def alive(self) -> bool:
        """Whether the server runs."""
        return self._thread is not None and self._thread.is_alive()

    def close(self) -> None:
        """Stop the server and wait for it, if nobody else in this process uses it."""
        with _lock:
            self.users -= 1
            if self.users > 0:
                return
            # Another one may have taken the place of a server that died.
            if _running.get(_place(self.database)) is self:
                del _running[_place(self.database)]
            self.stop()

    def stop(self) -> None:
        """Stop the server and wait for it, whoever uses it. Stopping twice is fine."""
        if self._loop is not None and self._stop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits for the start
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        settings = Settings(listen="127.0.0.1:0", database=self.database, speculate=self.speculate, drain=1.0)
        async with running(settings) as service:
            self.target = service.target
            self._ready.set()
            await self._stop.wait()


def start(database: str, *, speculate: bool = True) -> EmbeddedServer:
    """A running server on the database (a path or URL), which prepares candidates ahead of asks or not. Raises what kept it from starting.

    A second start on one file in this process, as when a notebook's cell runs again, gets the server that is there.
    """
    if not structlog.is_configured():
        route_logs()
    with _lock:
        server = _running.get(_place(database))
        if server is None or not server.alive:
            server = _running[_place(database)] = EmbeddedServer(database, speculate).start()
            # At exit Python shuts its thread pools down before it calls what atexit knows, and the server needs them to end well.
            getattr(threading, "_register_atexit", atexit.register)(server.stop)
        server.users += 1
        return server


_lock = threading.Lock()
_running: dict[str, EmbeddedServer] = {}


def _place(database: str) -> str:
    path = database.removeprefix("sqlite:///")
    return path if "://" in path else str(Path(path).expanduser().resolve())
