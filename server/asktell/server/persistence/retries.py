"""What the log says of transactions that are run again."""

from __future__ import annotations

import structlog
from sqlalchemy.exc import DBAPIError
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

from asktell.server.application.sparing import Sparing
from asktell.server.persistence.failures import words

log = structlog.get_logger("asktell.database")

_retries = Sparing()


def note_retries() -> None:
    """Log what is tried again as `database_retry`, once a minute for each kind of error, at info: what comes of it is said by itself.

    Only for a process that is a server's own: there is one such hook for all in a process that use stamina.
    """
    set_on_retry_hooks([_note])


def _note(details: RetryDetails) -> None:
    error = details.caused_by
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    if retries := _retries.count(type(cause).__name__):
        log.info("database_retry", reason=words(error), kind=type(cause).__name__, retries=retries)
