"""Announcements between the servers on a PostgreSQL database, by NOTIFY and LISTEN."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from threading import Condition, Event, Thread
from typing import Any

import structlog
from sqlalchemy import URL, Connection, Engine, bindparam, func, select
from sqlalchemy.exc import DBAPIError

from asktell.server.persistence.announcements import Listener
from asktell.server.persistence.engines import postgresql_notifier

log = structlog.get_logger("asktell.notifications")

CHANNEL = "asktell_changes"
CONNECTIONS = 2
GATHERING = 0.03
"""Seconds for which changes are gathered into one notification."""
RECONNECT_PAUSE = 1.0
LISTEN_TURN = 10.0
# PostgreSQL takes 8,000 bytes; an id has 19 digits at most.
IDS_A_PAYLOAD = 380

# A notification that a crash of the database loses is no loss, so that its commit need not wait for the disk.
_NOTIFY = select(
    func.set_config("synchronous_commit", "off", bindparam("is_local", value=True)),
    func.pg_notify(CHANNEL, bindparam("payload")),
)
_LOCK_TIMEOUT = timedelta(seconds=2)


class Notifications:
    """A relay over PostgreSQL, with one connection that listens and one that notifies, each on a thread of its own.

    What is announced goes out after the commits that it is about, in transactions of its own: PostgreSQL lets transactions that notify
    commit one at a time only, which would undo group commit. What cannot be sent is dropped: listeners also look by themselves.
    """

    def __init__(self, url: URL) -> None:
        self._engine: Engine = postgresql_notifier(url, connections=CONNECTIONS, lock_timeout=_LOCK_TIMEOUT)
        self._sender = secrets.token_hex(8)
        self._gate = Condition()
        self._waiting: set[int] = set()
        self._closed = Event()
        self._threads: list[Thread] = []
        # The notifier's, used by its thread alone. Got anew each time it would be tried first, at the price of another notification.
        self._kept: Connection | None = None

    def start(self, hear: Listener) -> None:
        """Begin to notify, and to hand over what other servers notify of. A second time does nothing."""
        if not self._threads:
            self._threads = [
                Thread(target=self._send_all, name="asktell-notifier", daemon=True),
                Thread(target=self._listen_always, args=(hear,), name="asktell-listener", daemon=True),
            ]
            for thread in self._threads:
                thread.start()

    def send(self, study_ids: Collection[int]) -> None:
        """Notify the other servers soon."""
        if self._threads:
            with self._gate:
                self._waiting.update(study_ids)
                self._gate.notify()

    def close(self) -> None:
        """Send what waits, then end both threads and the connections."""
        with self._gate:
            self._closed.set()
            self._gate.notify()
        for thread in self._threads:
            thread.join()
        self._engine.dispose()

    def _send_all(self) -> None:
        while not self._closed.is_set():
            self._notify(self._gathered())
        # Wakes our own listener, whose wait nothing else ends.
        self._notify(self._gathered() or {0})
        self._drop_kept()

    def _gathered(self) -> set[int]:
        with self._gate:
            self._gate.wait_for(lambda: self._waiting or self._closed.is_set())
        self._closed.wait(GATHERING)
        with self._gate:
            gathered, self._waiting = self._waiting, set()
            return gathered

    def _notify(self, study_ids: Collection[int]) -> None:
        if not study_ids:
            return
        try:
            self._send_over_kept(list(payloads(self._sender, sorted(study_ids))))
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread must live on
            log.warning("notification_lost", error=str(error))
            self._closed.wait(RECONNECT_PAUSE)

    def _send_over_kept(self, texts: Sequence[str]) -> None:
        """Send over the connection that was kept, and if that turns out to be broken once more over another, which is then kept."""
        if self._kept is not None:
            try:
                self._send_over(self._kept, texts)
            except DBAPIError:
                self._drop_kept()
            else:
                return
        self._kept = self._engine.connect()
        self._send_over(self._kept, texts)

    def _send_over(self, connection: Connection, texts: Sequence[str]) -> None:
        for text in texts:
            connection.execute(_NOTIFY, {"payload": text})

    def _drop_kept(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _listen_always(self, hear: Listener) -> None:
        while not self._closed.is_set():
            try:
                self._listen(hear)
            except Exception as error:  # noqa: BLE001 - whatever it is, the thread must live on
                log.warning("listener_lost", error=str(error))
                self._closed.wait(RECONNECT_PAUSE)

    def _listen(self, hear: Listener) -> None:
        with self._engine.connect() as connection:
            try:
                connection.exec_driver_sql(f"LISTEN {CHANNEL}")
                driver: Any = connection.connection.driver_connection
                while not self._closed.is_set():
                    for notification in driver.notifies(timeout=LISTEN_TURN, stop_after=1):
                        if ids := self._of_others(notification.payload):
                            hear(ids)
            finally:
                # It listens: nobody else may get it from the pool.
                connection.invalidate()

    def _of_others(self, payload: str) -> Sequence[int]:
        """The ids in a notification; none in our own, which our listeners know."""
        sender, _, ids = payload.partition(":")
        return () if sender == self._sender else [int(each) for each in ids.split(",")]


def payloads(sender: str, study_ids: Sequence[int]) -> Iterator[str]:
    """Notifications that PostgreSQL takes: who sends, and the ids."""
    for start in range(0, len(study_ids), IDS_A_PAYLOAD):
        yield f"{sender}:{','.join(map(str, study_ids[start : start + IDS_A_PAYLOAD]))}"
