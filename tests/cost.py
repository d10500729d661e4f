"""What a step costs the databases of this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy import Connection, Engine, event


@dataclass
class Cost:
    """What was sent to the database: statements, but those that begin and end transactions, and commits of what was written."""

    statements: int = 0
    commits: int = 0
    _writing: set[int] = field(default_factory=set)

    def note(self, connection: Connection, cursor: object, statement: str, *rest: object) -> None:
        if not statement.startswith(("BEGIN", "SAVEPOINT", "RELEASE", "ROLLBACK")):
            self.statements += 1
            if not statement.startswith("SELECT"):
                self._writing.add(id(connection))

    def commit(self, connection: Connection) -> None:
        self.commits += id(connection) in self._writing
        self._writing.discard(id(connection))

    def rollback(self, connection: Connection) -> None:
        self._writing.discard(id(connection))


@contextmanager
def counted() -> Iterator[Cost]:
    """The cost of what happens in the block."""
    cost = Cost()
    listeners = {"before_cursor_execute": cost.note, "commit": cost.commit, "rollback": cost.rollback}
    for name, listener in listeners.items():
        event.listen(Engine, name, listener)
    try:
        yield cost
    finally:
        for name, listener in listeners.items():
            event.remove(Engine, name, listener)
