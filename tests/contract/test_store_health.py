"""Whether a store can be used is known of its writes too, and changes back by itself."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql

from asktell.server.application.ports import NewStudy
from asktell.server.domain.errors import Unavailable
from asktell.server.domain.metric import Goal, Objective
from asktell.server.domain.space import Float, SearchSpace
from asktell.server.domain.study import Budget, StudyName, StudySpec
from asktell.server.persistence.store import POSTGRESQL_READERS, POSTGRESQL_WRITERS, SqlStore, open_store
from tests.postgres import Postgres

SPEC = StudySpec(
    space=SearchSpace((Float(name="x", low=0.0, high=1.0),)), objectives=(Objective("loss", Goal.MINIMIZE),)
)
_numbers = itertools.count(1)


async def create(store: SqlStore) -> None:
    """Store something."""
    name = StudyName("digits", f"s{next(_numbers)}")
    new = NewStudy(name=name, spec=SPEC, seed=0, budget=Budget(), labels={})
    assert await store.write(lambda tx: tx.insert_study(new)) is not None


def on_database(address: str, clause: str) -> None:
    """ALTER DATABASE, over a connection that may write."""
    with psycopg.connect(address, autocommit=True, options="-c default_transaction_read_only=off") as connection:
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("ALTER DATABASE {} ").format(name) + sql.SQL(clause))


async def test_a_store_that_works_passes_its_check_and_is_not_changed_by_it(store, address):
    await create(store)
    await store.check()
    await create(store)


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A PostgreSQL that a test may end."""
    server = Postgres()
    server.start()
    yield server
    server.remove()


class TestPostgresql:
    @pytest.fixture
    def address(self, migrated_url: str) -> str:
        return migrated_url

    @pytest.fixture
    def role(self, postgres: Postgres, migrated_url: str) -> Iterator[str]:
        """A role that may read the tables and nothing else."""
        name = f"role_{next(_numbers)}"
        with psycopg.connect(migrated_url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
            connection.execute(
                sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}").format(sql.Identifier(name))
            )
            yield name
            connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))

    @pytest_asyncio.fixture
    async def lowly(self, migrated_url: str, role: str) -> AsyncIterator[SqlStore]:
        """A store of that role's."""
        opened = open_store(migrated_url.replace("postgres@", f"{role}@"))
        yield opened
        await opened.close()

    async def test_a_role_that_may_not_write_is_named_what_it_lacks_until_it_has_it(self, lowly, role, migrated_url):
        with pytest.raises(Unavailable, match=r"lacks .*INSERT on trials, .*grant"):
            await lowly.check()
        with pytest.raises(Unavailable, match="permission denied for table studies; grant"):
            await create(lowly)
        with psycopg.connect(migrated_url) as connection:
            connection.execute(
                sql.SQL("GRANT INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {}").format(sql.Identifier(role))
            )
        await lowly.check()
        await create(lowly)

    async def test_a_check_names_what_was_taken_away_and_nothing_else(self, lowly, role, migrated_url):
        with psycopg.connect(migrated_url, autocommit=True) as connection:
            to = sql.Identifier(role)
            connection.execute(sql.SQL("GRANT INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {}").format(to))
            await lowly.check()
            connection.execute(sql.SQL("REVOKE UPDATE ON measurements FROM {}").format(to))
        with pytest.raises(Unavailable, match="the server's role lacks UPDATE on measurements; grant"):
            await lowly.check()

    async def test_a_database_that_is_read_only_for_a_while_is_used_again(self, migrated_url):
        on_database(migrated_url, "SET default_transaction_read_only = on")
        opened = open_store(migrated_url)
        for _ in range(2):
            with pytest.raises(Unavailable, match="default_transaction_read_only is on"):
                await opened.check()
        with pytest.raises(Unavailable, match="read-only transaction; connect to the primary"):
            await create(opened)
        on_database(migrated_url, "RESET default_transaction_read_only")
        await opened.check()
        for _ in range(2 * POSTGRESQL_WRITERS):
            await create(opened)
        await opened.close()

    async def test_a_refused_write_makes_a_check_look_anew_where_older_connections_may_write(self, store, migrated_url):
        await asyncio.gather(*(store.check() for _ in range(4 * POSTGRESQL_READERS)))
        on_database(migrated_url, "SET default_transaction_read_only = on")
        with pytest.raises(Unavailable, match="read-only"):
            await create(store)
        with pytest.raises(Unavailable, match="default_transaction_read_only is on"):
            await store.check()

    async def test_a_busy_study_is_no_reason_to_fail_a_check(self, store, migrated_url):
        await create(store)
        name = StudyName("digits", f"s{next(_numbers) - 1}")
        with psycopg.connect(migrated_url) as other:
            other.execute("SELECT FROM studies FOR UPDATE")
            waiting = [
                asyncio.create_task(store.write(lambda tx: tx.lock_study(name, changes=1)))
                for _ in range(2 * POSTGRESQL_WRITERS)
            ]
            await store.check()
            assert not any(task.done() for task in waiting)
            other.rollback()
        await asyncio.gather(*waiting)

    async def test_a_standby_is_used_once_it_is_promoted(self, own_postgres):
        opened = open_store(own_postgres.url(own_postgres.create_database(migrated=True)))
        await create(opened)
        own_postgres.crash()
        (own_postgres.directory / "standby.signal").touch()
        own_postgres.start()
        with pytest.raises(Unavailable, match="it is a standby; connect to the primary"):
            await opened.check()
        with pytest.raises(Unavailable, match="read-only transaction"):
            await create(opened)
        own_postgres.run("pg_ctl", "-w", "-D", str(own_postgres.directory), "promote")
        await opened.check()
        await create(opened)
        await opened.close()
