"""Hints: what a policy leaves in a study for its later decisions."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import create_engine, text

from asktell.server.application.ports import NewStudy, Request
from asktell.server.domain.metric import Goal, Objective
from asktell.server.domain.policy import MAX_HINT
from asktell.server.domain.space import Float, SearchSpace
from asktell.server.domain.study import Budget, StudyName, StudySpec
from asktell.server.persistence.address import database_url
from asktell.server.persistence.store import SqlStore

NAME = StudyName("digits", "first")
ELSEWHERE = StudyName("digits", "second")
SPEC = StudySpec(
    space=SearchSpace((Float(name="x", low=0.0, high=1.0),)), objectives=(Objective("y", Goal.MINIMIZE),), policy="gp"
)
EVERY_BYTE = bytes(range(256))


async def create(store: SqlStore, name: StudyName = NAME, *, policy: str = "gp") -> int:
    new = NewStudy(name=name, spec=replace(SPEC, policy=policy), seed=0, budget=Budget(), labels={})
    study = await store.write(lambda tx: tx.insert_study(new))
    assert study is not None
    return study.id


async def save(store: SqlStore, study_id: int, hint: bytes, *, policy: str = "gp") -> None:
    await store.write(lambda tx: tx.save_hint(study_id, policy, hint))


async def found(store: SqlStore, name: StudyName = NAME) -> bytes:
    return (await store.read(lambda tx: tx.find_study(name))).hint


def stored(address: str) -> list[tuple[str, bytes]]:
    """The policies and hints of all studies, read past the store."""
    engine = create_engine(database_url(address))
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT policy, hint FROM policy_hints ORDER BY study_id, policy"))
        hints = [(policy, bytes(hint)) for policy, hint in rows]
    engine.dispose()
    return hints


async def test_a_study_begins_without_a_hint(store):
    await create(store)
    assert await found(store) == b""


@pytest.mark.parametrize("hint", [EVERY_BYTE, b"\0", EVERY_BYTE * (MAX_HINT // 256)])
async def test_a_hint_comes_back_to_the_byte(store, hint):
    study_id = await create(store)
    await save(store, study_id, hint)
    assert await found(store) == hint


async def test_a_later_hint_takes_the_place_of_the_earlier(store, address):
    study_id = await create(store)
    await save(store, study_id, b"earlier")
    await save(store, study_id, b"later")
    assert await found(store) == b"later"
    assert stored(address) == [("gp", b"later")]


async def test_a_hint_stays_with_its_study(store):
    first, _ = await create(store), await create(store, ELSEWHERE)
    await save(store, first, b"of the first")
    assert await found(store, ELSEWHERE) == b""


async def test_a_hint_stays_with_its_policy(store):
    study_id = await create(store)
    for policy in ("auto", "g", "gp-botorch", "GP"):
        await save(store, study_id, policy.encode(), policy=policy)
    assert await found(store) == b""
    await save(store, study_id, b"gp")
    assert await found(store) == b"gp"


async def test_hints_of_several_policies_hide_neither_the_study_nor_its_reply(store):
    study_id = await create(store)
    request = Request("ask", "r", "f")
    now = (await store.read(lambda tx: tx.find_study(NAME))).now
    await store.write(lambda tx: tx.save_replies(study_id, [(request, b"reply")], now=now))
    for policy in ("auto", "gp", "random"):
        await save(store, study_id, policy.encode(), policy=policy)
    seen = await store.read(lambda tx: tx.find_study(NAME, request=request))
    assert (seen.study.id, seen.replay.response, seen.hint) == (study_id, b"reply", b"gp")


async def test_a_hint_goes_with_its_study(store, address):
    first, second = await create(store), await create(store, ELSEWHERE)
    await save(store, first, b"of the first")
    await save(store, second, b"of the second")
    await store.write(lambda tx: tx.delete_study(NAME))
    assert stored(address) == [("gp", b"of the second")]
    await create(store)
    assert await found(store) == b"", "a study made anew under the name begins without"


async def test_a_hint_is_undone_with_its_transaction(store, address):
    study_id = await create(store)
    await save(store, study_id, b"before")

    def fail(tx):
        tx.save_hint(study_id, "gp", b"undone")
        raise RuntimeError("too late")

    with pytest.raises(RuntimeError, match="too late"):
        await store.write(fail)
    assert stored(address) == [("gp", b"before")]
