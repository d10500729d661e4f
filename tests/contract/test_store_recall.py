"""Asks that are met from what a replica remembers of its own changes, on every store."""

from __future__ import annotations

import itertools
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from asktell.server.application import studies, trials
from asktell.server.application.ask import Answer, Ask
from asktell.server.application.clerk import Clerk
from asktell.server.application.desk import Desk
from asktell.server.application.history import History, Snapshot
from asktell.server.application.ports import Request
from asktell.server.application.tell import Failed, Result, Succeeded, Taken, Tell, tell
from asktell.server.domain.metric import Goal, MetricValue, Objective
from asktell.server.domain.policy import Candidate, Decision, SuggestRequest
from asktell.server.domain.space import Categorical, Float, Int, SearchSpace
from asktell.server.domain.study import Budget, StudyName, StudySpec, StudyState
from asktell.server.domain.trial import Origin, Prediction, Trial
from asktell.server.persistence.store import SqlStore
from tests.cost import Cost, counted

NAME = StudyName("p", "s")
SPEC = StudySpec(
    space=SearchSpace(
        (
            Float(name="x", low=1e-9, high=1.0, log=True),
            Int(name="n", low=1, high=1_000_000),
            Categorical(name="kind", choices=("a", "b")),
        )
    ),
    objectives=(Objective("y", Goal.MINIMIZE),),
    policy="gp",
)
IDS = itertools.count()


@dataclass
class Choosing:
    """An engine that notes its requests; numbers that need all their digits are candidates. With `modelled`, a surrogate's that were never
    prepared; `meanwhile` happens while it chooses.
    """

    requests: list[SuggestRequest] = field(default_factory=list)
    modelled: bool = False
    meanwhile: Callable[[], Awaitable[Any]] | None = None

    def policies(self) -> Collection[str]:
        return ["gp"]

    async def suggest(self, request: SuggestRequest) -> Decision:
        self.requests.append(request)
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        if request.space.parameters[1].high < request.next_number:
            return Decision(())
        return Decision(
            tuple(
                Candidate({"x": 0.1 / (3 * number), "n": number, "kind": "ab"[number % 2]}, self.origin(number))
                for number in range(request.next_number, request.next_number + request.count)
            ),
            hint=f"of {request.next_number}".encode(),
        )

    async def suggest_ahead(self, request: SuggestRequest) -> Decision | None:
        return None

    def origin(self, number: int) -> Origin:
        predictions = {"y": Prediction(0.1 / number, 0.2)}
        acquisition = -number / 7 if self.modelled else None
        return Origin(policy="gp", predictions=predictions, acquisition=acquisition, incumbent=0.3)


@dataclass
class Replica:
    """A desk and a clerk on the store, joined as the servicer joins them."""

    store: SqlStore
    engine: Choosing = field(default_factory=Choosing)
    desk: Desk = field(init=False)

    def __post_init__(self) -> None:
        self.desk = Desk(
            store=self.store,
            engine=self.engine,
            history=History(self.store),
            new_nonce=lambda: f"n{next(IDS)}",
            speculate=True,
        )

    async def ask(self, *, count: int = 1, request: Request | None = None, **how: Any) -> Answer:
        given: list[Answer] = []
        command = Ask(study=NAME, count=count, worker_id="w", deadline=time.monotonic() + 30, request=request, **how)
        await self.desk.ask(command, pack=lambda answer: given.append(answer) or b"packed")
        await self.desk.settle()
        return given[-1]

    async def reply(self, request: Request) -> bytes:
        command = Ask(study=NAME, count=1, worker_id="w", deadline=time.monotonic() + 30, request=request)
        return await self.desk.ask(command, pack=lambda answer: repr([each.number for each in answer.trials]).encode())

    async def tell(self, *told: Trial, outcome: Any = None) -> None:
        came_to: list[Taken] = []
        succeeded = Succeeded({"y": MetricValue(0.7, 0.1)})
        results = [
            Result(
                number=trial.number, lease_token=trial.lease.token, outcome=outcome or succeeded, metadata={"k": "v"}
            )
            for trial in told
        ]
        command = Tell(study=NAME, results=results)
        await Clerk(self.store).make(tell(command, pack=lambda taken: came_to.append(taken) or b""))
        self.desk.told(command, came_to[-1].trials)

    async def settled(self) -> Replica:
        """Itself, once its asks are met from memory: a read brought nothing new."""
        for _ in range(2):
            await self.tell(*(await self.ask()).trials)
        return self

    def recalled(self) -> Snapshot | None:
        return self.desk.history.recall(NAME)


async def create(store: SqlStore, *, space: SearchSpace = SPEC.space, **budget: Any) -> None:
    command = studies.CreateStudy(name=NAME, spec=replace(SPEC, space=space), budget=Budget(**budget), drawn_seed=0)
    await store.write(lambda tx: studies.create_study(tx, command))


async def update(store: SqlStore, **changes: Any) -> None:
    await store.write(lambda tx: studies.update_study(tx, studies.UpdateStudy(name=NAME, **changes)))


def comparable(snapshot: Snapshot) -> Any:
    """All of a snapshot but the clock, and when the study's row was last written."""
    study = replace(snapshot.study, update_time=snapshot.study.create_time)
    roster = snapshot.roster
    kept = [list(roster.queued), list(roster.unfinished), roster.observations, roster.trials, roster.sequence]
    return study, kept, snapshot.counts, snapshot.hint


async def each_step(home: Replica) -> Sequence[Callable[[], Any]]:
    """What a replica may do to its study, one after the other."""
    first, second, third, fourth = (await home.ask(count=4)).trials
    return [
        lambda: home.tell(first),
        lambda: home.ask(count=2),
        lambda: home.tell(second, third),
        lambda: home.tell(fourth, outcome=Failed("broken", retry=True)),
        lambda: home.ask(),
        lambda: home.ask(),
    ]


async def test_what_a_replica_remembers_of_its_own_changes_is_what_it_would_read(store):
    await create(store)
    home = await Replica(store).settled()
    for step in await each_step(home):
        await step()
        remembered = home.recalled() or await home.desk.history.read(NAME)
        assert comparable(remembered) == comparable(await History(store).read(NAME))
    assert home.recalled() is not None


async def test_asks_of_a_study_that_only_this_replica_changes_read_nothing(store):
    await create(store)
    home = await Replica(store).settled()
    engine_saw = len(home.engine.requests)
    for _ in range(3):
        with counted() as cost:
            (trial,) = (await home.ask()).trials
        await home.tell(trial)
        # Lock the study and insert the trial; the hint has a transaction of its own behind the ask.
        assert cost == Cost(statements=3, commits=2)
    assert [len(request.observations) for request in home.engine.requests[engine_saw:]] == [2, 3, 4]


async def test_a_change_by_another_replica_is_found_at_the_hand_out_and_known_to_the_next_choice(store):
    await create(store)
    (shared,) = (await Replica(store).ask()).trials
    home, other = await Replica(store).settled(), Replica(store)
    await other.tell(shared)
    (trial,) = (await home.ask()).trials
    assert [len(request.observations) for request in home.engine.requests[-2:]] == [2, 3]
    assert trial.number == 4
    assert home.recalled() is None, "somebody else changes the study too: the next ask reads it at once"
    await home.ask()
    assert [len(request.observations) for request in home.engine.requests[-2:]] == [3, 3]
    assert home.recalled() is not None, "nobody did"


async def test_a_result_that_comes_while_a_surrogate_chooses_does_not_make_it_choose_again(store):
    await create(store)
    home = await Replica(store, Choosing(modelled=True)).settled()
    (trial,) = (await home.ask()).trials
    assert home.recalled() is not None
    home.engine.meanwhile = lambda: home.tell(trial)
    chosen = len(home.engine.requests)
    (other,) = (await home.ask()).trials
    assert (other.number, len(home.engine.requests)) == (4, chosen + 1)


async def test_trials_of_two_replicas_that_remember_are_never_the_same(store):
    await create(store)
    first, second = await Replica(store).settled(), Replica(store)
    numbers = [each.number for home in (second, first, second, first, first) for each in (await home.ask()).trials]
    assert numbers == [3, 4, 5, 6, 7]


async def test_a_repeated_request_gets_its_reply_though_the_replica_does_not_look_for_it_first(store):
    await create(store)
    home, request = await Replica(store).settled(), Request("Ask", "repeated", "fingerprint")
    replies = [await home.reply(request) for _ in range(3)]
    assert replies == [b"[3]"] * 3
    assert (await store.read(lambda tx: tx.find_study(NAME))).study.next_number == 4


@pytest.mark.parametrize("changes", [{"state": StudyState.PAUSED}, {"state": StudyState.FINISHED}])
async def test_a_study_that_was_stopped_elsewhere_hands_out_nothing(store, changes):
    await create(store)
    home = await Replica(store).settled()
    await update(store, **changes)
    assert not (await home.ask()).trials


async def test_a_trial_that_was_queued_elsewhere_goes_first(store):
    await create(store)
    home = await Replica(store).settled()
    new = [trials.NewTrial(parameters={"x": 0.5, "n": 5, "kind": "a"})]
    adding = trials.AddTrials(study=NAME, trials=new, nonces=["added"])
    await store.write(lambda tx: trials.add_trials(tx, adding, pack=lambda added: b""))
    (trial,) = (await home.ask()).trials
    assert (trial.number, trial.parameters["n"]) == (3, 5)


async def test_a_study_made_anew_is_not_taken_for_the_one_that_is_remembered(store):
    await create(store)
    home = await Replica(store).settled()
    await store.write(lambda tx: studies.delete_study(tx, NAME))
    await create(store)
    (trial,) = (await home.ask()).trials
    assert (trial.number, home.engine.requests[-1].observations) == (1, ())


async def test_a_budget_that_is_spent_is_read_before_an_ask_hears_so(store):
    await create(store, max_trials=3)
    home = await Replica(store).settled()
    (last,) = (await home.ask()).trials
    assert not (await home.ask()).closed
    await Replica(store).tell(last)
    assert (await home.ask()).closed


async def test_a_space_that_was_exhausted_and_became_wider_elsewhere_goes_on(store):
    await create(store, space=few(2))
    home = await Replica(store).settled()
    assert (await home.ask()).closed
    await update(store, parameters=few(3).parameters)
    (trial,) = (await home.ask()).trials
    assert trial.number == 3


def few(most: int) -> SearchSpace:
    """A space that the engine finds exhausted after so many trials."""
    return SearchSpace(tuple(replace(each, high=most) if each.name == "n" else each for each in SPEC.space.parameters))
