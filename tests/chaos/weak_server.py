"""A server that is not durable, for negative controls: `python -m tests.chaos.weak_server serve ...`.

Its SQLite runs with `synchronous = NORMAL` and its PostgreSQL with `synchronous_commit = off`, as many services have them. A test of power
cuts that finds no loss here is blind.
"""

from __future__ import annotations

from typing import Any

from asktell.cli import main
from asktell.server.persistence import engines

_prepare = engines._prepare_to_write


def _prepare_weakly(connection: Any, record: object) -> None:
    _prepare(connection, record)
    connection.execute("PRAGMA synchronous = NORMAL")


if __name__ == "__main__":
    engines._prepare_to_write = _prepare_weakly
    engines._COMMIT_DURABLY = "SELECT 'off', set_config('synchronous_commit', 'off', false)"
    main()
