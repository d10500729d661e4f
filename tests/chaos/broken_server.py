"""A server that breaks its word, for negative controls: `python -m tests.chaos.broken_server serve ...`.

What it does wrong is in the environment variable of `VARIABLE`: it keeps no replies for repeated calls, or rolls a share of its transactions
on PostgreSQL back and says that they are stored. A siege that finds nothing here is blind.
"""

from __future__ import annotations

import os
import random
import sys

from sqlalchemy import Connection

from asktell.cli import main
from asktell.server.persistence import pooled
from asktell.server.persistence.transaction import SqlTransaction

VARIABLE = "ASKTELL_TEST_BREACH"
FORGET, PRETEND = "forget", "pretend"
SHARE = 0.05
PROGRAM = (sys.executable, "-m", "tests.chaos.broken_server")

_commit = pooled._commit


def _pretend_to_commit(connection: Connection) -> None:
    if random.random() < SHARE:
        connection.rollback()
    else:
        _commit(connection)


if __name__ == "__main__":
    if os.environ[VARIABLE] == FORGET:
        SqlTransaction.save_replies = lambda *_, **__: None
    else:
        pooled._commit = _pretend_to_commit
    main()
