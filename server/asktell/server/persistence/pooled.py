"""Steps on a pool of threads, each in a transaction of its own."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Executor, Future
from contextlib import suppress
from typing import TypeVar

import stamina
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from asktell.server.domain.errors import COMMIT_UNKNOWN, Unavailable
from asktell.server.persistence.failures import (
    busy,
    forbidden,
    locked_out,
    read_only,
    rolled_back,
    transient,
    unavailable,
)
from asktell.server.persistence.transaction import SqlTransaction

T = TypeVar("T")

_ATTEMPTS = 4


class PooledSteps:
    """Runs each step in one transaction, and again if the database gave up before the commit."""

    def __init__(
        self,
        engine: Engine,
        executor: Executor,
        *,
        writing: bool,
        announce: Callable[[Collection[int]], None] = lambda _: None,
        doubt: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._executor = executor
        self._writing = writing
        self._announce = announce
        self._doubt = doubt

    def submit(self, step: Callable[[SqlTransaction], T]) -> Future[T]:
        """The step's result after its commit. Unavailable if the database cannot be used, may or may not have committed, or if the study
        that the step changes stays locked by others: then it is not run again, so that a stuck study costs a thread little.
        """
        try:
            return self._executor.submit(self._run, step)
        except RuntimeError as error:
            raise Unavailable("the store is closed", reason="STORE_CLOSED") from error

    def _run(self, step: Callable[[SqlTransaction], T]) -> T:
        try:
            return self._attempt_repeatedly(step)
        except DBAPIError as error:
            if locked_out(error):
                raise busy() from error
            if read_only(error):
                self._doubt()
            if transient(error) or forbidden(error):
                raise unavailable(error) from error
            raise

    def _attempt_repeatedly(self, step: Callable[[SqlTransaction], T]) -> T:
        for attempt in stamina.retry_context(
            on=transient, attempts=_ATTEMPTS, wait_initial=0.02, wait_max=0.5, wait_jitter=0.05, timeout=None
        ):
            with attempt:
                return self._attempt(step)
        raise AssertionError("the last attempt returns or raises")

    def _attempt(self, step: Callable[[SqlTransaction], T]) -> T:
        with self._engine.connect() as connection:
            transaction = SqlTransaction(connection, writing=self._writing)
            result = step(transaction)
            if not self._writing:
                # What was read is whole. The connection may be gone: PostgreSQL ends transactions that idle while much is unpacked here.
                with suppress(DBAPIError):
                    connection.rollback()
                return result
            try:
                _commit(connection)
            finally:
                # Also after a commit whose fate is unknown: an announcement for nothing costs a read.
                self._announce(transaction.changed)
            return result


def _commit(connection: Connection) -> None:
    try:
        connection.commit()
    except DBAPIError as error:
        if rolled_back(error):
            raise
        # Running the step again could store it twice; the caller's request id makes its own retry safe.
        raise Unavailable(
            "the database was lost during a commit: the change may be stored or not", reason=COMMIT_UNKNOWN
        ) from error
