"""Where databases may be, and how they come to their schema."""

from __future__ import annotations

import multiprocessing
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from asktell.server.domain.errors import Unavailable
from asktell.server.persistence import address as addresses
from asktell.server.persistence.address import UnusableDatabase, database_url, file_system, require_local
from asktell.server.persistence.exclusive import DatabaseInUse
from asktell.server.persistence.migration import MIGRATIONS, NotMigrated, check_migrated, migrate, newest_revision
from asktell.server.persistence.store import open_store
from asktell.server.persistence.tables import metadata


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database without a schema."""
    if request.param == "sqlite":
        return str(tmp_path / "empty.db")
    url: str = request.getfixturevalue("postgres_url")
    return url


def test_the_migrations_make_the_tables_as_alembic_compares_them(empty):
    migrate(empty)
    engine = create_engine(database_url(empty))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_the_newest_revision_is_alembics_head():
    assert newest_revision() == ScriptDirectory(str(MIGRATIONS)).get_current_head()


def test_the_migrations_make_the_tables_to_the_letter_on_sqlite(tmp_path):
    def schema(path: Path) -> set[str]:
        with sqlite3.connect(path) as connection:
            found = connection.execute(
                "SELECT sql FROM sqlite_master WHERE name NOT LIKE 'alembic%' AND sql IS NOT NULL"
            )
            # A column that was added later stands on the line of the one before it.
            statements = {" ".join(row[0].split()) for row in found}
        connection.close()
        return statements

    migrate(str(tmp_path / "migrated.db"))
    engine = create_engine(f"sqlite:///{tmp_path / 'created.db'}")
    metadata.create_all(engine)
    engine.dispose()
    assert schema(tmp_path / "migrated.db") == schema(tmp_path / "created.db") != set()


def test_the_migrations_make_the_tables_to_the_letter_on_postgresql(postgres):
    names = [postgres.create_database(), postgres.create_database()]
    migrate(postgres.url(names[0]))
    engine = create_engine(database_url(postgres.url(names[1])))
    metadata.create_all(engine)
    engine.dispose()
    migrated, created = (catalogue(postgres.url(name)) for name in names)
    assert migrated == created
    assert len(created) > 50
    for name in names:
        postgres.drop_database(name)


def catalogue(address: str) -> set[tuple[object, ...]]:
    """All columns, indexes and constraints, as PostgreSQL spells them."""
    columns = """
        SELECT table_name, column_name, data_type, is_nullable, collation_name, identity_generation, column_default
        FROM information_schema.columns WHERE table_schema = 'public'
    """
    indexes = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'"
    constraints = """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    """
    with psycopg.connect(address) as connection:
        rows = [row for query in (columns, indexes, constraints) for row in connection.execute(query)]
    return {row for row in rows if not any("alembic" in str(part) for part in row)}


def test_migrating_twice_is_migrating_once(empty):
    migrate(empty)
    migrate(empty)
    check_migrated(empty)


def test_replicas_that_migrate_at_once_all_succeed(empty):
    together = threading.Barrier(4)

    def start() -> None:
        together.wait(30)
        migrate(empty)

    with ThreadPoolExecutor(4) as pool:
        for started in [pool.submit(start) for _ in range(4)]:
            started.result()
    check_migrated(empty)


def test_a_database_without_the_schema_names_the_command(empty):
    with pytest.raises(NotMigrated, match="asktell migrate"):
        check_migrated(empty)


def test_a_check_makes_no_file(tmp_path):
    with pytest.raises(NotMigrated):
        check_migrated(str(tmp_path / "new.db"))
    assert list(tmp_path.iterdir()) == []


def test_the_schema_of_a_newer_version_is_accepted_and_kept(tmp_path):
    path = tmp_path / "newer.db"
    migrate(str(path))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    check_migrated(str(path))
    migrate(str(path))
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("9999",)]
    connection.close()


def test_a_server_that_cannot_be_reached_is_unavailable_to_migrations():
    for act in (migrate, check_migrated):
        with pytest.raises(Unavailable, match="refused"):
            act("postgresql://nobody@127.0.0.1:1/nothing")


@pytest.mark.parametrize("spelling", ["{path}", "sqlite:///{path}", "sqlite+pysqlite:///{path}"])
def test_a_file_may_be_named_by_path_or_url(tmp_path, spelling):
    path = tmp_path / "a b%20c?.db" if spelling == "{path}" else tmp_path / "a.db"
    assert database_url(spelling.format(path=path)).database == str(path)


@pytest.mark.parametrize("spelling", ["postgresql://u:p@h/d", "postgres://u:p@h/d", "postgresql+psycopg://u:p@h/d"])
def test_postgresql_means_psycopg_3(spelling):
    url = database_url(spelling)
    assert url.render_as_string(hide_password=False) == "postgresql+psycopg://u:p@h/d"


@pytest.mark.parametrize("memory", ["", ":memory:", "sqlite://", "sqlite:///:memory:", "file::memory:"])
def test_a_database_in_memory_is_refused(memory):
    with pytest.raises(UnusableDatabase, match="in memory"):
        database_url(memory)


@pytest.mark.parametrize(
    "unknown",
    ["mysql://u:hidden@h/d", "postgresql+asyncpg://u:hidden@h/d", "sqlite:///x?mode=memory&uri=true", "://hidden"],
)
def test_any_other_address_is_refused_without_its_password(unknown):
    with pytest.raises(UnusableDatabase) as caught:
        database_url(unknown)
    assert "hidden" not in str(caught.value)


def test_a_missing_driver_names_the_extra(monkeypatch):
    monkeypatch.setattr(addresses.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnusableDatabase, match=r"asktell\[postgres\]"):
        database_url("postgresql://h/d")


def test_a_missing_directory_is_named(tmp_path):
    for act in (migrate, open_store):
        with pytest.raises(UnusableDatabase, match="nowhere"):
            act(str(tmp_path / "nowhere" / "a.db"))


def test_the_file_system_is_read_from_the_mounts(tmp_path):
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "21 1 0:999 / /other rw - tmpfs tmpfs rw\n"
        f"36 21 {device >> 8 & 0xFFF}:{device & 0xFF} / /data rw,noatime master:1 - nfs4 server:/export rw\n"
    )
    assert file_system(tmp_path, mounts=mounts) == "nfs4"
    assert file_system(tmp_path, mounts=tmp_path / "missing") is None


def test_a_network_file_system_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(addresses, "file_system", lambda path: "nfs4")
    with pytest.raises(UnusableDatabase, match="nfs4"):
        require_local(tmp_path / "a.db")


async def test_a_second_server_on_one_file_is_refused_until_the_first_has_closed(sqlite_address):
    first = open_store(sqlite_address)
    with pytest.raises(DatabaseInUse, match="another server"):
        open_store(sqlite_address)
    with multiprocessing.get_context("spawn").Pool(1) as elsewhere:
        assert in_use_for(elsewhere, sqlite_address)
        await first.close()
        assert not in_use_for(elsewhere, sqlite_address)
    await open_store(sqlite_address).close()


def in_use_for(pool: object, address: str) -> bool:
    answer = pool.apply(_in_use, (address,))  # type: ignore[attr-defined]
    return bool(answer)


def _in_use(address: str) -> bool:
    import asyncio

    try:
        store = open_store(address)
    except DatabaseInUse:
        return True
    asyncio.run(store.close())
    return False
