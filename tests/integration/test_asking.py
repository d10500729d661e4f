"""Asks against a real database, with an engine that counts: budgets, queues, collisions, closings."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, update

from asktell.server.application import history, leases, studies, trials
from asktell.server.application.ask import Answer, Ask, Reason, is_over
from asktell.server.application.clerk import Clerk
from asktell.server.application.desk import Desk
from asktell.server.application.history import History
from asktell.server.application.ports import Request, Store
from asktell.server.application.tell import Failed, Result, Succeeded, Tell, tell
from asktell.server.domain.errors import AlreadyExists, InvalidArgument, NotFound, Overloaded
from asktell.server.domain.metric import Goal, Measurement, MetricValue, Objective
from asktell.server.domain.policy import Candidate, Decision, SuggestRequest
from asktell.server.domain.population import Population
from asktell.server.domain.space import Int, SearchSpace
from asktell.server.domain.study import Budget, StudyName, StudySpec, StudyState
from asktell.server.domain.trial import Origin, Trial, TrialName, TrialState
from asktell.server.persistence import tables
from asktell.server.persistence.migration import migrate
from asktell.server.persistence.store import open_store
from asktell.server.policies import registry

NAME = StudyName("p", "s")
LEVELS = 10


@dataclass
class Counting:
    """An engine that offers 0, 1, 2 and so on, skipping what it is told of; `gate` holds its answers back. With a `parent`, all go on from
    that trial, each as the member of a population that its level says.
    """

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    requests: list[SuggestRequest] = field(default_factory=list)
    parent: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    def policies(self) -> Collection[str]:
        return ["auto"]

    async def suggest(self, request: SuggestRequest) -> Decision:
        self.requests.append(request)
        await self.gate.wait()
        known = [observation.parameters["x"] for observation in request.observations]
        taken = {*known, *(parameters["x"] for parameters in request.pending)}
        levels = [request.fixed["x"]] if request.fixed else range(LEVELS)
        free = [level for level in levels if level not in taken][: request.count]
        origin = Origin(policy="counting")
        members = free if self.parent else [0] * len(free)
        return Decision(
            tuple(Candidate({"x": x}, origin, self.parent, member) for x, member in zip(free, members, strict=True))
        )


@dataclass
class Training:
    """An engine that trains a population, after a moment in which others may ask."""

    def policies(self) -> Collection[str]:
        return list(registry.POLICIES)

    async def suggest(self, request: SuggestRequest) -> Decision:
        await asyncio.sleep(0.001)
        return registry.suggest(request)


@dataclass
class House:
    """A store with one study, and as many desks (replicas) on it as one likes."""

    store: Store
    engine: Counting
    desk: Desk
    answers: list[Answer] = field(default_factory=list)

    async def ask(self, *, desk: Desk | None = None, **how: Any) -> Answer:
        command = Ask(**{"study": NAME, "count": 1, "worker_id": "w", "deadline": time.monotonic() + 30, **how})
        await (desk or self.desk).ask(command, pack=self._pack)
        return self.answers[-1]

    def _pack(self, answer: Answer) -> bytes:
        self.answers.append(answer)
        return b""

    async def tell(self, trial: Trial, outcome: Any = None, *, checkpoint_uri: str = "") -> None:
        result = Result(
            number=trial.number,
            lease_token=trial.lease.token,
            outcome=outcome or Succeeded({"y": MetricValue(1.0)}),
            checkpoint_uri=checkpoint_uri,
        )
        await Clerk(self.store).make(tell(Tell(study=NAME, results=[result]), pack=lambda told: b""))

    async def enqueue(self, *levels: int) -> None:
        new = [trials.NewTrial(parameters={"x": level}) for level in levels]
        command = trials.AddTrials(study=NAME, trials=new, nonces=[f"n{level}" for level in levels])
        await self.store.write(lambda tx: trials.add_trials(tx, command, pack=lambda added: b""))

    async def update(self, **changes: Any) -> None:
        await self.store.write(lambda tx: studies.update_study(tx, studies.UpdateStudy(name=NAME, **changes)))


def desk_of(store: Store, engine: Any) -> Desk:
    numbers = itertools.count()
    return Desk(store=store, engine=engine, history=History(store), new_nonce=lambda: f"n{next(numbers)}")


@asynccontextmanager
async def house(path: Path, *, population: Population | None = None, **budget: Any) -> AsyncIterator[House]:
    database = str(path / "a.db")
    migrate(database)
    store = open_store(database)
    spec = StudySpec(
        space=SearchSpace((Int(name="x", low=0, high=LEVELS - 1),)),
        objectives=(Objective("y", Goal.MINIMIZE),),
        policy="auto" if population is None else "pbt",
        population=population,
    )
    command = studies.CreateStudy(name=NAME, spec=spec, budget=Budget(**budget), drawn_seed=0)
    try:
        await store.write(lambda tx: studies.create_study(tx, command))
        engine = Counting()
        yield House(store, engine, desk_of(store, engine))
    finally:
        await store.close()


def renewals(home: House) -> leases.Renewals:
    return leases.Renewals(home.store, Clerk(home.store))


def numbers(answer: Answer) -> list[int]:
    return [trial.number for trial in answer.trials]


async def test_queued_trials_go_first_and_the_policy_fills_up(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.enqueue(7, 3)
        answer = await home.ask(count=4)
        assert [trial.parameters["x"] for trial in answer.trials] == [7, 3, 0, 1]
        assert numbers(answer) == [1, 2, 3, 4]
        assert [trial.lease.token for trial in answer.trials[:2]] == ["n7-1", "n3-1"]
        assert len({trial.sequence for trial in answer.trials}) == 4
        assert (answer.closed, answer.reason, answer.retry_after) == (False, None, None)


async def test_the_policy_knows_what_is_pending_and_what_was_observed(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        first = (await home.ask()).trials[0]
        await home.tell(first)
        await home.ask()
        await home.ask()
        request = home.engine.requests[-1]
        assert [observation.number for observation in request.observations] == [1]
        assert request.observations[0].state is TrialState.SUCCEEDED
        assert request.pending == ({"x": 1},)
        assert request.next_number == 3


async def test_a_trial_that_goes_on_from_another_begins_with_its_checkpoint(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.tell((await home.ask()).trials[0], checkpoint_uri="file:///first")
        home.engine.parent = 1
        # Another replica knows the parent only from the database.
        for desk in (home.desk, desk_of(home.store, home.engine)):
            (trial,) = (await home.ask(desk=desk)).trials
            assert (trial.parent, trial.member, trial.checkpoint_uri) == (1, trial.parameters["x"], "file:///first")
        await home.tell(trial, checkpoint_uri="file:///second")
        await home.ask()
        request = home.engine.requests[-1]
        assert [(each.number, each.parent, each.member) for each in request.observations] == [(1, 0, 0), (3, 1, 2)]
        assert (request.pending, request.pending_members) == (({"x": 1},), (1,))


async def test_of_a_study_without_a_population_the_policy_hears_of_no_members(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.ask(count=2)
        assert (await home.ask()).trials[0].member == 0
        assert home.engine.requests[-1].pending_members == ()


async def test_the_budget_of_trials_is_kept_and_closes_the_study_once_all_ended(tmp_path: Path) -> None:
    async with house(tmp_path, max_trials=2) as home:
        answer = await home.ask(count=5)
        assert numbers(answer) == [1, 2]
        assert answer.reason is Reason.BUDGET_SPENT
        waiting = await home.ask()
        assert (waiting.trials, waiting.closed) == ((), False)
        assert waiting.retry_after is not None
        for trial in answer.trials:
            await home.tell(trial)
        closed = await home.ask()
        assert (closed.closed, closed.reason, closed.retry_after) == (True, Reason.BUDGET_SPENT, None)


async def test_a_cancelled_trial_gives_its_place_in_the_budget_back(tmp_path: Path) -> None:
    async with house(tmp_path, max_trials=1) as home:
        await home.ask()
        await Clerk(home.store).make(trials.cancel_trial(TrialName(NAME, 1)))
        assert numbers(await home.ask()) == [2]


async def test_no_more_trials_are_active_than_allowed(tmp_path: Path) -> None:
    async with house(tmp_path, max_parallel=2) as home:
        answer = await home.ask(count=3)
        assert numbers(answer) == [1, 2]
        assert answer.reason is Reason.MAX_PARALLEL
        assert (await home.ask()).reason is Reason.MAX_PARALLEL
        await home.tell(answer.trials[0])
        assert numbers(await home.ask()) == [3]


async def test_too_many_failures_close_the_study(tmp_path: Path) -> None:
    async with house(tmp_path, max_failures=1) as home:
        first = (await home.ask(count=2)).trials[0]
        await home.tell(first, Failed("out of memory", retry=False))
        answer = await home.ask()
        assert (answer.closed, answer.reason) == (True, Reason.BUDGET_SPENT)


async def test_time_spent_closes_the_study(tmp_path: Path) -> None:
    async with house(tmp_path, max_duration=timedelta(microseconds=1)) as home:
        assert (await home.ask()).closed


async def test_a_paused_study_waits_and_a_finished_one_is_closed(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.update(state=StudyState.PAUSED)
        paused = await home.ask()
        assert (paused.closed, paused.reason) == (False, Reason.PAUSED)
        await home.update(state=StudyState.FINISHED)
        assert (await home.ask()).closed
        await home.update(state=StudyState.ACTIVE)
        assert numbers(await home.ask()) == [1]


async def test_an_exhausted_space_is_closed_when_the_last_trial_ended(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        answer = await home.ask(count=LEVELS + 5)
        assert len(answer.trials) == LEVELS
        assert (answer.closed, answer.reason) == (False, Reason.EXHAUSTED)
        for trial in answer.trials:
            await home.tell(trial)
        last = await home.ask()
        assert (last.closed, last.reason) == (True, Reason.EXHAUSTED)


async def test_what_others_train_does_not_keep_an_ask_whose_fixed_parameters_are_exhausted(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        others = await home.ask(count=2)
        answer = await home.ask(fixed={"x": 3})
        waiting = await home.ask(fixed={"x": 3})
        assert (waiting.trials, waiting.closed, waiting.reason) == ((), False, Reason.EXHAUSTED), "it may come back"
        await home.tell(answer.trials[0])
        done = await home.ask(fixed={"x": 3})
        assert (done.closed, done.reason, done.retry_after) == (True, Reason.EXHAUSTED, None)
        assert not (await home.ask(fixed={"x": others.trials[0].parameters["x"]})).closed
        more = await home.ask()
        assert (len(more.trials), more.closed) == (1, False), "other asks are handed trials all the same"


async def test_fixed_parameters_choose_among_the_queued_and_reach_the_policy(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.enqueue(7, 3)
        answer = await home.ask(count=2, fixed={"x": 3})
        assert answer.trials[0].parameters == {"x": 3}
        assert home.engine.requests[-1].fixed == {"x": 3}
        with pytest.raises(InvalidArgument, match="outside"):
            await home.ask(fixed={"x": 99})


async def test_two_replicas_never_hand_out_one_configuration_twice(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        home.engine.gate.clear()
        desks = [desk_of(home.store, home.engine) for _ in range(3)]
        asks = [asyncio.create_task(home.ask(desk=desk, worker_id=f"w{i}")) for i, desk in enumerate(desks)]
        while len(home.engine.requests) < 3:
            await asyncio.sleep(0)
        home.engine.gate.set()
        await asyncio.gather(*asks)
        handed = [trial for answer in home.answers for trial in answer.trials]
        stored = await home.store.read(
            lambda tx: trials.list_trials(tx, trials.ListTrials(study=NAME, after=0, limit=10))
        )
        assert sorted(trial.parameters["x"] for trial in stored) == [0, 1, 2]
        assert sorted({trial.number for trial in handed}) == [1, 2, 3]
        assert len(home.engine.requests) > 3, "the replicas that lost the race chose again"


@pytest.mark.parametrize("count", [1, 3])
async def test_replicas_never_train_one_member_twice_at_once(tmp_path: Path, count: int) -> None:
    async with house(tmp_path, population=Population(size=4), max_trials=60) as home:

        async def work(desk: Desk) -> None:
            answers = [Answer(study=NAME)]

            def pack(answer: Answer) -> bytes:
                answers.append(answer)
                return b""

            while not answers[-1].closed:
                command = Ask(study=NAME, count=count, worker_id="w", deadline=time.monotonic() + 30)
                await desk.ask(command, pack=pack)
                await asyncio.sleep(0.01)
                for trial in answers[-1].trials:
                    await home.tell(trial, checkpoint_uri=f"file:///{trial.number}")

        await asyncio.gather(*(work(desk_of(home.store, Training())) for _ in range(6)))
        stored = await home.store.read(
            lambda tx: trials.list_trials(tx, trials.ListTrials(study=NAME, after=0, limit=100))
        )
    assert [trial.number for trial in stored] == list(range(1, 61))
    for member in range(1, 5):
        of_member = [trial for trial in stored if trial.member == member]
        assert len(of_member) >= 14
        for earlier, later in pairwise(of_member):
            assert earlier.end_time is not None
            assert earlier.end_time <= later.create_time


async def test_asks_that_wait_for_one_study_are_met_together(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await asyncio.gather(*(home.ask(worker_id=f"w{i}") for i in range(8)))
        assert [numbers(answer) for answer in home.answers] == [[number] for number in range(1, 9)]
        assert [answer.trials[0].worker_id for answer in home.answers] == [f"w{i}" for i in range(8)]
        assert [request.count for request in home.engine.requests] == [8]


async def test_a_round_hands_out_so_many_trials_that_the_first_ask_does_not_wait_for_the_last(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await asyncio.gather(*(home.ask(worker_id=f"w{i}", count=3) for i in range(3)))
        assert [request.count for request in home.engine.requests] == [6, 3]


async def test_asks_with_other_fixed_parameters_are_met_apart_and_in_their_order(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await asyncio.gather(*(home.ask(fixed=fixed) for fixed in ({}, {"x": 5}, {"x": 5}, {})))
        assert [(request.fixed, request.count) for request in home.engine.requests] == [({}, 1), ({"x": 5}, 2), ({}, 1)]


async def test_a_budget_is_shared_out_in_the_order_of_the_asks(tmp_path: Path) -> None:
    async with house(tmp_path, max_trials=3) as home:
        await asyncio.gather(*(home.ask(worker_id=f"w{i}", count=2) for i in range(3)))
        assert [numbers(answer) for answer in home.answers] == [[1, 2], [3], []]
        assert [answer.reason for answer in home.answers] == [None, Reason.BUDGET_SPENT, Reason.BUDGET_SPENT]
        assert not any(answer.closed for answer in home.answers), "a trial of this round may come back"


async def test_copies_of_a_request_that_wait_together_are_one_ask(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        request = Request("Ask", "r1", "fingerprint")
        with pytest.raises(AlreadyExists):
            await asyncio.gather(
                *(home.ask(request=request) for _ in range(4)), home.ask(request=Request("Ask", "r1", "other"))
            )
        await home.ask()
        assert [request.next_number for request in home.engine.requests] == [1, 2], "the copies were one ask"


async def test_an_ask_of_an_id_that_waits_with_another_payload_takes_its_place_if_that_one_comes_to_nothing(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as home:
        home.engine.gate.clear()
        asks = [asyncio.create_task(home.ask(request=Request("Ask", "r1", "one"), worker_id="one"))]
        while not home.engine.requests:
            await asyncio.sleep(0)
        others = [
            asyncio.create_task(home.ask(request=Request("Ask", "r1", "other"), worker_id="other")) for _ in range(3)
        ]
        await asyncio.sleep(0)
        assert not any(each.done() for each in others), "nothing is known of the id yet"
        asks[0].cancel()
        home.engine.gate.set()
        await asyncio.gather(*others)
        with pytest.raises(AlreadyExists):
            await home.ask(request=Request("Ask", "r1", "one"))
        assert [[trial.worker_id for trial in answer.trials] for answer in home.answers] == [["other"]]


async def test_asks_of_one_id_and_many_payloads_are_one_ask_and_the_others_are_refused(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        desks = [desk_of(home.store, home.engine) for _ in range(3)]
        for turn in range(3):
            outcomes = await asyncio.gather(
                *(
                    home.ask(desk=desks[(payload + copy) % 3], request=Request("Ask", f"r{turn}", f"payload {payload}"))
                    for copy in range(3)
                    for payload in range(3)
                ),
                return_exceptions=True,
            )
            refused = [isinstance(outcome, AlreadyExists) for outcome in outcomes]
            won = refused.index(False) % 3
            assert refused == [place % 3 != won for place in range(9)]
        found = await home.store.read(lambda tx: tx.find_study(NAME))
        assert found.study.next_number == 4, "each id had one trial"


async def test_an_ask_whose_caller_went_away_takes_no_trial(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        home.engine.gate.clear()
        gone = asyncio.create_task(home.ask(worker_id="gone"))
        stays = asyncio.create_task(home.ask(worker_id="stays"))
        waits = None
        while not home.engine.requests:
            await asyncio.sleep(0)
        waits = asyncio.create_task(home.ask(worker_id="waits"))
        await asyncio.sleep(0)
        gone.cancel()
        waits.cancel()
        await asyncio.sleep(0)
        home.engine.gate.set()
        await stays
        await asyncio.gather(gone, waits, return_exceptions=True)
        await home.desk.settle()
        assert [[trial.worker_id for trial in answer.trials] for answer in home.answers] == [["stays"]]
        assert numbers(home.answers[0]) == [1]


async def test_asks_beyond_those_that_may_wait_are_told_when_to_come_again(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        home.engine.gate.clear()
        desk = Desk(
            store=home.store, engine=home.engine, history=History(home.store), new_nonce=lambda: "n", max_waiting=2
        )
        asks = [asyncio.create_task(home.ask(desk=desk))]
        while not home.engine.requests:
            await asyncio.sleep(0)
        asks += [asyncio.create_task(home.ask(desk=desk)) for _ in range(3)]
        done, _ = await asyncio.wait(asks, return_when=asyncio.FIRST_COMPLETED)
        (refused,) = done
        error = refused.exception()
        assert isinstance(error, Overloaded)
        assert 1.0 <= error.retry_after <= 30.0
        assert "which lets 2 and 16 wait" in str(error)
        home.engine.gate.set()
        await asyncio.gather(*(task for task in asks if task is not refused))
        assert len(home.answers) == 3, "those that wait are met"


async def test_a_repeated_request_is_answered_from_memory_and_another_payload_is_refused(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        request = Request("Ask", "r1", "fingerprint")
        await home.ask(request=request)
        await home.ask(request=request)
        assert len(home.answers) == 1, "the second reply was not made anew"
        assert len(home.engine.requests) == 1
        with pytest.raises(AlreadyExists):
            await home.ask(request=Request("Ask", "r1", "other"))


async def test_an_unknown_study_is_not_found(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        with pytest.raises(NotFound, match="there is no study projects/p/studies/other"):
            await home.ask(study=StudyName("p", "other"))


async def test_an_expired_lease_hands_the_trial_to_the_next_worker(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        first = (await home.ask(lease_duration=timedelta(seconds=1))).trials[0]
        async with asyncio.timeout(10):
            while await leases.expire_leases(home.store) == 0:
                await asyncio.sleep(0.05)
        second = (await home.ask(worker_id="other")).trials[0]
        assert (second.number, second.attempt, second.worker_id) == (first.number, 2, "other")
        verdicts = await renewals(home).renew(leases.Renew(study=NAME, renewals=[leases.Renewal(1, first.lease.token)]))
        assert verdicts[0].directive is leases.Directive.ABANDON


async def test_an_expired_lease_is_resumed_by_its_holder_if_nobody_took_the_trial(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        first = (await home.ask(lease_duration=timedelta(seconds=1))).trials[0]
        async with asyncio.timeout(10):
            while await leases.expire_leases(home.store) == 0:
                await asyncio.sleep(0.05)
        renewal = leases.Renew(study=NAME, renewals=[leases.Renewal(1, first.lease.token)])
        assert (await renewals(home).renew(renewal))[0].directive is leases.Directive.CONTINUE
        trial = await home.store.read(lambda tx: trials.get_trial(tx, TrialName(NAME, 1)))
        assert (trial.state, trial.spent_attempts) == (TrialState.ACTIVE, 0)
        assert numbers(await home.ask()) == [2]


async def test_the_cache_drops_what_was_read_longest_ago_and_reads_it_again(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.ask(count=5)
        other = StudyName("p", "other")
        spec = StudySpec(
            space=SearchSpace((Int(name="x", low=0, high=9),)), objectives=(Objective("y", Goal.MINIMIZE),)
        )
        command = studies.CreateStudy(name=other, spec=spec, budget=Budget(), drawn_seed=0)
        await home.store.write(lambda tx: studies.create_study(tx, command))
        small = History(home.store, max_values=4)
        assert len((await small.read(NAME)).roster.trials) == 5, "one study is remembered however large it is"
        assert len((await small.read(other)).roster.trials) == 0
        assert len((await small.read(NAME)).roster.trials) == 5


async def test_a_study_made_anew_knows_nothing_of_the_deleted_one(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.ask(count=3)
        await home.store.write(lambda tx: studies.delete_study(tx, NAME))
        home.desk.history.forget(NAME)
        with pytest.raises(NotFound):
            await home.ask()
        spec = StudySpec(
            space=SearchSpace((Int(name="x", low=0, high=9),)), objectives=(Objective("y", Goal.MINIMIZE),)
        )
        command = studies.CreateStudy(name=NAME, spec=spec, budget=Budget(), drawn_seed=0)
        await home.store.write(lambda tx: studies.create_study(tx, command))
        answer = await home.ask()
        assert (numbers(answer), answer.trials[0].parameters) == ([1], {"x": 0})


async def test_adding_trials_with_measurements_takes_as_many_statements_for_ten_as_for_one(tmp_path: Path) -> None:
    def new(level: int) -> trials.NewTrial:
        measurements = [Measurement(step, {"y": MetricValue(float(level))}) for step in (1, 2)]
        return trials.NewTrial(parameters={"x": level}, state=TrialState.STOPPED, measurements=measurements)

    def count(*given: Any) -> None:
        sent.append(given[2])

    sent: list[str] = []
    counts = []
    async with house(tmp_path) as home:
        event.listen(Engine, "before_cursor_execute", count)
        try:
            for size in (1, LEVELS):
                command = trials.AddTrials(
                    study=NAME, trials=[new(level) for level in range(size)], nonces=["n"] * size
                )
                await home.store.write(lambda tx, c=command: trials.add_trials(tx, c, pack=lambda added: b""))
                counts.append(len(sent))
        finally:
            event.remove(Engine, "before_cursor_execute", count)
        last = await home.store.read(lambda tx: trials.get_trial(tx, TrialName(NAME, 1 + LEVELS)))
        assert counts[1] == 2 * counts[0]
        assert [measurement.step for measurement in last.measurements] == [1, 2]


async def test_an_update_that_changes_nothing_takes_no_sequence_number(tmp_path: Path) -> None:
    async with house(tmp_path, max_trials=5) as home:
        clerk = Clerk(home.store)
        update = studies.UpdateStudy(name=NAME, state=StudyState.PAUSED, budget=Budget(max_trials=7))
        first = await clerk.write(NAME, lambda tx: studies.update_study(tx, update))
        assert (first.study.sequence, first.study.own_sequence, first.study.budget.max_trials) == (2, 2, 7)
        assert await clerk.write(NAME, lambda tx: studies.update_study(tx, update)) == first
        assert (await home.store.read(lambda tx: studies.get_study(tx, NAME))) == first


async def test_a_long_history_is_read_in_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(tmp_path) as home:
        asked = (await home.ask(count=7)).trials
        await home.tell(asked[2])
        for page in (1, 3, 7, 100):
            monkeypatch.setattr(history, "PAGE", page)
            snapshot = await History(home.store).read(NAME)
            assert sorted(snapshot.roster.trials) == list(range(1, 8))
            assert snapshot.roster.sequence == snapshot.study.sequence
            assert (snapshot.counts.active, snapshot.counts.succeeded) == (6, 1)


async def test_a_page_of_what_was_dropped_meanwhile_does_not_hide_what_nobody_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "PAGE", 2)
    async with house(tmp_path) as home:
        await home.ask(count=9)
        slow = History(home.store)
        known = slow._known
        original, reads = slow._remember, []

        def remember(read: Any) -> Any:
            reads.append(read)
            if len(reads) == 3:
                # As if the study was evicted, and another read had begun anew.
                known.clear()
                original(reads[0])
            return original(read)

        monkeypatch.setattr(slow, "_remember", remember)
        assert sorted((await slow.read(NAME)).roster.trials) == list(range(1, 10))


async def test_asks_with_fixed_values_that_python_takes_for_equal_are_met_apart(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        outcomes = await asyncio.gather(home.ask(fixed={"x": True}), home.ask(fixed={"x": 1}), return_exceptions=True)
        assert isinstance(outcomes[0], InvalidArgument)
        assert numbers(outcomes[1]) == [1]


async def test_an_ask_that_is_short_of_time_does_not_take_the_time_of_others(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        now = time.monotonic()
        await asyncio.gather(*(home.ask(deadline=now + left) for left in (30, 0.5, 0.5, 40, 50)))
        limits = [(request.count, request.time_limit > 10) for request in home.engine.requests]
        assert limits == [(1, True), (2, False), (2, True)]


async def test_a_repeated_ask_has_the_time_of_its_latest_caller(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        request, now = Request("Ask", "r", "f"), time.monotonic()
        await asyncio.gather(*(home.ask(request=request, deadline=now + left) for left in (0.1, 30)))
        (asked,) = home.engine.requests
        assert asked.time_limit > 10


async def test_whoever_adds_trials_all_the_time_does_not_keep_an_ask_from_its_own(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        levels = iter(range(LEVELS - 1, 0, -1))
        choose = home.engine.suggest

        async def overtaken(request: SuggestRequest) -> Decision:
            decision = await choose(request)
            await home.enqueue(next(levels))
            return decision

        home.engine.suggest = overtaken
        await home.ask(fixed={"x": 0})
        assert len(home.engine.requests) == 3
        assert home.answers[-1].trials[0].parameters == {"x": 0}


async def test_asks_whose_callers_went_away_do_not_count_among_those_that_wait(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        home.engine.gate.clear()
        desk = Desk(
            store=home.store, engine=home.engine, history=History(home.store), new_nonce=lambda: "n", max_waiting=1
        )
        first = asyncio.create_task(home.ask(desk=desk))
        while not home.engine.requests:
            await asyncio.sleep(0)
        gone = asyncio.create_task(home.ask(desk=desk))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        third = asyncio.create_task(home.ask(desk=desk))
        await asyncio.sleep(0)
        home.engine.gate.set()
        await asyncio.gather(first, third)


async def test_time_that_is_spent_while_the_policy_chooses_hands_out_nothing(tmp_path: Path) -> None:
    async with house(tmp_path, max_duration=timedelta(hours=1)) as home:
        home.engine.gate.clear()
        asking = asyncio.create_task(home.ask())
        while not home.engine.requests:
            await asyncio.sleep(0)
        assert not is_over(*(await home.store.read(now_of)))
        # As if it had been created long before: this machine may need more than a second to come so far.
        aged = update(tables.studies).values(create_time=datetime(2026, 1, 1, tzinfo=UTC) - timedelta(days=9))
        await home.store.write(lambda tx: tx._connection.execute(aged))
        assert is_over(*(await home.store.read(now_of)))
        home.engine.gate.set()
        answer = await asking
        assert (answer.trials, answer.closed, answer.reason) == ((), True, Reason.BUDGET_SPENT)


def now_of(tx: Any) -> tuple[Any, Any]:
    found = tx.find_study(NAME)
    return found.study, found.now
