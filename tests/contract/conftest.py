"""Stores on both databases."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from asktell.server.persistence.migration import migrate
from asktell.server.persistence.store import SqlStore, open_store


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to copy."""
    path = tmp_path_factory.mktemp("migrated") / "asktell.db"
    migrate(str(path))
    return path


@pytest.fixture
def sqlite_address(migrated_sqlite: Path, tmp_path: Path) -> str:
    """The address of a new SQLite database with the schema."""
    path = tmp_path / "asktell.db"
    shutil.copy(migrated_sqlite, path)
    return f"sqlite:///{path}"


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest) -> str:
    """The address of a new database with the schema, of either kind."""
    fixture = "sqlite_address" if request.param == "sqlite" else "migrated_url"
    value: str = request.getfixturevalue(fixture)
    return value


@pytest_asyncio.fixture
async def store(address: str) -> AsyncIterator[SqlStore]:
    """An open store on a new database of either kind."""
    opened = open_store(address)
    yield opened
    await opened.close()
