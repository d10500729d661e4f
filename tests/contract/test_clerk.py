"""Changes of one study's trials that share a transaction: each gets its own reply, none is lost, none takes another along."""

from __future__ import annotations

import asyncio
import itertools
import threading
from dataclasses import replace
from urllib.parse import quote

import pytest

from asktell.server.application import studies, trials
from asktell.server.application.change import Change
from asktell.server.application.clerk import Clerk
from asktell.server.application.leases import Directive, Release, Renew, Renewal, Renewals, Report, release, report
from asktell.server.application.ports import Request
from asktell.server.application.tell import Failed, Result, Stopped, Succeeded, Tell, tell
from asktell.server.domain.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Unavailable
from asktell.server.domain.metric import Goal, Measurement, MetricValue, Objective
from asktell.server.domain.space import Float, SearchSpace
from asktell.server.domain.study import Budget, StudyName, StudySpec
from asktell.server.domain.trial import Origin, Trial, TrialName, TrialState
from asktell.server.persistence.store import open_store
from tests.cost import counted

NAME, OTHER = StudyName("p", "one"), StudyName("p", "two")
NONCES = itertools.count()


async def create(store, name=NAME, *, active=0):
    """A study with active trials, and these."""
    spec = StudySpec(space=SearchSpace((Float(name="x", low=0, high=1),)), objectives=(Objective("y", Goal.MINIMIZE),))
    command = studies.CreateStudy(name=name, spec=spec, budget=Budget(), drawn_seed=0)
    await store.write(lambda tx: studies.create_study(tx, command))

    def hand_out(tx):
        locked = tx.lock_study(name, changes=active, new_trials=active)
        handed = [
            Trial(
                number=locked.first_number + place,
                state=TrialState.QUEUED,
                parameters={"x": place / active},
                origin=Origin(policy="random"),
                nonce=f"n{next(NONCES)}",
                sequence=locked.first_sequence + place,
                create_time=locked.now,
            ).leased(worker_id="w", duration=spec.lease_duration, now=locked.now)
            for place in range(active)
        ]
        tx.insert_trials(locked.study.id, handed)
        return handed

    return await store.write(hand_out) if active else []


def told(trial, value=1.0, *, token=None, request=None, name=NAME, outcome=None):
    """The change that tells a trial, whose reply is the sequence numbers of what it told."""
    result = Result(
        number=trial.number,
        lease_token=token or trial.lease.token,
        outcome=outcome or Succeeded({"y": MetricValue(value)}),
    )
    command = Tell(study=name, results=[result], request=request)
    return tell(command, pack=lambda told: b",".join(str(each.sequence).encode() for each in told.trials))


async def stored(store, name=NAME):
    listed = trials.ListTrials(study=name, after=0, limit=1000)
    return await store.read(lambda tx: trials.list_trials(tx, listed))


@pytest.mark.parametrize("named", [False, True])
async def test_what_waits_together_is_one_transaction_of_as_many_statements_as_one_tell(store, named):
    active = await create(store, active=40)
    clerk = Clerk(store)
    requests = [Request("Tell", f"r{trial.number}", "f") if named else None for trial in active]
    with counted() as cost:
        replies = await asyncio.gather(
            *(clerk.make(told(trial, request=request)) for trial, request in zip(active, requests, strict=True))
        )
    assert cost.commits == 1
    assert cost.statements == (5 if named else 3), "many replies are looked for in a statement of their own"
    sequences = [int(reply) for reply in replies]
    assert sequences == sorted(set(sequences))
    assert [trial.sequence for trial in await stored(store)] == sequences
    assert all(trial.state is TrialState.SUCCEEDED for trial in await stored(store))


async def test_a_refused_change_takes_no_other_along_and_changes_nothing(store):
    active = await create(store, active=4)
    clerk = Clerk(store)
    missing = told(active[0])
    outcomes = await asyncio.gather(
        clerk.make(told(active[0])),
        clerk.make(told(active[1], token="n-1")),
        clerk.make(Change(study=NAME, numbers=[99], amend=lambda draft: draft.trial(99))),
        clerk.make(told(active[3])),
        return_exceptions=True,
    )
    assert isinstance(outcomes[1], FailedPrecondition)
    assert isinstance(outcomes[2], NotFound)
    states = [trial.state for trial in await stored(store)]
    assert states == [TrialState.SUCCEEDED, TrialState.ACTIVE, TrialState.ACTIVE, TrialState.SUCCEEDED]
    assert missing.numbers == [1]


async def test_a_change_that_breaks_the_transaction_takes_no_other_along(store):
    active = await create(store, active=3)
    clerk = Clerk(store)

    def spoil(draft):
        # What no validation lets pass: a trial that neither database takes.
        draft.change(
            Trial(
                number=2,
                state=TrialState.ACTIVE,
                parameters={},
                origin=Origin(policy=""),
                nonce="",
                create_time=draft.now,
                worker_id=None,
            )
        )

    broken = Change(study=NAME, numbers=[2], amend=spoil)
    outcomes = await asyncio.gather(
        clerk.make(told(active[0])), clerk.make(broken), clerk.make(told(active[2])), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [bytes, type(outcomes[1]), bytes]
    assert isinstance(outcomes[1], Exception)
    states = [trial.state for trial in await stored(store)]
    assert states == [TrialState.SUCCEEDED, TrialState.ACTIVE, TrialState.SUCCEEDED]


async def test_changes_of_one_trial_that_meet_see_each_other_in_their_order(store):
    (trial,) = await create(store, active=1)
    clerk = Clerk(store)
    name, token = TrialName(NAME, 1), trial.lease.token
    measurements = [Measurement(3, {"y": MetricValue(0.5)})]
    outcomes = await asyncio.gather(
        clerk.make(report(Report(trial=name, lease_token=token, measurements=measurements))),
        clerk.make(told(trial, outcome=Stopped({}, "enough"))),
        clerk.make(
            report(Report(trial=name, lease_token=token, measurements=[Measurement(4, {"y": MetricValue(9.0)})]))
        ),
        clerk.make(release(Release(trial=name, lease_token=token), pack=repr)),
        return_exceptions=True,
    )
    assert outcomes[0].verdict.directive is Directive.CONTINUE
    assert outcomes[2].verdict.directive is Directive.ABANDON
    assert isinstance(outcomes[3], FailedPrecondition)
    kept = await store.read(lambda tx: trials.get_trial(tx, name))
    assert (kept.state, kept.metrics, kept.message) == (TrialState.STOPPED, {"y": MetricValue(0.5)}, "enough")
    assert [(each.step, each.metrics) for each in kept.measurements] == [(3, {"y": MetricValue(0.5)})]


async def test_copies_of_a_tell_that_meet_change_once_and_get_one_reply(store):
    active = await create(store, active=2)
    clerk, request = Clerk(store), Request("Tell", "r", "f")
    copies = [clerk.make(told(active[0], request=request)) for _ in range(5)]
    another = clerk.make(told(active[1], request=Request("Tell", "r", "another payload")))
    *replies, refused = await asyncio.gather(*copies, another, return_exceptions=True)
    assert len(set(replies)) == 1
    assert isinstance(refused, AlreadyExists)
    assert [trial.state for trial in await stored(store)] == [TrialState.SUCCEEDED, TrialState.ACTIVE]


async def test_a_copy_of_a_tell_that_could_not_be_told_again_gets_the_first_ones_reply(store):
    """The trial was queued again by the first: without its reply the copy would hear of a lost lease."""
    (trial,) = await create(store, active=1)
    change = told(trial, request=Request("Tell", "r", "f"), outcome=Failed("broken", retry=True))
    first = await Clerk(store).make(change)
    assert await Clerk(store).make(change) == first
    assert await asyncio.gather(*(Clerk(store).make(change) for _ in range(4))) == [first] * 4
    assert (await stored(store))[0].spent_attempts == 1


async def test_replicas_that_are_told_copies_at_once_change_once(store):
    active = await create(store, active=8)
    clerks = [Clerk(store) for _ in range(3)]
    replies = await asyncio.gather(
        *(
            clerk.make(told(trial, request=Request("Tell", f"r{trial.number}", "f")))
            for trial in active
            for clerk in clerks
        )
    )
    assert [len(set(replies[at : at + 3])) for at in range(0, 24, 3)] == [1] * 8
    assert len({trial.sequence for trial in await stored(store)}) == 8


async def test_replicas_that_are_told_other_payloads_of_an_id_at_once_take_one_and_refuse_the_others_as_such(store):
    """Each replica begins with another payload: those that come too late meet a trial that has ended, for that reason alone."""
    active = await create(store, active=8)
    clerks = [Clerk(store) for _ in range(3)]

    async def tell_of(trial, clerk, payload):
        request = Request("Tell", f"r{trial.number}", f"payload {payload}")
        return payload, await clerk.make(told(trial, float(payload), request=request))

    for trial in active:
        calls = [tell_of(trial, clerk, (turn + place) % 3) for turn in range(3) for place, clerk in enumerate(clerks)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        taken = [outcome for outcome in outcomes if isinstance(outcome, tuple)]
        kept = (await stored(store))[trial.number - 1].metrics["y"].value
        assert [payload for payload, _ in taken] == [kept] * 3
        assert len(set(taken)) == 1, "the copies of what was taken get one reply"
        assert [type(outcome) for outcome in outcomes if outcome not in taken] == [AlreadyExists] * 6


async def test_a_caller_that_went_away_before_its_turn_changes_nothing(store):
    active = await create(store, active=3)
    clerk = Clerk(store)
    tasks = [asyncio.create_task(clerk.make(told(trial))) for trial in active]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    states = [trial.state for trial in await stored(store)]
    assert states == [TrialState.SUCCEEDED, TrialState.ACTIVE, TrialState.SUCCEEDED]


async def test_on_postgresql_studies_do_not_wait_for_each_other(migrated_url):
    store = open_store(migrated_url)
    await create(store, active=1)
    (there,) = await create(store, OTHER, active=1)
    clerk = Clerk(store)
    begun, told_there = threading.Event(), threading.Event()

    def amend(draft):
        begun.set()
        return told_there.wait(60)

    slow = asyncio.create_task(clerk.make(Change(study=NAME, numbers=[1], amend=amend)))
    assert await asyncio.to_thread(begun.wait, 60)
    await clerk.make(told(there, name=OTHER))
    told_there.set()
    assert await slow is True
    await store.close()


async def several(store, count, *, active=1):
    """Studies with active trials, and these by the studies' names."""
    names = [StudyName("p", f"s{number}") for number in range(count)]
    return {name: await create(store, name, active=active) for name in names}


@pytest.mark.parametrize("named", [False, True])
async def test_what_waits_of_several_studies_is_one_transaction_of_a_constant_number_of_statements(store, named):
    handed = await several(store, 12, active=2)
    clerk = Clerk(store)
    calls = [
        told(trial, request=Request("Tell", f"r{trial.number}", "f") if named else None, name=name)
        for name, trials in handed.items()
        for trial in trials
    ]
    with counted() as cost:
        replies = await asyncio.gather(*map(clerk.make, calls))
    assert cost.commits == 1
    assert cost.statements == (5 if named else 3)
    for place, name in enumerate(handed):
        kept = await stored(store, name)
        assert [trial.state for trial in kept] == [TrialState.SUCCEEDED] * 2
        assert [trial.sequence for trial in kept] == [int(reply) for reply in replies[2 * place : 2 * place + 2]]
    if named:
        assert await asyncio.gather(*map(Clerk(store).make, calls)) == replies


async def sequences(store, names):
    """The sequence number that each study has come to."""
    return [(await store.read(lambda tx, name=name: tx.find_study(name))).study.sequence for name in names]


async def test_a_study_whose_calls_are_refused_takes_no_other_along_and_its_sequence_stays(store):
    handed = await several(store, 5)
    names, clerk = list(handed), Clerk(store)
    before = await sequences(store, names)
    calls = [told(handed[name][0], name=name) for name in names]
    calls[1] = told(handed[names[1]][0], name=names[1], token="n-1")
    calls[2] = Change(study=names[2], numbers=[99], amend=lambda draft: draft.trial(99))
    calls[3] = told(handed[names[3]][0], name=OTHER)
    outcomes = await asyncio.gather(*map(clerk.make, calls), return_exceptions=True)
    assert [type(each) for each in outcomes] == [bytes, FailedPrecondition, NotFound, NotFound, bytes]
    after = await sequences(store, names)
    assert [late - early for early, late in zip(before, after, strict=True)] == [1, 0, 0, 0, 1]


async def test_a_change_that_breaks_the_transaction_takes_no_other_study_along(store):
    handed = await several(store, 4)
    names, clerk = list(handed), Clerk(store)

    def spoil(draft):
        # What no validation lets pass: a trial that neither database takes.
        draft.change(replace(draft.trial(1), worker_id=None))

    calls = [told(handed[name][0], name=name) for name in names]
    calls[1] = Change(study=names[1], numbers=[1], amend=spoil)
    outcomes = await asyncio.gather(*map(clerk.make, calls), return_exceptions=True)
    assert [isinstance(each, bytes) for each in outcomes] == [True, False, True, True]
    states = [(await stored(store, name))[0].state for name in names]
    assert states == [TrialState.SUCCEEDED, TrialState.ACTIVE, TrialState.SUCCEEDED, TrialState.SUCCEEDED]


async def test_a_call_that_touches_many_trials_does_not_hold_other_studies_up(store):
    handed = await several(store, 2, active=200)
    (large, many), (small, few) = handed.items()
    results = [Result(number=t.number, lease_token=t.lease.token, outcome=Stopped({}, "")) for t in many]
    clerk = Clerk(store)
    with counted() as cost:
        await asyncio.gather(
            clerk.make(tell(Tell(study=large, results=results), pack=lambda told: b"")),
            clerk.make(told(few[0], name=small)),
        )
    assert cost.statements == 4 + 3, "two transactions"


async def test_calls_of_a_study_are_answered_in_their_order_beside_others(store):
    handed = await several(store, 3, active=8)
    clerk, order = Clerk(store), []

    async def call(name, trial):
        await clerk.make(told(trial, name=name))
        order.append((name, trial.number))

    await asyncio.gather(*(call(name, trial) for name, trials in handed.items() for trial in trials))
    for name in handed:
        assert [number for of, number in order if of == name] == list(range(1, 9))
        kept = await stored(store, name)
        assert [trial.sequence for trial in kept] == sorted(trial.sequence for trial in kept)


@pytest.mark.parametrize("what", ["study", "trial"])
async def test_on_postgresql_a_study_that_another_transaction_holds_holds_no_other_up(migrated_url, what):
    # It waits for the lock however slowly the others go on.
    store, holder = open_store(f"{migrated_url}?options={quote('-c lock_timeout=90s')}"), open_store(migrated_url)
    handed = await several(store, 6)
    names, clerk = list(handed), Clerk(store)
    held, ended = threading.Event(), threading.Event()
    study = (await store.read(lambda tx: tx.find_study(names[2]))).study

    def hold(tx):
        if what == "study":
            tx.lock_study(names[2], changes=1)
        else:
            tx.find_trials(study.id, [1])
        held.set()
        ended.wait(60)

    holding = asyncio.create_task(holder.write(hold))
    assert await asyncio.to_thread(held.wait, 60)
    calls = {name: asyncio.create_task(clerk.make(told(handed[name][0], name=name))) for name in names}
    late = calls.pop(names[2])
    await asyncio.gather(*calls.values())
    assert not holding.done()
    assert not late.done()
    ended.set()
    await holding
    assert isinstance(await late, bytes)
    assert [(await stored(store, name))[0].state for name in names] == [TrialState.SUCCEEDED] * 6
    await holder.close()
    await store.close()


async def test_on_postgresql_replicas_that_change_the_same_studies_lose_nothing(migrated_url):
    stores = [open_store(migrated_url) for _ in range(3)]
    handed = await several(stores[0], 8, active=12)
    clerks = [Clerk(store) for store in stores]
    replies = await asyncio.gather(
        *(
            clerks[trial.number % 3].make(told(trial, name=name, request=Request("Tell", f"r{trial.number}", "f")))
            for name, trials in handed.items()
            for trial in trials
        )
    )
    for place, name in enumerate(handed):
        kept = await stored(stores[0], name)
        assert all(trial.state is TrialState.SUCCEEDED for trial in kept)
        told_of = {int(reply) for reply in replies[12 * place : 12 * place + 12]}
        assert told_of == {trial.sequence for trial in kept}
        assert len(told_of) == 12
    for store in stores:
        await store.close()


async def test_an_unknown_study_is_not_found_and_a_closed_store_unavailable_for_all_who_wait(store):
    (trial,) = await create(store, active=1)
    clerk = Clerk(store)
    missing = [clerk.make(told(trial, name=OTHER)) for _ in range(3)]
    assert [type(each) for each in await asyncio.gather(*missing, return_exceptions=True)] == [NotFound] * 3
    await store.close()
    late = [clerk.make(told(trial)) for _ in range(3)]
    assert [type(each) for each in await asyncio.gather(*late, return_exceptions=True)] == [Unavailable] * 3


async def test_metadata_that_grows_tell_by_tell_stays_within_its_limit(store):
    (trial,) = await create(store, active=1)
    clerk = Clerk(store)
    retry = Failed("again", retry=True)

    def tell_with(pairs, token):
        result = Result(number=1, lease_token=token, outcome=retry, metadata={f"k{n}": "" for n in pairs})
        return tell(Tell(study=NAME, results=[result]), pack=lambda told: b"")

    await clerk.make(tell_with(range(60), trial.lease.token))

    def again(tx):
        locked = tx.lock_study(NAME, changes=1)
        queued = tx.find_trials(locked.study.id, [1])[1]
        leased = queued.leased(worker_id="w", duration=locked.study.spec.lease_duration, now=locked.now)
        tx.update_trials(locked.study.id, [leased])
        return leased.lease.token

    token = await store.write(again)
    with pytest.raises(InvalidArgument, match=r"results\[0\]\.metadata: has 70 pairs; at most 64 are kept"):
        await clerk.make(tell_with(range(50, 70), token))
    await clerk.make(tell_with(range(60, 64), token))
    assert len((await stored(store))[0].metadata) == 64


async def test_trials_that_stop_as_reported_are_one_statement_more_however_many(store):
    active = await create(store, active=20)
    clerk = Clerk(store)
    for trial in active[:15]:
        measurements = [Measurement(step, {"y": MetricValue(float(step)), "z": MetricValue(1.0)}) for step in (1, 7, 3)]
        name, token = TrialName(NAME, trial.number), trial.lease.token
        await clerk.make(report(Report(trial=name, lease_token=token, measurements=measurements)))
    results = [Result(number=t.number, lease_token=t.lease.token, outcome=Stopped({}, "")) for t in active]
    with counted() as cost:
        await clerk.make(tell(Tell(study=NAME, results=results), pack=lambda told: b""))
    assert cost.statements == 4
    stopped = await stored(store)
    assert [trial.metrics for trial in stopped[:15]] == [{"y": MetricValue(7.0), "z": MetricValue(1.0)}] * 15
    assert [trial.metrics for trial in stopped[15:]] == [{}] * 5


async def test_a_crowd_of_full_renewals_is_renewed(store):
    """One statement for all of them would have more parameters than PostgreSQL takes."""
    active = await create(store, active=1000)
    clerk = Clerk(store)
    renewals = Renewals(store, clerk)
    command = Renew(study=NAME, renewals=[Renewal(trial.number, trial.lease.token) for trial in active])
    replies = await asyncio.gather(*(renewals.renew(command) for _ in range(40)))
    assert all(verdict.directive is Directive.CONTINUE for verdicts in replies for verdict in verdicts)


async def test_leases_that_go_on_under_a_limit_count_the_active_trials_once(store):
    active = await create(store, active=30)
    budget = Budget(max_parallel=20)
    clerk = Clerk(store)
    await clerk.write(NAME, lambda tx: studies.update_study(tx, studies.UpdateStudy(name=NAME, budget=budget)))

    def expire(tx):
        locked = tx.lock_study(NAME, changes=30)
        tx.update_trials(locked.study.id, [trial.expired(max_attempts=3, now=locked.now) for trial in active])

    await store.write(expire)
    command = Renew(study=NAME, renewals=[Renewal(trial.number, trial.lease.token) for trial in active])
    with counted() as cost:
        verdicts = await Renewals(store, clerk).renew(command)
    assert [verdict.directive for verdict in verdicts] == [Directive.CONTINUE] * 20 + [Directive.ABANDON] * 10
    assert cost.statements == 2 + 4
