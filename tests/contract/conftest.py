"""Stores on both databases."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from asktell.server.persistence.migration import migrate
from asktell.server.persistence.store import SqlStore, open_store
from tests.postgres import Postgres


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to copy."""
    path = tmp_path_factory.mktemp("migrated") / "asktell.db"
    migrate(str(path))
    return path


@pytest.fixture(scope="session")
def migrated_postgres(postgres: Postgres) -> str:
    """The name of a migrated PostgreSQL database, to copy."""
    name = postgres.create_database()
    migrate(postgres.url(name))
    return name


@pytest.fixture
def sqlite_address(migrated_sqlite: Path, tmp_path: Path) -> str:
    """The address of a new SQLite database with the schema."""
    path = tmp_path / "asktell.db"
    shutil.copy(migrated_sqlite, path)
    return f"sqlite:///{path}"


@pytest.fixture
def postgres_address(postgres: Postgres, migrated_postgres: str) -> Iterator[str]:
    """The address of a new PostgreSQL database with the schema."""
    name = postgres.create_database(template=migrated_postgres)
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest) -> str:
    """The address of a new database with the schema, of either kind."""
    fixture = "sqlite_address" if request.param == "sqlite" else "postgres_address"
    value: str = request.getfixturevalue(fixture)
    return value


@pytest_asyncio.fixture
async def store(address: str) -> AsyncIterator[SqlStore]:
    """An open store on a new database of either kind."""
    opened = open_store(address)
    yield opened
    await opened.close()
