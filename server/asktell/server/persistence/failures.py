"""What the database's errors mean."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from asktell.server.domain.errors import DATABASE_UNAVAILABLE, STUDY_BUSY, Unavailable

# serialization_failure and deadlock_detected: PostgreSQL has rolled back, even if it says so in answer to COMMIT.
_ROLLED_BACK = {"40001", "40P01"}
_UNIQUE_VIOLATION = "23505"
_LOCK_NOT_AVAILABLE = "55P03"
# read_only_sql_transaction: the server became a standby, or sessions that begin now are read-only.
_READ_ONLY = "25006"
_INSUFFICIENT_PRIVILEGE = "42501"

LEAVE_READ_ONLY = "connect to the primary, and set default_transaction_read_only for neither the database nor the role"
GRANT = "grant the role USAGE on the schema, and SELECT, INSERT, UPDATE and DELETE on its tables"
_REMEDIES = {_READ_ONLY: LEAVE_READ_ONLY, _INSUFFICIENT_PRIVILEGE: GRANT}
_SQLITE_TAKEN = {sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_UNIQUE}


def taken(error: IntegrityError) -> bool:
    """Whether a key is there already, rather than another constraint violated."""
    return _sqlstate(error) == _UNIQUE_VIOLATION or getattr(error.orig, "sqlite_errorcode", None) in _SQLITE_TAKEN


def rolled_back(error: DBAPIError) -> bool:
    """Whether the database says that it has undone the transaction."""
    return _sqlstate(error) in _ROLLED_BACK


def locked_out(error: DBAPIError) -> bool:
    """Whether the transaction waited for a row's lock until its time was up."""
    return _sqlstate(error) == _LOCK_NOT_AVAILABLE


def transient(error: BaseException) -> bool:
    """Whether the database failed rather than the statement: before a commit, the transaction can be run again."""
    # Waiting for a lock once more would keep a thread from all other studies.
    if not isinstance(error, DBAPIError) or locked_out(error):
        return False
    return isinstance(error, OperationalError) or error.connection_invalidated or read_only(error)


def read_only(error: DBAPIError) -> bool:
    """Whether the database takes no writes over this connection."""
    return _sqlstate(error) == _READ_ONLY


def forbidden(error: DBAPIError) -> bool:
    """Whether the server's role lacks a privilege, which only the database's operator can give it."""
    return _sqlstate(error) == _INSUFFICIENT_PRIVILEGE


def words(error: BaseException) -> str:
    """What the database's driver said, in one line. The server's own words are in it, the statement's parameters are not."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]


def unavailable(error: BaseException) -> Unavailable:
    """The error for callers, with what the database's operator is to do about it where that is known."""
    remedy = _REMEDIES.get(_sqlstate(error) or "") if isinstance(error, DBAPIError) else None
    advice = f"; {remedy}" if remedy else ""
    return Unavailable(f"the database cannot be used now: {words(error)}{advice}", reason=DATABASE_UNAVAILABLE)


def busy() -> Unavailable:
    """The error for callers whose transaction was locked out."""
    return Unavailable(
        "the study is busy: another transaction has kept it locked for too long; try again", reason=STUDY_BUSY
    )


def _sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)
