"""The composition root: the only module that knows every layer."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from asktell.server.application import failpoints
from asktell.server.application.beliefs import Oracle
from asktell.server.application.clerk import Clerk
from asktell.server.application.curves import Curves
from asktell.server.application.desk import Desk
from asktell.server.application.history import History
from asktell.server.application.imports import discard_abandoned
from asktell.server.application.leases import expire_leases
from asktell.server.application.metering import Meter
from asktell.server.application.reports import Reports
from asktell.server.application.watch import Feeds
from asktell.server.domain.errors import Unavailable
from asktell.server.persistence.address import UnusableDatabase
from asktell.server.persistence.backup import back_up
from asktell.server.persistence.exclusive import DatabaseInUse
from asktell.server.persistence.migration import NotMigrated, check_migrated, migrate
from asktell.server.persistence.retries import note_retries
from asktell.server.persistence.store import SqlStore, open_store
from asktell.server.policies import torch_device
from asktell.server.policies.engine import ProcessPoolEngine
from asktell.server.policies.registry import POLICIES
from asktell.server.policies.torch_device import UnusableDevice
from asktell.server.rpc.convert.study import pack_changes
from asktell.server.rpc.convert.trial import asked_size
from asktell.server.rpc.encryption import Encryption
from asktell.server.rpc.server import Endpoint, RpcServer, build_server
from asktell.server.settings import Settings, StartError
from asktell.server.stopping.foresight import foresee
from asktell.server.stopping.judge import judge

log = structlog.get_logger("asktell.server")


FORGET_INTERVAL = 600.0
FORGET_AT_ONCE = 2_000
PROBE_INTERVAL = 0.5
PROBE_LIMIT = 1.0
SIGN_INTERVAL = 0.5
OBJECTS_BETWEEN_COLLECTIONS = 50_000
"""Python's 700 are made by a few calls: with dozens under way it would look through what they still hold again and again."""


@dataclass(frozen=True, slots=True)
class Overseer:
    """The process that keeps this server and others running: `gone` is a file descriptor that can be read once that process has ended, `sign`
    tells it that this server lives.
    """

    gone: int
    sign: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Service:
    """A running server."""

    rpc: RpcServer
    store: SqlStore
    settings: Settings
    meter: Meter

    @property
    def target(self) -> str:
        """HOST:PORT for clients."""
        return f"{self.settings.listen.rpartition(':')[0]}:{self.rpc.port}"


@asynccontextmanager
async def running(settings: Settings, *, shared_port: bool = False) -> AsyncIterator[Service]:
    """A server that answers until the block ends, which waits for the calls under way as long as `settings.drain` says."""
    async with contextlib.AsyncExitStack() as stack:
        failpoints.arm(settings.failpoints)
        with _start_errors():
            await asyncio.to_thread(torch_device.check, settings.torch_device)
        meter = (
            Meter() if settings.prometheus_listen is None else stack.enter_context(_page(settings.prometheus_listen))
        )
        store = await _open_database(settings)
        stack.push_async_callback(store.close)
        engine = ProcessPoolEngine(workers=settings.engines, torch_device=settings.torch_device)
        stack.push_async_callback(engine.close)
        desk = Desk(
            store=store,
            engine=engine,
            history=History(store, foresee=foresee),
            new_nonce=lambda: secrets.token_hex(8),
            max_waiting=settings.max_waiting_asks,
            longest=settings.ask_time_limit,
            speculate=settings.speculate,
            size=asked_size,
        )
        desk.meter = meter
        stack.push_async_callback(desk.close)
        clerk = Clerk(store)
        feeds = Feeds(store, pack=pack_changes)
        with _start_errors():
            rpc = build_server(
                desk,
                clerk,
                Reports(clerk, Curves(store), judge),
                feeds,
                Oracle(desk.history, engine, longest=settings.ask_time_limit),
                endpoint=Endpoint(settings.listen, _encryption(settings), shared=shared_port),
                max_connection_age=settings.max_connection_age,
                meter=meter,
            )
        meter.show("asktell_asks_waiting", "Asks in line, those that are being met included.", lambda: desk.waiting)
        meter.show("asktell_engine_busy", "Engine processes that choose candidates now.", lambda: engine.choosing)
        meter.show("asktell_engine_processes", "Engine processes that there may be.", lambda: settings.engines)
        meter.show("asktell_watches", "Watches of studies that are open.", lambda: feeds.watchers)
        service = Service(rpc, store, settings, meter)
        await rpc.start()
        stack.push_async_callback(rpc.stop, grace=settings.drain)
        await stack.enter_async_context(_background(_probe(service), "probe-database"))
        await stack.enter_async_context(_background(_expire(service), "expire-leases"))
        await stack.enter_async_context(_background(_forget(store), "forget-replies"))
        await stack.enter_async_context(_background(feeds.keep_up(), "keep-watches-up"))
        log.info("serving", listen=service.target, database=store.description)
        yield service
        log.info("draining", seconds=settings.drain)


@contextlib.contextmanager
def _page(listen: str) -> Iterator[Meter]:
    """What counts, with a page for Prometheus during the block."""
    # In files that processes share, where this names a directory for them, it would count for other programs, too.
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    # What few servers need.
    from asktell.server.prometheus import PrometheusMeter

    meter = PrometheusMeter(POLICIES)
    with contextlib.ExitStack() as stack:
        with _start_errors():
            place = stack.enter_context(meter.served(listen))
        log.info("counting", prometheus=f"http://{place}/metrics")
        yield meter


def _encryption(settings: Settings) -> Encryption | None:
    if settings.server_cert is None and settings.server_key is None:
        if settings.client_ca is not None:
            raise StartError(
                "--client-ca needs --server-cert and --server-key: clients show certificates on encrypted connections alone"
            )
        return None
    if settings.server_cert is None or settings.server_key is None:
        raise StartError("--server-cert and --server-key go together: a certificate and its key")
    return Encryption(settings.server_cert, settings.server_key, settings.client_ca)


async def _open_database(settings: Settings) -> SqlStore:
    def open_migrated() -> SqlStore:
        (migrate if settings.migrates else check_migrated)(settings.database_url)
        return open_store(settings.database_url)

    with _start_errors():
        return await asyncio.to_thread(open_migrated)


@contextlib.contextmanager
def _start_errors() -> Iterator[None]:
    """What the user of a server can mend, as one kind of error."""
    try:
        yield
    except (UnusableDatabase, UnusableDevice, DatabaseInUse, NotMigrated, Unavailable, OSError) as error:
        raise StartError(str(error)) from error


def migrate_database(settings: Settings) -> None:
    """Bring the database's schema up to date. Raises StartError."""
    with _start_errors():
        migrate(settings.database_url)


def back_up_database(settings: Settings, target: Path) -> int:
    """Copy a SQLite database to a new file, with its server running or not; the file's bytes. Raises StartError."""
    with _start_errors():
        return back_up(settings.database_url, target)


@asynccontextmanager
async def _background(work: Coroutine[None, None, None], name: str) -> AsyncIterator[None]:
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _expire(service: Service) -> None:
    """Return the trials of dead workers to the queue."""
    while True:
        try:
            expired = await expire_leases(service.store)
            service.meter.expired(expired)
            if expired:
                log.info("leases_expired", trials=expired)
        except Unavailable as error:
            log.warning("leases_not_expired", error=str(error))
        except Exception:
            log.exception("expire_leases_broken")
        await asyncio.sleep(service.settings.lease_check_interval)


async def _probe(service: Service) -> None:
    """Tell load balancers whether the database answers and takes writes. A call that hangs counts as no answer."""
    serving: bool | None = None
    while True:
        try:
            async with asyncio.timeout(PROBE_LIMIT):
                await service.store.check()
            reached = True
        except (Unavailable, TimeoutError) as error:
            reached = False
            log.warning("database_unavailable", error=str(error) or f"no answer within {PROBE_LIMIT:g} s")
        except Exception:
            reached = False
            log.exception("probe_broken")
        service.meter.asked(reached=reached)
        if reached is not serving:
            serving = reached
            await service.rpc.set_serving(serving=reached)
        await asyncio.sleep(PROBE_INTERVAL)


async def _forget(store: SqlStore) -> None:
    """Delete kept replies past their time, and what is left of imports that never ended."""
    while True:
        await asyncio.sleep(FORGET_INTERVAL)
        try:
            while await store.write(lambda tx: tx.forget_old_replies(FORGET_AT_ONCE)) == FORGET_AT_ONCE:
                pass
            await discard_abandoned(store)
        except Exception:
            log.exception("forget_replies_broken")


def _collect_rarely() -> None:
    """Have the garbage collector pass over what a server keeps to its end, and look for cycles less often: it took a tenth of a tell's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)


def serve(settings: Settings, *, announce: Callable[[str], None], overseer: Overseer | None = None) -> None:
    """Run a server until SIGTERM or SIGINT; `announce` gets HOST:PORT once it answers. Raises StartError.

    With an overseer it shares its port with others, and ends with the overseer.
    """
    note_retries()
    work = _serve(settings, announce, overseer)
    if sys.platform == "win32":
        asyncio.run(work)
    else:
        # A call costs a third less processor time than on asyncio's own loop.
        import uvloop

        uvloop.run(work)


async def _serve(settings: Settings, announce: Callable[[str], None], overseer: Overseer | None) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with running(settings, shared_port=overseer is not None) as service, contextlib.AsyncExitStack() as stack:
        if overseer is not None:
            loop.add_reader(overseer.gone, stopped.set)
            await stack.enter_async_context(_background(_show_life(overseer), "show-life"))
        _collect_rarely()
        announce(service.target)
        await stopped.wait()
    log.info("stopped")


async def _show_life(overseer: Overseer) -> None:
    """Show that the event loop, which answers all calls, goes round."""
    while True:
        await asyncio.sleep(SIGN_INTERVAL)
        overseer.sign()
