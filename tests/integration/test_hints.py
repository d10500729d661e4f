"""Hints through the real engine: from replica to replica, lost, spoilt, and without a say in what is chosen."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, text

from asktell.server.application import studies, trials
from asktell.server.application.ask import Answer, Ask
from asktell.server.application.clerk import Clerk
from asktell.server.application.desk import Desk
from asktell.server.application.history import History
from asktell.server.application.tell import Result, Succeeded, Tell, tell
from asktell.server.domain.metric import Goal, MetricValue, Objective
from asktell.server.domain.policy import Decision, SuggestRequest
from asktell.server.domain.space import Categorical, Float, SearchSpace
from asktell.server.domain.study import Budget, StudyName, StudySpec
from asktell.server.domain.trial import Trial, TrialState
from asktell.server.persistence.address import database_url
from asktell.server.persistence.store import SqlStore, open_store
from asktell.server.policies import random_search, registry
from asktell.server.policies.engine import ProcessPoolEngine

KEPT, LOST, SPOILT = (StudyName("p", name) for name in ("kept", "lost", "spoilt"))
SEED = 7
SPEC = StudySpec(
    space=SearchSpace((Float(name="x", low=0.0, high=1.0), Categorical(name="kind", choices=("a", "b", "c")))),
    objectives=(Objective("cost", Goal.MINIMIZE),),
    policy="gp",
    seed=SEED,
)
ENOUGH = 12
"""Finished trials after which `gp` takes its model."""
GARBAGE = b"\x00\xff of a version to come"
NONCES = itertools.count()


def cost(trial: Trial) -> float:
    x, kind = trial.parameters["x"], trial.parameters["kind"]
    assert isinstance(x, float)
    return (x - 0.3) ** 2 + {"a": 0.5, "b": 0.0, "c": 1.0}[str(kind)]


@dataclass
class Watched:
    """The engine, with the requests that it was given."""

    engine: ProcessPoolEngine
    requests: list[SuggestRequest] = field(default_factory=list)

    def policies(self) -> Collection[str]:
        return self.engine.policies()

    async def suggest(self, request: SuggestRequest) -> Decision:
        self.requests.append(request)
        return await self.engine.suggest(request)


@dataclass
class Replica:
    """A store, an engine with one process, and what a server does with them."""

    store: SqlStore
    engine: Watched
    desk: Desk

    async def create(self, name: StudyName, *, finished: int = 0) -> None:
        command = studies.CreateStudy(name=name, spec=SPEC, budget=Budget(), drawn_seed=0)
        await self.store.write(lambda tx: studies.create_study(tx, command))
        if finished:
            adding = trials.AddTrials(study=name, trials=_finished(finished), nonces=["n"] * finished)
            await self.store.write(lambda tx: trials.add_trials(tx, adding, pack=lambda added: b""))

    async def ask(self, name: StudyName) -> Trial:
        given: list[Answer] = []

        def pack(answer: Answer) -> bytes:
            given.append(answer)
            return b""

        await self.desk.ask(Ask(study=name, count=1, worker_id="w", deadline=time.monotonic() + 100), pack=pack)
        await self.desk.settle()
        (trial,) = given[-1].trials
        return trial

    async def tell(self, name: StudyName, trial: Trial) -> None:
        outcome = Succeeded({"cost": MetricValue(cost(trial))})
        result = Result(number=trial.number, lease_token=trial.lease.token, outcome=outcome)
        await Clerk(self.store).make(tell(Tell(study=name, results=[result]), pack=lambda told: b""))


def _finished(count: int) -> Sequence[trials.NewTrial]:
    return [
        trials.NewTrial(
            parameters={"x": number / count, "kind": "abc"[number % 3]},
            state=TrialState.SUCCEEDED,
            metrics={"cost": MetricValue(float(number % 5))},
        )
        for number in range(1, count + 1)
    ]


@asynccontextmanager
async def replica(database: str, compute: Callable[[SuggestRequest], Decision]) -> AsyncIterator[Replica]:
    async with AsyncExitStack() as stack:
        store = open_store(database)
        stack.push_async_callback(store.close)
        engine = ProcessPoolEngine(workers=1, compute=compute)
        stack.push_async_callback(engine.close)
        watched = Watched(engine)
        desk = Desk(store=store, engine=watched, history=History(store), new_nonce=lambda: f"n{next(NONCES)}")
        yield Replica(store, watched, desk)


@dataclass(frozen=True, slots=True)
class Noted:
    """What a computation was given."""

    number: int
    hint: bytes


def leaving(record: Path) -> Callable[[SuggestRequest], Decision]:
    """A policy that notes its requests in a file, chooses by chance, and leaves the number of its first trial as hint."""
    return partial(note, record)


def note(record: Path, request: SuggestRequest) -> Decision:
    if request.seed == SEED:
        with record.open("a") as file:
            file.write(json.dumps([request.next_number, request.hint.hex()]) + "\n")
    return replace(random_search.suggest(request), hint=f"of {request.next_number}".encode())


def noted(record: Path) -> list[Noted]:
    return [Noted(number, bytes.fromhex(hint)) for number, hint in map(json.loads, record.read_text().splitlines())]


@pytest.fixture
def rows(migrated_url: str) -> Iterator[Connection]:
    """A connection past the stores to a migrated PostgreSQL database."""
    engine = create_engine(database_url(migrated_url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def hints(rows: Connection) -> dict[str, bytes]:
    """The stored hints by study."""
    found = rows.execute(text("SELECT name, hint FROM studies JOIN policy_hints ON id = study_id WHERE policy = 'gp'"))
    return {name: bytes(hint) for name, hint in found}


def change_hint(rows: Connection, name: StudyName, hint: bytes | None) -> None:
    """Delete a study's hint, or put another in its place."""
    which = {"name": name.study, "hint": hint}
    where = "WHERE study_id = (SELECT id FROM studies WHERE name = :name)"
    verb = "DELETE FROM policy_hints" if hint is None else "UPDATE policy_hints SET hint = :hint"
    rows.execute(text(f"{verb} {where}"), which)


async def test_a_hint_passes_from_replica_to_replica_and_into_no_other_study(migrated_url, rows, tmp_path):
    record = tmp_path / "record"
    compute = leaving(record)
    async with replica(migrated_url, compute) as first, replica(migrated_url, compute) as second:
        for name in (KEPT, LOST):
            await first.create(name, finished=ENOUGH)
        for asking in (first, second, first, first, second):
            trial = await asking.ask(KEPT)
            assert not trial.origin.fallback
            await asking.tell(KEPT, trial)
        asked = list(range(ENOUGH + 1, ENOUGH + 6))
        assert [each.number for each in noted(record)] == asked
        assert [each.hint for each in noted(record)] == [b"", *(f"of {number}".encode() for number in asked[:-1])]
        await second.ask(LOST)
        assert noted(record)[-1] == Noted(ENOUGH + 1, b"")
    assert hints(rows) == {"kept": f"of {asked[-1]}".encode(), "lost": f"of {ENOUGH + 1}".encode()}


async def test_a_lost_hint_is_missed_by_nobody_and_written_anew(migrated_url, rows, tmp_path):
    record = tmp_path / "record"
    async with replica(migrated_url, leaving(record)) as home:
        await home.create(LOST, finished=ENOUGH)
    for _ in range(3):
        change_hint(rows, LOST, None)
        # One that remembers no hint of its own.
        async with replica(migrated_url, leaving(record)) as home:
            await home.ask(LOST)
    assert [each.hint for each in noted(record)] == [b"", b"", b""]
    assert hints(rows) == {"lost": f"of {ENOUGH + 3}".encode()}


async def test_what_is_stored_reaches_the_policy_whatever_it_is(migrated_url, rows, tmp_path):
    record = tmp_path / "record"
    async with replica(migrated_url, leaving(record)) as home:
        await home.create(SPOILT, finished=ENOUGH)
        await home.ask(SPOILT)
        change_hint(rows, SPOILT, GARBAGE)
        assert not (await home.ask(SPOILT)).origin.fallback
    assert [each.hint for each in noted(record)] == [b"", GARBAGE]


def chosen(trial: Trial) -> Any:
    """What a policy decided, to the last bit, without the time that it took."""
    origin = trial.origin
    return repr(
        (trial.parameters, origin.method, origin.fallback, origin.predictions, origin.acquisition, origin.incumbent)
    )


async def test_the_default_policy_chooses_the_same_with_its_hints_without_them_and_with_garbage(migrated_url, rows):
    """Two asks between the tells: the second of them could start from the first one's fit."""
    asked: dict[StudyName, list[str]] = {KEPT: [], LOST: [], SPOILT: []}
    async with replica(migrated_url, registry.suggest) as home:
        for name in asked:
            await home.create(name)
        for _ in range(ENOUGH):
            for name in asked:
                pair = []
                for _ in range(2):
                    change_hint(rows, LOST, None)
                    change_hint(rows, SPOILT, GARBAGE)
                    pair.append(await home.ask(name))
                asked[name] += map(chosen, pair)
                for trial in pair:
                    await home.tell(name, trial)
        assert asked[LOST] == asked[KEPT]
        assert asked[SPOILT] == asked[KEPT]
        assert sum("Prediction(" in each for each in asked[KEPT]) >= ENOUGH, "most were chosen by a model"
        requests = home.engine.requests
    brought = [request.hint for request in requests if request.hint]
    assert GARBAGE in brought
    assert len(set(brought) - {GARBAGE}) > 1, "the study that kept its hints brought one after another"
