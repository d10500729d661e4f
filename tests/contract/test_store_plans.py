"""How PostgreSQL goes about the statements of a tell: by keys, where what it expects of parameters would have it walk over a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from sqlalchemy import Connection, Executable, text
from sqlalchemy.sql import ClauseElement

from asktell.server.persistence import statements
from asktell.server.persistence.address import database_url
from asktell.server.persistence.engines import postgresql_writer
from asktell.server.persistence.membership import rows_parameter
from asktell.server.persistence.store import LOCK_TIMEOUT

TRIALS = 5_000
"""Few enough that PostgreSQL would rather read all of them than a hundred by their keys."""
FILL_STUDIES = """
    INSERT INTO studies (project, name, spec, seed, state, budget, labels, next_number, change_seq, create_time, update_time)
    SELECT 'p', 's' || i, '', 1, 'active', '', '', 1, 1, now(), now() FROM generate_series(1, 100) AS i
"""
FILL_TRIALS = """
    INSERT INTO trials (
        study_id, number, state, parameters, origin, metrics, metadata, message, checkpoint_uri, worker_id, nonce, attempt,
        spent_attempts, create_time, change_seq
    )
    SELECT min(studies.id), i, 'active', '', '', '', '', '', '', '', '', 1, 0, now(), i
    FROM studies, generate_series(1, :trials) AS i GROUP BY i
"""
TOLD = {
    "lock": (
        statements.LOCK_IDLE_STUDIES["postgresql"],
        {
            "changing": rows_parameter([("p", f"s{number}", 1) for number in range(1, 65)]),
            "of_method": "",
            "of_request": "",
        },
    ),
    "find": (
        statements.FIND_IDLE_TRIALS["postgresql"],
        {"sought": rows_parameter([(1, number) for number in range(64)])},
    ),
    "update": (statements.UPDATE_TRIALS["postgresql"], {"changed": rows_parameter([(1, 1, *[None] * 15)])}),
}


@pytest.fixture
def connection(migrated_url: str) -> Iterator[Connection]:
    """A connection as a server writes by, to a database with some thousand trials."""
    engine = postgresql_writer(database_url(migrated_url), connections=1, lock_timeout=LOCK_TIMEOUT)
    with engine.connect() as opened:
        opened.execute(text(FILL_STUDIES))
        opened.execute(text(FILL_TRIALS), {"trials": TRIALS})
        opened.execute(text("ANALYZE"))
        yield opened
    engine.dispose()


@pytest.mark.parametrize("name", TOLD)
def test_what_a_tell_reads_and_writes_is_found_by_its_key(connection: Connection, name: str) -> None:
    plan = _plan(connection, *TOLD[name])

    assert "Index Scan" in plan
    assert "Seq Scan" not in plan
    assert "Join" not in plan


def _plan(connection: Connection, statement: Executable, parameters: Mapping[str, str]) -> str:
    assert isinstance(statement, ClauseElement)
    compiled = statement.compile(dialect=connection.dialect)
    values = {**compiled.params, **parameters}
    return "\n".join(connection.exec_driver_sql(f"EXPLAIN {compiled}", values).scalars())
