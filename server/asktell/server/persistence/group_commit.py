"""One writer for a SQLite file, whose commits carry many callers' changes: a commit waits for the disk, statements do not."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from asktell.server.domain.errors import Unavailable
from asktell.server.persistence.failures import transient, unavailable
from asktell.server.persistence.transaction import SqlTransaction

T = TypeVar("T")
Outcome = Callable[[], None]

LARGEST_GROUP = 128


class _GroupLost(Exception):
    """SQLite rolled the whole transaction back by itself, as it may when the disk is full or fails."""


@dataclass(frozen=True, slots=True)
class _Job:
    step: Callable[[SqlTransaction], Any]
    future: Future[Any]
    doubt: Callable[[], None]

    def run(self, connection: Connection, changed: set[int]) -> Outcome:
        """Run the step in a savepoint, and note what it changed; the outcome tells the caller, once the group is committed."""
        # Savepoints go straight to the driver: SQLAlchemy's cost a quarter of a step's time.
        driver: Any = connection.connection.driver_connection
        driver.execute("SAVEPOINT step")
        transaction = SqlTransaction(connection, writing=True)
        try:
            result = self.step(transaction)
        except BaseException as error:
            if not driver.in_transaction:
                raise _GroupLost(f"SQLite gave the transaction up: {getattr(error, 'orig', error)}") from error
            driver.execute("ROLLBACK TO step")
            driver.execute("RELEASE step")
            return partial(self.fail, error)
        driver.execute("RELEASE step")
        changed |= transaction.changed
        return partial(self.future.set_result, result)

    def fail(self, error: BaseException) -> None:
        """Tell the caller of its own step's error."""
        self._raise(unavailable(error) if transient(error) else error, cause=error)

    def lose(self, error: Exception) -> None:
        """Tell the caller that the transaction failed that its step was a part of."""
        self._raise(unavailable(error), cause=error)

    def _raise(self, failure: BaseException, *, cause: BaseException) -> None:
        if failure is not cause:
            failure.__cause__ = cause
            self.doubt()
        self.future.set_exception(failure)


class GroupCommit:
    """Runs steps one after another in its thread, in transactions that it shares out among all who wait."""

    def __init__(self, engine: Engine, *, announce: Callable[[Collection[int]], None] = lambda _: None) -> None:
        self._engine = engine
        self._announce = announce
        self.doubt: Callable[[], None] = lambda: None
        """Called, on its thread, after a step has failed because the database did."""
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._gate = Lock()
        self._closed = False
        self._thread = Thread(target=self._work, name="asktell-writer", daemon=True)
        self._thread.start()

    def submit(self, step: Callable[[SqlTransaction], T]) -> Future[T]:
        """The step's result after its commit. A step that raises undoes itself alone; a commit that fails is Unavailable to all in it."""
        future: Future[T] = Future()
        with self._gate:
            if self._closed:
                raise Unavailable("the store is closed", reason="STORE_CLOSED")
            self._jobs.put(_Job(step, future, self.doubt))
        return future

    def close(self) -> None:
        """Finish what was submitted, then stop."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while group := self._next_group():
            # A caller that was cancelled before its turn is left out; after it, the step goes on without it.
            self._commit([job for job in group if job.future.set_running_or_notify_cancel()])

    def _next_group(self) -> list[_Job]:
        """Whoever waits, at least one; empty at the end."""
        group: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            group.append(job)
            if len(group) == LARGEST_GROUP:
                return group
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return group
        if group:
            self._jobs.put(None)
        return group

    def _commit(self, group: list[_Job]) -> None:
        changed: set[int] = set()
        try:
            with self._engine.begin() as connection:
                outcomes = [job.run(connection, changed) for job in group]
        except Exception as error:  # noqa: BLE001 - every caller must hear of it, and the writer must live on
            outcomes = [partial(job.lose, error) for job in group]
        self._announce(changed)
        for outcome in outcomes:
            outcome()
