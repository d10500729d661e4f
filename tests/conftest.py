"""Fixtures for all tests."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.postgres import Postgres
from tests.processes import Processes, Server

# As root, a PostgreSQL is controlled from a fork, in which gRPC's own fork handlers crash now and then while its threads are at work.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# A shell has what it runs in the background ignore Ctrl-C, and all that is started from there, for which tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more about the machine than about the code. The same code gets the same examples, so that a failure is the
# code's and comes again; `make fuzz` looks for new ones.
settings.register_profile("asktell", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile("fuzz", settings.get_profile("asktell"), derandomize=False)
settings.load_profile("asktell")


@pytest.fixture(autouse=True)
def levels_of_logs() -> Iterator[None]:
    """A command that a test runs in this process sets the level of its log; the next test finds it as it was."""
    loggers = [logging.getLogger(name) for name in ("", "asktell", "asktell.client.retries")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server for the session, started by the first test that asks for it. Who needs to crash one starts their own."""
    server = Postgres()
    server.start()
    yield server
    server.remove()


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """The address of a new and empty PostgreSQL database."""
    name = postgres.create_database()
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture
def migrated_url(postgres: Postgres) -> Iterator[str]:
    """The address of a new PostgreSQL database with the schema."""
    name = postgres.create_database(migrated=True)
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture
def sqlite_file(tmp_path: Path) -> str:
    """Where a new SQLite database may be."""
    return str(tmp_path / "asktell.db")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on SQLite, shared by all tests that leave it alone: each makes a study of its own, or a project of its own."""
    directory = tmp_path_factory.mktemp("server")
    with Processes(directory) as processes:
        yield processes.serve(str(directory / "asktell.db"))


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Starts servers and workers, and ends them all."""
    with Processes(tmp_path) as started:
        yield started


@pytest.fixture(autouse=True, scope="module")
def _no_server_outlives_its_module() -> Iterator[None]:
    """A server in this process would send statements and hold processes while other tests count them."""
    yield
    searches = sys.modules.get("asktell.integrations.sklearn")
    if searches is not None:
        searches._close_private_client()
    assert "asktell-server" not in {thread.name for thread in threading.enumerate()}, "a client of Client.local is open"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A report that can be sent from one of the tests' processes to the other, whatever was logged: some tests log lone surrogates."""
    report = yield
    report.sections = [(title, text.encode("utf-8", "backslashreplace").decode()) for title, text in report.sections]
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse names of tests that are others in each process: processes that share the tests would not agree on which there are."""
    for item in items:
        if " at 0x" in item.nodeid:
            raise pytest.UsageError(f"{item.nodeid} has an address in its name: give its parameters ids")
