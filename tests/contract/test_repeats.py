"""A copy of a call that waited for the first one: what it hears is the first one's reply."""

from __future__ import annotations

import asyncio
import threading

from sqlalchemy import create_engine, text

from asktell.server.application.batch import Batch
from asktell.server.application.clerk import Clerk
from asktell.server.application.ports import Request
from asktell.server.application.tell import Failed, Result, Tell, tell
from asktell.server.persistence.address import database_url
from asktell.server.persistence.store import open_store
from tests.contract.test_clerk import NAME, create

PATIENCE = 60.0
WAITING = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")


def failed(trial, request):
    """Told again without its reply it would be refused: the first has queued the trial."""
    result = Result(number=1, lease_token=trial.lease.token, outcome=Failed("preempted", retry=True))
    return tell(Tell(study=NAME, results=[result], request=request), pack=lambda told: b"the first one's")


async def test_on_postgresql_a_copy_that_waited_while_the_first_was_stored_gets_its_reply(migrated_url):
    here, there = open_store(migrated_url), open_store(migrated_url)
    (trial,) = await create(here, active=1)
    change = failed(trial, Request("Tell", "r", "f"))
    made, on = threading.Event(), threading.Event()

    def make_and_hold(tx):
        outcomes = Batch(NAME, [change])(tx)
        made.set()
        on.wait(PATIENCE)
        return outcomes

    first = asyncio.create_task(here.write(make_and_hold))
    assert await asyncio.to_thread(made.wait, PATIENCE)
    copy = asyncio.create_task(Clerk(there).make(change))
    engine = create_engine(database_url(migrated_url))
    try:
        async with asyncio.timeout(PATIENCE):
            while not await asyncio.to_thread(waiting, engine):
                await asyncio.sleep(0.01)
    finally:
        on.set()
        engine.dispose()
    assert [await copy] == await first == [b"the first one's"]
    for store in (here, there):
        await store.close()


def waiting(engine):
    """How many transactions wait for a lock."""
    with engine.connect() as connection:
        return connection.execute(WAITING).scalar_one()
