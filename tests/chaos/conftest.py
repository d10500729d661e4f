"""Processes that end with their test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Processes, migrate


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Starts servers and workers, and ends them all."""
    with Processes(tmp_path) as started:
        yield started


@pytest.fixture
def sqlite_file(tmp_path: Path) -> str:
    """Where a new SQLite database may be."""
    return str(tmp_path / "asktell.db")


@pytest.fixture
def migrated_url(postgres_url: str) -> str:
    """The address of a new PostgreSQL database with the schema."""
    migrate(postgres_url)
    return postgres_url
