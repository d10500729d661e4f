"""Changes that are much work for the database keep those of other studies waiting no longer than they must."""

from __future__ import annotations

import asyncio
import itertools
import threading

from asktell.server.application import studies, trials
from asktell.server.application.change import Change
from asktell.server.application.clerk import LARGE_AT_ONCE, Clerk
from asktell.server.application.leases import Report, report
from asktell.server.application.trials import AddTrials, NewTrial
from asktell.server.domain.metric import Goal, Measurement, MetricValue, Objective
from asktell.server.domain.space import Float, SearchSpace
from asktell.server.domain.study import Budget, StudyName, StudySpec
from asktell.server.domain.trial import Origin, Trial, TrialName, TrialState
from asktell.server.persistence.store import POSTGRESQL_WRITERS, open_store
from tests.cost import counted

ONE_REPORT = 4
"""Statements of a transaction with reports, however many: lock, read, update, record."""


async def create(store, name, *, active=1):
    """The active trials of a new study."""
    spec = StudySpec(space=SearchSpace((Float(name="x", low=0, high=1),)), objectives=(Objective("y", Goal.MINIMIZE),))
    command = studies.CreateStudy(name=name, spec=spec, budget=Budget(), drawn_seed=0)
    await store.write(lambda tx: studies.create_study(tx, command))

    def hand_out(tx):
        locked = tx.lock_study(name, changes=active, new_trials=active)
        handed = [
            Trial(
                number=locked.first_number + place,
                state=TrialState.QUEUED,
                parameters={"x": 0.5},
                origin=Origin(policy="random"),
                nonce=f"n{place}",
                sequence=locked.first_sequence + place,
                create_time=locked.now,
            ).leased(worker_id="w", duration=spec.lease_duration, now=locked.now)
            for place in range(active)
        ]
        tx.insert_trials(locked.study.id, handed)
        return handed

    return await store.write(hand_out)


async def several(store, count):
    """An active trial of each of so many studies, by the studies' names."""
    names = [StudyName("p", f"s{number}") for number in range(count)]
    return {name: (await create(store, name))[0] for name in names}


def reported(name, trial, *, steps, metrics=1, value=1.0):
    """The change that reports so many metrics at so many steps of a trial."""
    values = {f"m{place}": MetricValue(value) for place in range(metrics)}
    command = Report(
        trial=TrialName(name, trial.number),
        lease_token=trial.lease.token,
        measurements=[Measurement(step, values) for step in range(steps)],
    )
    return report(command)


async def steps_of(store, name, number=1):
    kept = await store.read(lambda tx: trials.get_trial(tx, TrialName(name, number)))
    return [each.step for each in kept.measurements]


def test_a_change_weighs_what_the_database_has_to_do():
    name, trial = StudyName("p", "s"), TrialName(StudyName("p", "s"), 1)
    measurements = [Measurement(step, {"a": MetricValue(1.0), "b": MetricValue(2.0)}) for step in range(25)]
    assert report(Report(trial=trial, lease_token="nonce-1", measurements=measurements[:1])).weight == 1
    assert report(Report(trial=trial, lease_token="nonce-1", measurements=measurements)).weight == 1 + 5
    added = NewTrial(parameters={"x": 0.5}, state=TrialState.SUCCEEDED, measurements=measurements)
    assert AddTrials(study=name, trials=[added] * 3, nonces="abc").weight == 3 + 15


async def test_small_reports_of_several_studies_share_a_transaction_of_four_statements(store):
    handed = await several(store, 12)
    clerk = Clerk(store)
    with counted() as cost:
        await asyncio.gather(*(clerk.make(reported(name, trial, steps=2)) for name, trial in handed.items()))
    assert (cost.statements, cost.commits) == (ONE_REPORT, 1)
    assert [await steps_of(store, name) for name in handed] == [[0, 1]] * 12


async def test_a_report_of_many_metrics_does_not_hold_other_studies_up(store):
    handed = await several(store, 3)
    (large, its), *others = handed.items()
    clerk = Clerk(store)
    with counted() as cost:
        await asyncio.gather(
            clerk.make(reported(large, its, steps=200, metrics=7)),
            *(clerk.make(reported(name, trial, steps=1)) for name, trial in others),
        )
    assert cost.statements == 2 * ONE_REPORT, "two transactions"
    assert await steps_of(store, large) == list(range(200))


async def test_reports_that_are_too_much_together_do_not_share_a_transaction(store):
    """Each could share one with others."""
    handed = await several(store, 12)
    clerk = Clerk(store)
    with counted() as cost:
        await asyncio.gather(*(clerk.make(reported(name, t, steps=200, metrics=5)) for name, t in handed.items()))
    assert cost.statements == 2 * ONE_REPORT, "two transactions"
    assert [len(await steps_of(store, name)) for name in handed] == [200] * 12


async def test_large_reports_of_one_study_go_a_few_at_a_time_in_their_order(store):
    name = StudyName("p", "s")
    handed = await create(store, name, active=5)
    clerk, order = Clerk(store), []

    async def call(trial):
        await clerk.make(reported(name, trial, steps=500, metrics=10))
        order.append(trial.number)

    with counted() as cost:
        await asyncio.gather(*map(call, handed))
    assert cost.statements == 2 * ONE_REPORT, "two transactions"
    assert order == [1, 2, 3, 4, 5]
    assert [len(await steps_of(store, name, number)) for number in order] == [500] * 5


async def test_reports_of_one_step_that_share_a_transaction_leave_what_the_last_one_said(store):
    name = StudyName("p", "s")
    (trial,) = await create(store, name)
    clerk = Clerk(store)
    await asyncio.gather(*(clerk.make(reported(name, trial, steps=2, value=float(value))) for value in range(5)))
    kept = await store.read(lambda tx: trials.get_trial(tx, TrialName(name, 1)))
    assert [(each.step, each.metrics) for each in kept.measurements] == [(s, {"m0": MetricValue(4.0)}) for s in (0, 1)]


async def test_on_postgresql_large_changes_leave_threads_to_others(migrated_url):
    """However many of them are under way: this one has more of them than threads that write."""
    store = open_store(migrated_url)
    handed = await several(store, POSTGRESQL_WRITERS + 2)
    *large, (small, its) = handed.items()
    clerk, under_way, lock = Clerk(store), itertools.count(1), threading.Lock()
    begun, ended = threading.Semaphore(0), threading.Event()
    most = 0

    def amend(draft):
        nonlocal most
        with lock:
            most = next(under_way)
        begun.release()
        return ended.wait(60)

    slow = [
        asyncio.create_task(clerk.make(Change(study=name, numbers=range(1, 1_001), amend=amend))) for name, _ in large
    ]
    for _ in range(LARGE_AT_ONCE):
        assert await asyncio.to_thread(begun.acquire, timeout=60)
    await clerk.make(reported(small, its, steps=1))
    assert most == LARGE_AT_ONCE
    ended.set()
    assert all(await asyncio.gather(*slow))
    assert most == len(large)
    await store.close()


class Turns(asyncio.Semaphore):
    """Says when somebody waits for a turn among the large ones."""

    def __init__(self, value):
        super().__init__(value)
        self.awaited = asyncio.Event()

    async def acquire(self):
        if self.locked():
            self.awaited.set()
        return await super().acquire()


async def test_on_postgresql_a_large_change_whose_caller_goes_away_while_others_are_made_is_not_made(migrated_url):
    store = open_store(migrated_url)
    *slow, waiting = await several(store, LARGE_AT_ONCE + 1)
    clerk, begun, ended, made = Clerk(store), threading.Semaphore(0), threading.Event(), []
    clerk._large = turns = Turns(LARGE_AT_ONCE)

    def hold(_draft):
        begun.release()
        return ended.wait(60)

    def call(name, amend):
        return asyncio.create_task(clerk.make(Change(study=name, numbers=range(1, 1_001), amend=amend)))

    under_way = [call(name, hold) for name in slow]
    for _ in slow:
        assert await asyncio.to_thread(begun.acquire, timeout=60)
    left, kept = call(waiting, lambda _: made.append("left")), call(waiting, lambda _: made.append("kept"))
    async with asyncio.timeout(60):
        await turns.awaited.wait()
    left.cancel()
    ended.set()
    await asyncio.gather(*under_way, kept)
    assert made == ["kept"]
    await store.close()


async def test_on_postgresql_a_study_that_is_deleted_while_it_is_created_again_is_created(migrated_url):
    """Its name was taken when it was to be inserted, and free when it was looked for."""
    store, other = open_store(migrated_url), open_store(migrated_url)
    name, loop = StudyName("p", "s"), asyncio.get_running_loop()
    await create(store, name)
    spec = StudySpec(space=SearchSpace((Float(name="z", low=0, high=1),)), objectives=(Objective("y", Goal.MINIMIZE),))
    command = studies.CreateStudy(name=name, spec=spec, budget=Budget(), drawn_seed=0)
    runs = []

    class Meanwhile:
        """The transaction, but that another one deletes the study after the first look at its name."""

        def __init__(self, tx):
            self._tx = tx

        def __getattr__(self, method):
            return getattr(self._tx, method)

        def insert_study(self, new):
            inserted = self._tx.insert_study(new)
            runs.append(inserted)
            if inserted is None:
                deletion = other.write(lambda tx: studies.delete_study(tx, name))
                asyncio.run_coroutine_threadsafe(deletion, loop).result()
            return inserted

    created = await Clerk(store).write(name, lambda tx: studies.create_study(Meanwhile(tx), command))
    assert [run is None for run in runs] == [True, False]
    assert created.study.spec == spec
    assert (await store.read(lambda tx: studies.get_study(tx, name))).study == created.study
    await other.close()
    await store.close()
