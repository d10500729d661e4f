"""A server that breaks its word, for negative controls: `python -m tests.chaos.broken_server serve ...`.

What it does wrong is in the environment variable of `VARIABLE`: it keeps no replies for repeated calls, or rolls a share of its transactions
on PostgreSQL back, but for its first ones, and says that they are stored. A siege that finds nothing here is blind.
"""

from __future__ import annotations

import os
import random
import sys
from itertools import count

from sqlalchemy import Connection

from asktell.cli import main
from asktell.server.persistence import pooled
from asktell.server.persistence.transaction import SqlTransaction

VARIABLE = "ASKTELL_TEST_BREACH"
FORGET, PRETEND = "forget", "pretend"
SHARE = 0.05
HONEST = 20
"""So many transactions are stored first: without its study there is no siege."""
PROGRAM = (sys.executable, "-m", "tests.chaos.broken_server")

_commit, _made = pooled._commit, count()


def _pretend_to_commit(connection: Connection) -> None:
    if next(_made) >= HONEST and random.random() < SHARE:
        connection.rollback()
    else:
        _commit(connection)


if __name__ == "__main__":
    if os.environ[VARIABLE] == FORGET:
        SqlTransaction.save_replies = lambda *_, **__: None
    else:
        pooled._commit = _pretend_to_commit
    main()
