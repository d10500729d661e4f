"""A database that lost its last commits, under replicas that know of them: a standby that took over before it had them, a crash."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from dataclasses import dataclass, field

import psutil
import psycopg
import pytest
import pytest_asyncio
from psycopg import sql
from sqlalchemy import create_engine, delete, insert, select, update

from asktell.server.application import studies, trials
from asktell.server.application.ask import Answer, Ask, Reason
from asktell.server.application.clerk import Clerk
from asktell.server.application.curves import Curves
from asktell.server.application.desk import Desk
from asktell.server.application.history import History
from asktell.server.application.leases import Report, report
from asktell.server.application.speculation import Prepared
from asktell.server.application.tell import Result, Succeeded, Taken, Tell, tell
from asktell.server.domain.curve import Curve
from asktell.server.domain.metric import Goal, Measurement, MetricValue, Objective
from asktell.server.domain.policy import Candidate, Decision, SuggestRequest
from asktell.server.domain.space import Float, SearchSpace
from asktell.server.domain.stopping import Median, StoppingRule
from asktell.server.domain.study import Budget, StudyName, StudySpec
from asktell.server.domain.trial import Origin, Trial, TrialName, TrialState
from asktell.server.persistence import tables
from asktell.server.persistence.address import database_url
from asktell.server.persistence.migration import migrate
from asktell.server.persistence.store import SqlStore, open_store
from tests.postgres import Postgres
from tests.processes import until

NAME = StudyName("p", "s")
LOSS = Objective("y", Goal.MINIMIZE)
IDS = itertools.count()


class Choosing:
    """An engine with a candidate for each number."""

    def policies(self) -> Collection[str]:
        return ["gp"]

    async def suggest(self, request: SuggestRequest) -> Decision:
        numbers = range(request.next_number, request.next_number + request.count)
        return Decision(tuple(Candidate({"x": 1 / number}, Origin(policy="gp")) for number in numbers))

    async def suggest_ahead(self, request: SuggestRequest) -> Decision | None:
        return None


@dataclass
class Replica:
    """What a server keeps in memory, on a store."""

    store: SqlStore
    history: History = field(init=False)
    desk: Desk = field(init=False)
    curves: Curves = field(init=False)

    def __post_init__(self) -> None:
        self.history, self.curves = History(self.store), Curves(self.store)
        self.desk = Desk(
            store=self.store,
            engine=Choosing(),
            history=self.history,
            new_nonce=lambda: f"n{next(IDS)}",
            speculate=True,
        )

    async def ask(self) -> Answer:
        given: list[Answer] = []
        command = Ask(study=NAME, count=1, worker_id="w", deadline=time.monotonic() + 30)
        await self.desk.ask(command, pack=lambda answer: given.append(answer) or b"packed")
        await self.desk.settle()
        return given[-1]

    async def one(self) -> Trial:
        (trial,) = (await self.ask()).trials
        return trial

    async def tell(self, told: Trial, value: float = 1.0) -> None:
        came_to: list[Taken] = []
        outcome = Succeeded({"y": MetricValue(value)})
        command = Tell(study=NAME, results=[Result(number=told.number, lease_token=told.lease.token, outcome=outcome)])
        await Clerk(self.store).make(tell(command, pack=lambda taken: came_to.append(taken) or b""))
        self.desk.told(command, came_to[-1].trials)
        await self.desk.settle()

    async def add(self, *values: float, queued: bool = False) -> None:
        """Trials with such results, or without any, that wait for a worker."""
        state = TrialState.QUEUED if queued else TrialState.SUCCEEDED
        new = [
            trials.NewTrial(parameters={"x": 0.5}, state=state, metrics={} if queued else {"y": MetricValue(value)})
            for value in values
        ]
        adding = trials.AddTrials(study=NAME, trials=new, nonces=[f"n{next(IDS)}" for _ in new])
        await self.store.write(lambda tx: trials.add_trials(tx, adding, pack=lambda added: b""))

    async def best(self) -> list[float]:
        found = await trials.list_optimal_trials(self.history, Choosing(), NAME)
        return [trial.metrics["y"].value for trial in found.trials]

    async def report(self, trial: Trial, step: int, value: float) -> dict[int, Sequence[tuple[int, float]]]:
        """Report, and return the curves that the trial is judged by."""
        command = Report(
            trial=TrialName(NAME, trial.number),
            lease_token=trial.lease.token,
            measurements=[Measurement(step, {"y": MetricValue(value)})],
        )
        taken = await Clerk(self.store).make(report(command))
        curves = await self.curves.read(taken.study, LOSS, incarnation=taken.incarnation)
        return {number: points(curve) for number, curve in curves.items()}


def points(curve: Curve) -> list[tuple[int, float]]:
    return list(zip(curve.steps, curve.losses, strict=True))


class Moment:
    """All rows of a database with one study, to go back to behind the servers' backs."""

    CHILDREN = (tables.trials, tables.measurements, tables.requests, tables.policy_hints)

    def __init__(self, address: str) -> None:
        self._engine = create_engine(database_url(address))
        with self._engine.connect() as connection:
            self._study = dict(connection.execute(select(tables.studies)).mappings().one())
            self._rows = {
                table: [dict(row) for row in connection.execute(select(table)).mappings()] for table in self.CHILDREN
            }
        self._engine.dispose()

    def come_back(self, **changes: str) -> None:
        with self._engine.begin() as connection:
            for table in reversed(self.CHILDREN):
                connection.execute(delete(table))
            study = {**self._study, **changes}
            connection.execute(update(tables.studies), {key: study[key] for key in study if key != "id"})
            for table, rows in self._rows.items():
                if rows:
                    connection.execute(insert(table), rows)
        self._engine.dispose()


async def create(store: SqlStore, *, rule: StoppingRule | None = None, **budget: int) -> None:
    space = SearchSpace((Float(name="x", low=0.0, high=1.0),))
    spec = StudySpec(space=space, objectives=(LOSS,), policy="gp", stopping_rule=rule)
    command = studies.CreateStudy(name=NAME, spec=spec, budget=Budget(**budget), drawn_seed=0)
    await store.write(lambda tx: studies.create_study(tx, command))


async def test_a_trial_that_was_lost_takes_no_place(store, address):
    await create(store, max_parallel=1)
    home = Replica(store)
    await home.tell(await home.one())
    before = Moment(address)
    lost = await home.one()
    assert (await home.ask()).reason is Reason.MAX_PARALLEL
    before.come_back()
    again = await home.one()
    assert again.number == lost.number
    await home.tell(again)
    assert (await home.one()).number == again.number + 1


async def test_queued_trials_that_were_lost_are_not_offered(store, address):
    await create(store)
    home = Replica(store)
    await home.tell(await home.one())
    before = Moment(address)
    await home.add(0.0, 0.0, 0.0, queued=True)
    assert (await home.one()).origin.policy == "user"
    before.come_back()
    assert (await home.one()).origin.policy == "gp"


async def test_results_that_were_lost_are_neither_best_nor_spend_the_budget(store, address):
    await create(store, max_trials=5)
    home = Replica(store)
    for _ in range(3):
        await home.tell(await home.one())
    before = Moment(address)
    await home.add(-5.0, -5.0)
    assert (await home.best(), (await home.ask()).reason) == ([-5.0], Reason.BUDGET_SPENT)
    before.come_back()
    assert await home.best() == [1.0]
    assert (await home.one()).number == 4


async def test_what_was_lost_and_came_again_at_another_time_is_another_change(store, address):
    await create(store)
    home, other = Replica(store), Replica(store)
    await home.add(1.0)
    before = Moment(address)
    await home.add(-5.0)
    assert await home.best() == [-5.0]
    before.come_back()
    await other.add(0.5)
    assert await home.best() == [0.5]


async def test_a_replica_that_reads_nothing_hears_of_the_loss_from_its_own_changes(store, address):
    await create(store)
    home = Replica(store)
    held = [await home.one() for _ in range(3)]
    before = Moment(address)
    await home.tell(held[0], -5.0)
    # A read brings nothing new, and then the study is recalled.
    assert await home.best() == [-5.0]
    assert home.history.recall(NAME) is not None
    before.come_back()
    await home.tell(held[1], 2.0)
    assert home.history.recall(NAME) is None
    await home.tell(held[2], 3.0)
    assert await home.best() == [2.0]
    assert (await home.history.read(NAME)).counts.active == 1


async def test_a_study_that_got_the_id_of_a_lost_one_has_nothing_of_it(store, address):
    await create(store)
    before = Moment(address)
    home = Replica(store)
    await home.add(-5.0)
    assert await home.best() == [-5.0]
    before.come_back(name="other")
    snapshot = await home.history.read(StudyName("p", "other"))
    assert (snapshot.study.id, snapshot.counts.succeeded) == (1, 0)


async def test_points_of_curves_that_were_lost_judge_nobody(store, address):
    await create(store, rule=StoppingRule(kind=Median()))
    home, other = Replica(store), Replica(store)
    first, second = [await home.one() for _ in range(2)]
    await home.report(first, 1, 0.5)
    before = Moment(address)
    assert await home.report(first, 2, -9.0) == {1: [(1, 0.5), (2, -9.0)]}
    before.come_back()
    for step in (1, 2, 3):
        await other.report(second, step, 0.25)
    assert await home.report(second, 4, 0.125) == {1: [(1, 0.5)], 2: [(1, 0.25), (2, 0.25), (3, 0.25), (4, 0.125)]}


async def test_candidates_that_were_chosen_by_what_was_lost_do_not_serve(store, address):
    await create(store)
    home = Replica(store)
    held = await home.one()
    before = Moment(address)
    await home.tell(held, -5.0)
    known = await home.history.read(NAME)

    prepared = Prepared(
        known.study.id,
        known.study.sequence,
        known.study.next_number,
        1,
        decision=None,
        foretold=known.roster.observations[0],
        incarnation=known.incarnation,
    )
    assert prepared.serves(known)
    before.come_back()
    assert not prepared.serves(await home.history.read(NAME))
    await Replica(store).tell(held, 2.0)
    assert not prepared.serves(await home.history.read(NAME))


# What follows is what no number shows: others went on, past the numbers that were lost. On SQLite there are no others.


@pytest.fixture(scope="module")
def fragile() -> Iterator[Postgres]:
    """A PostgreSQL that tests may crash."""
    server = Postgres()
    server.start()
    yield server
    server.remove()


def crash(postgres: Postgres) -> None:
    postgres.crash()
    postgres.start()


def crash_a_process(postgres: Postgres) -> None:
    """After which the others end themselves, and start anew."""
    (writer,) = [each for each in psutil.Process(postgres.pid).children() if "walwriter" in " ".join(each.cmdline())]
    writer.kill()
    until(lambda: answers(postgres) and not writer.is_running())


def answers(postgres: Postgres) -> bool:
    try:
        with psycopg.connect(postgres.url()) as connection:
            return connection.execute("SELECT true").fetchone() == (True,)
    except psycopg.OperationalError:
        return False


CRASHES = pytest.mark.parametrize("happens", [crash, crash_a_process])


@pytest_asyncio.fixture
async def fragile_address(fragile: Postgres) -> AsyncIterator[str]:
    yield fragile.url(fragile.create_database(migrated=True))


@pytest_asyncio.fixture
async def pair(fragile_address: str) -> AsyncIterator[tuple[Replica, Replica]]:
    """Two servers on one database."""
    stores = [open_store(fragile_address) for _ in range(2)]
    yield Replica(stores[0]), Replica(stores[1])
    for each in stores:
        await each.close()


@CRASHES
async def test_after_a_crash_a_study_is_as_the_database_has_it_though_others_went_on(
    pair, fragile, fragile_address, happens
):
    home, other = pair
    await create(home.store, max_trials=9, max_parallel=1)
    await home.add(1.0)
    before = Moment(fragile_address)
    await home.add(-5.0)
    await home.one()
    assert (await home.best(), (await home.ask()).reason) == ([-5.0], Reason.MAX_PARALLEL)
    happens(fragile)
    before.come_back()
    await other.add(2.0, 3.0, 4.0, 5.0)
    assert await home.best() == [1.0]
    assert (await home.history.read(NAME)).roster.trials == (await other.history.read(NAME)).roster.trials
    assert (await home.one()).number == 6


@CRASHES
async def test_an_ask_recalls_nothing_of_before_a_crash(pair, fragile, fragile_address, happens):
    home, other = pair
    await create(home.store)
    held = await home.one()
    before = Moment(fragile_address)
    await home.tell(held, -5.0)
    await home.add(-6.0)
    await home.best()
    await home.best()
    assert home.history.recall(NAME) is not None
    happens(fragile)
    before.come_back()
    # The same numbers, by other changes.
    await other.add(1.0)
    await other.tell(held, 2.0)
    known = home.history.recall(NAME)
    assert known is not None
    study = (await other.history.read(NAME)).study
    assert (known.study.sequence, known.study.next_number) == (study.sequence, study.next_number)
    await home.one()
    assert await home.best() == [1.0]


@CRASHES
async def test_curves_are_read_anew_after_a_crash(pair, fragile, fragile_address, happens):
    home, other = pair
    await create(home.store, rule=StoppingRule(kind=Median()))
    first, second = [await home.one() for _ in range(2)]
    before = Moment(fragile_address)
    await home.report(first, 1, -9.0)
    await home.report(second, 1, 0.5)
    happens(fragile)
    before.come_back()
    # The last point comes again, the one before does not.
    for value in (0.25, 0.25, 0.25):
        await other.report(second, 1, value)
    assert await home.report(second, 2, 0.125) == {2: [(1, 0.25), (2, 0.125)]}


async def incarnation(store: SqlStore) -> str:
    return await store.read(lambda tx: tx.incarnation())


@CRASHES
async def test_a_crash_makes_another_incarnation(pair, fragile, happens):
    home, other = pair
    seen = await incarnation(home.store)
    happens(fragile)
    assert await incarnation(home.store) == await incarnation(other.store) != seen


async def test_a_dump_that_is_restored_in_place_makes_another_incarnation(pair, fragile, fragile_address):
    home, _ = pair
    seen = await incarnation(home.store)
    name = fragile_address.rpartition("/")[2]
    fragile.drop_database(name)
    fragile.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    migrate(fragile_address)
    assert await incarnation(home.store) != seen


async def test_connections_that_were_lost_alone_make_no_other_incarnation(pair, fragile):
    home, other = pair
    await create(home.store)
    await home.add(1.0)
    known = await home.history.read(NAME)
    with psycopg.connect(fragile.url(), autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    assert await incarnation(home.store) == await incarnation(other.store)
    assert (await home.history.read(NAME)).roster is known.roster
