"""Whatever is set for a PostgreSQL database, what is acknowledged is durable and what is read is what was written."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import text

from asktell.server.application.ports import NewStudy
from asktell.server.domain.metric import Goal, Measurement, MetricValue, Objective
from asktell.server.domain.space import Float, SearchSpace
from asktell.server.domain.study import Budget, Study, StudyName, StudySpec
from asktell.server.domain.trial import Origin, Trial, TrialState
from asktell.server.persistence.address import UnusableDatabase
from asktell.server.persistence.migration import check_migrated, migrate
from asktell.server.persistence.store import POSTGRESQL_WRITERS, SqlStore, open_store
from tests.postgres import Postgres
from tests.processes import until

NAME = StudyName("digits", "first")
SPEC = StudySpec(
    space=SearchSpace((Float(name="x", low=0.0, high=1.0),)), objectives=(Objective("loss", Goal.MINIMIZE),)
)
SUM = 0.1 + 0.2
"""Not 0.3."""


@asynccontextmanager
async def opened(address: str) -> AsyncIterator[SqlStore]:
    store = open_store(address)
    yield store
    await store.close()


def choose(address: str, setting: str, value: str) -> None:
    """Set it for the database, for whoever connects from now on."""
    with psycopg.connect(address, autocommit=True) as connection:
        name, to = sql.Identifier(connection.info.dbname), sql.Literal(value)
        connection.execute(sql.SQL("ALTER DATABASE {} SET {} = {}").format(name, sql.Identifier(setting), to))


def setting_of(address: str, name: str) -> str:
    """As a client other than asktell finds it."""
    with psycopg.connect(address) as connection:
        row = connection.execute(sql.SQL("SHOW {}").format(sql.Identifier(name))).fetchone()
    assert row is not None
    return str(row[0])


def showing(run: Callable[..., Awaitable[str]], name: str) -> Awaitable[str]:
    """A setting as the store's own connections have it."""
    return run(lambda tx: tx._connection.execute(text(f"SHOW {name}")).scalar_one())


async def create(store: SqlStore, **labels: str) -> Study:
    study = await store.write(
        lambda tx: tx.insert_study(NewStudy(name=NAME, spec=SPEC, seed=0, budget=Budget(), labels=labels))
    )
    assert study is not None
    return study


def add_trial(tx, worker_id: str = "w") -> int:
    locked = tx.lock_study(NAME, changes=1, new_trials=1)
    trial = Trial(
        number=locked.first_number,
        state=TrialState.QUEUED,
        parameters={"x": 0.5},
        origin=Origin(policy="random"),
        nonce="n",
        sequence=locked.first_sequence,
        create_time=locked.now,
    )
    tx.insert_trials(locked.study.id, [replace(trial, worker_id=worker_id)])
    return trial.number


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A PostgreSQL that a test may crash, and whose process that writes commits left for later sleeps for longer than the test."""
    server = Postgres(settings={"wal_writer_delay": "10s"})
    server.start()
    yield server
    server.remove()


async def test_an_acknowledged_write_outlives_a_crash_of_a_database_with_synchronous_commit_off(own_postgres):
    address = own_postgres.url(own_postgres.create_database(migrated=True))
    choose(address, "synchronous_commit", "off")
    async with opened(address) as store:
        study = await create(store)
        number = await store.write(add_trial)
        own_postgres.crash()
    own_postgres.start()
    async with opened(address) as store:
        assert set(await store.read(lambda tx: tx.find_trials(study.id, [number]))) == {number}


@pytest.mark.parametrize("chosen", ["on", "local", "remote_write", "remote_apply"])
async def test_a_synchronous_commit_that_is_not_off_stays_as_it_was_set(migrated_url, chosen, caplog):
    choose(migrated_url, "synchronous_commit", chosen)
    async with opened(migrated_url) as store:
        assert await showing(store.write, "synchronous_commit") == chosen
    assert "synchronous_commit" not in caplog.text


async def test_synchronous_commit_off_is_overruled_with_one_warning(migrated_url, caplog):
    choose(migrated_url, "synchronous_commit", "off")
    check_migrated(migrated_url)
    async with opened(migrated_url) as store:
        for _ in range(POSTGRESQL_WRITERS):
            assert await showing(store.write, "synchronous_commit") == "on"
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "synchronous_commit is off" in warning.getMessage()


async def test_a_configuration_that_is_loaded_later_takes_no_durability_from_open_connections(own_postgres):
    address = own_postgres.url(own_postgres.create_database(migrated=True))
    async with opened(address) as store:
        assert await showing(store.write, "synchronous_commit") == "on"
        own_postgres.execute(sql.SQL("ALTER SYSTEM SET synchronous_commit = off").format())
        own_postgres.execute(sql.SQL("SELECT pg_reload_conf()").format())
        until(lambda: setting_of(address, "synchronous_commit") == "off")
        assert await showing(store.write, "synchronous_commit") == "on"


async def test_what_the_address_sets_joins_what_asktell_sets(migrated_url):
    async with opened(f"{migrated_url}?options={quote('-c search_path=public,pg_temp')}") as store:
        for run in (store.read, store.write):
            assert await showing(run, "search_path") == "public,pg_temp"
            assert await showing(run, "lock_timeout") == "2s"
            assert await showing(run, "idle_in_transaction_session_timeout") == "15s"


async def test_what_the_address_sets_wins(migrated_url):
    several = f"options={quote('-c lock_timeout=7s')}&options={quote('-c TimeZone=Asia/Kathmandu')}"
    async with opened(f"{migrated_url}?{several}") as store:
        assert await showing(store.write, "lock_timeout") == "7s"
        assert await showing(store.write, "timezone") == "Asia/Kathmandu"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("extra_float_digits", "0"),
        ("extra_float_digits", "-15"),
        ("datestyle", "German, DMY"),
        ("client_encoding", "LATIN1"),
        ("client_encoding", "SQL_ASCII"),
        ("timezone", "Asia/Kathmandu"),
        ("bytea_output", "escape"),
        ("standard_conforming_strings", "off"),
        ("intervalstyle", "sql_standard"),
        ("transform_null_equals", "on"),
    ],
)
async def test_no_setting_of_the_database_changes_what_is_stored(migrated_url, setting, value):
    choose(migrated_url, setting, value)
    check_migrated(migrated_url)
    hint, worker = bytes(range(256)), "w\\'ö中\N{GRINNING FACE}"
    async with opened(migrated_url) as store:
        study = await create(store, ключ="знач")
        number = await store.write(lambda tx: add_trial(tx, worker))
        measured = {number: [Measurement(1, {"loss": MetricValue(SUM, -SUM)})]}
        await store.write(lambda tx: tx.record_measurements(study.id, measured, now=study.create_time))
        await store.write(lambda tx: tx.save_hint(study.id, SPEC.policy, hint))
        found = await store.read(lambda tx: tx.find_study(NAME))
        (trial,) = (await store.read(lambda tx: tx.find_trials(study.id, [number]))).values()
        (measurement,) = await store.read(lambda tx: tx.list_measurements(study.id, number))
    assert found is not None
    assert (found.study.labels, found.study.create_time, found.hint) == ({"ключ": "знач"}, study.create_time, hint)
    assert trial.worker_id == worker
    assert (measurement.metrics, measurement.create_time) == (measured[number][0].metrics, study.create_time)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_keep_every_text_is_refused(postgres, encoding):
    name = f"test_{encoding.lower()}"
    create = "CREATE DATABASE {} ENCODING {} LOCALE 'C' TEMPLATE template0"
    postgres.execute(sql.SQL(create).format(sql.Identifier(name), sql.Literal(encoding)))
    for act in (migrate, check_migrated):
        with pytest.raises(UnusableDatabase, match=f"encoding {encoding} .* ENCODING 'UTF8'"):
            act(postgres.url(name))
    postgres.drop_database(name)


def test_an_address_that_asks_for_other_forms_than_asktell_reads_is_refused(migrated_url, monkeypatch):
    for query, named in (
        ("client_encoding=latin1", "client_encoding LATIN1"),
        ("options=-cdatestyle%3DSQL", "PGDATESTYLE"),
    ):
        with pytest.raises(UnusableDatabase, match=named):
            check_migrated(f"{migrated_url}?{query}")
    monkeypatch.setenv("PGDATESTYLE", "German")
    with pytest.raises(UnusableDatabase, match="datestyle is German"):
        check_migrated(migrated_url)
