"""What an ask and a tell cost the database, and how an ask carries a hint from one to the next, on every store."""

from __future__ import annotations

import itertools
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog

from asktell.server.application import studies, trials
from asktell.server.application.ask import Answer, Ask, Reason
from asktell.server.application.clerk import Clerk
from asktell.server.application.desk import Desk
from asktell.server.application.history import History
from asktell.server.application.ports import Request
from asktell.server.application.tell import Failed, Result, Succeeded, Tell, tell
from asktell.server.domain.metric import Goal, MetricValue, Objective
from asktell.server.domain.policy import MAX_HINT, Candidate, Decision, SuggestRequest
from asktell.server.domain.space import Float, SearchSpace
from asktell.server.domain.study import Budget, StudyName, StudySpec
from asktell.server.domain.trial import Origin, Trial, TrialState
from asktell.server.persistence.store import SqlStore
from tests.cost import Cost, counted

NAME = StudyName("p", "s")
SPEC = StudySpec(
    space=SearchSpace((Float(name="x", low=0.0, high=1.0),)), objectives=(Objective("y", Goal.MINIMIZE),), policy="gp"
)
IDS = itertools.count()


@dataclass
class Hinting:
    """An engine that remembers its requests and leaves the hint that `leave` makes of a request."""

    leave: Callable[[SuggestRequest], bytes]
    requests: list[SuggestRequest] = field(default_factory=list)

    def policies(self) -> Collection[str]:
        return ["gp"]

    async def suggest(self, request: SuggestRequest) -> Decision:
        self.requests.append(request)
        numbers = range(request.next_number, request.next_number + request.count)
        candidates = (Candidate({"x": 1 / number}, Origin(policy="hinting")) for number in numbers)
        return Decision(tuple(candidates), hint=self.leave(request))

    @property
    def hints(self) -> list[bytes]:
        return [request.hint for request in self.requests]


@dataclass
class Overtaken(Hinting):
    """An engine during whose first computation something else happens."""

    meanwhile: Callable[[], Awaitable[Any]] = field(kw_only=True)

    async def suggest(self, request: SuggestRequest) -> Decision:
        if not self.requests:
            await self.meanwhile()
        return await super().suggest(request)


@dataclass
class Replica:
    """A desk on the store, and what it costs to use it."""

    store: SqlStore
    desk: Desk

    async def ask(self, *, count: int = 1, named: bool = False) -> tuple[list[Trial], Cost]:
        given: list[Answer] = []
        request = Request("Ask", f"r{next(IDS)}", "fingerprint") if named else None
        with counted() as cost:
            await self._send(request, count=count, given=given)
        await self.desk.settle()
        return list(given[-1].trials), cost

    async def send(self, request: Request | None, *, count: int = 1, given: list[Answer]) -> bytes:
        """Ask, and note the answers that are made on the way; the hint is stored then."""
        reply = await self._send(request, count=count, given=given)
        await self.desk.settle()
        return reply

    async def _send(self, request: Request | None, *, count: int, given: list[Answer]) -> bytes:
        command = Ask(study=NAME, count=count, worker_id="w", deadline=time.monotonic() + 30, request=request)

        def pack(answer: Answer) -> bytes:
            given.append(answer)
            return repr([trial.number for trial in answer.trials]).encode()

        return await self.desk.ask(command, pack=pack)

    async def tell(self, told: list[Trial], *, named: bool = False) -> Cost:
        results = [
            Result(number=trial.number, lease_token=trial.lease.token, outcome=Succeeded({"y": MetricValue(1.0)}))
            for trial in told
        ]
        request = Request("Tell", f"r{next(IDS)}", "fingerprint") if named else None
        command = Tell(study=NAME, results=results, request=request)
        with counted() as cost:
            await Clerk(self.store).make(tell(command, pack=lambda told: b"packed"))
        return cost


def replica(store: SqlStore, engine: Hinting) -> Replica:
    desk = Desk(store=store, engine=engine, history=History(store), new_nonce=lambda: f"n{next(IDS)}")
    return Replica(store, desk)


async def create(store: SqlStore, *, finished: int = 0, **budget: int) -> None:
    """A study with finished trials."""
    command = studies.CreateStudy(name=NAME, spec=SPEC, budget=Budget(**budget), drawn_seed=0)
    await store.write(lambda tx: studies.create_study(tx, command))
    if finished:
        new = [
            trials.NewTrial(
                parameters={"x": 1 / number}, state=TrialState.SUCCEEDED, metrics={"y": MetricValue(float(number))}
            )
            for number in range(1, finished + 1)
        ]
        adding = trials.AddTrials(study=NAME, trials=new, nonces=[f"n{number}" for number in range(finished)])
        await store.write(lambda tx: trials.add_trials(tx, adding, pack=lambda added: b""))


def fresh(request: SuggestRequest) -> bytes:
    """A hint that no other request leads to."""
    return f"after {request.next_number - 1} trials".encode()


async def costs(store: SqlStore, *, count: int, named: bool) -> dict[str, Any]:
    """What the first and a later ask and tell of a replica cost, in statements and commits."""
    home = replica(store, Hinting(fresh))
    measured = {}
    for when in ("first", "later"):
        asked, cost = await home.ask(count=count, named=named)
        assert len(asked) == count
        measured[f"{when} ask"] = (cost.statements, cost.commits)
        cost = await home.tell(asked, named=named)
        measured[f"{when} tell"] = (cost.statements, cost.commits)
    return measured


@pytest.mark.parametrize("finished", [5, 200])
@pytest.mark.parametrize("named", [False, True])
async def test_an_ask_is_at_most_five_statements_a_tell_four_and_one_commit_each_however_many_trials(
    store, finished, named
):
    await create(store, finished=finished)
    for count in (1, 8):
        assert await costs(store, count=count, named=named) == {
            "first ask": (4 + named, 1),
            "first tell": (3 + named, 1),
            "later ask": (4 + named, 1),
            "later tell": (3 + named, 1),
        }


async def test_limits_cost_an_ask_nothing_unless_the_study_changes_under_it(store):
    await create(store, max_parallel=10, max_trials=100, max_failures=5)
    assert (await costs(store, count=2, named=True))["later ask"] == (5, 1)


async def test_a_failure_told_while_an_ask_is_met_spends_the_budget_before_its_trial_is_handed_out(store):
    await create(store, max_failures=1)
    home = replica(store, Hinting(fresh))
    (held,), _ = await home.ask()
    answers: list[Answer] = []

    async def fail() -> None:
        result = Result(number=held.number, lease_token=held.lease.token, outcome=Failed("broken", retry=False))
        await Clerk(store).make(tell(Tell(study=NAME, results=[result]), pack=lambda told: b""))

    await replica(store, Overtaken(fresh, meanwhile=fail)).send(None, given=answers)
    assert (answers[-1].trials, answers[-1].reason, answers[-1].closed) == ((), Reason.BUDGET_SPENT, True)
    assert (await store.read(lambda tx: tx.find_study(NAME))).study.next_number == 2


async def test_a_result_told_while_an_ask_is_met_does_not_make_it_choose_again_while_the_budget_allows(store):
    await create(store, max_failures=2)
    home = replica(store, Hinting(fresh))
    (held,), _ = await home.ask()
    engine = Overtaken(fresh, meanwhile=lambda: home.tell([held]))
    ((asked,), _) = await replica(store, engine).ask()
    assert (asked.number, len(engine.requests)) == (2, 1)


@pytest.mark.parametrize("leave", [lambda request: b"", lambda request: b"the same", lambda request: request.hint])
async def test_a_hint_that_is_not_new_is_not_written(store, leave):
    await create(store)
    home = replica(store, Hinting(leave))
    await home.ask()
    assert (await home.ask())[1].statements == 4


async def test_each_ask_brings_what_the_one_before_it_left(store):
    await create(store)
    engine = Hinting(fresh)
    home = replica(store, engine)
    for _ in range(3):
        await home.ask()
    assert engine.hints == [b"", b"after 0 trials", b"after 1 trials"]


async def test_an_ask_that_leaves_no_hint_keeps_the_stored_one(store):
    await create(store)
    engine = Hinting(lambda request: fresh(request) if request.next_number == 1 else b"")
    home = replica(store, engine)
    for _ in range(3):
        await home.ask()
    assert engine.hints == [b"", b"after 0 trials", b"after 0 trials"]


async def test_a_hint_that_is_too_long_is_dropped_with_a_word_in_the_log(store):
    await create(store)
    engine = Hinting(lambda request: b"h" * (MAX_HINT + (request.next_number > 1)))
    home = replica(store, engine)
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            await home.ask()
    assert engine.hints == [b"", b"h" * MAX_HINT, b"h" * MAX_HINT]
    dropped = {"event": "hint_dropped", "log_level": "debug", "study": str(NAME), "policy": "gp", "bytes": MAX_HINT + 1}
    assert logs == [dropped] * 2


async def test_an_ask_that_claims_what_is_queued_writes_no_hint(store):
    await create(store)
    engine = Hinting(fresh)
    home = replica(store, engine)
    adding = trials.AddTrials(study=NAME, trials=[trials.NewTrial(parameters={"x": 0.5})], nonces=["n"])
    await store.write(lambda tx: trials.add_trials(tx, adding, pack=lambda added: b""))
    await home.ask()
    await home.ask()
    assert engine.hints == [b""]
    assert (await store.read(lambda tx: tx.find_study(NAME))).hint == b"after 1 trials"


async def test_an_ask_that_lost_to_another_replica_chooses_again_with_the_winners_hint(store):
    await create(store)
    fast = replica(store, Hinting(lambda request: b"of the winner"))
    engine = Overtaken(lambda request: b"of the loser", meanwhile=fast.ask)
    asked, _ = await replica(store, engine).ask()
    assert [trial.number for trial in asked] == [2]
    assert engine.hints == [b"", b"of the winner"]
    assert (await store.read(lambda tx: tx.find_study(NAME))).hint == b"of the loser"


async def test_copies_of_a_request_on_two_replicas_create_trials_once_and_get_one_reply(store):
    await create(store)
    request, given = Request("Ask", "copied", "fingerprint"), []
    fast = replica(store, Hinting(fresh))
    engine = Overtaken(fresh, meanwhile=lambda: fast.send(request, count=2, given=given))
    reply = await replica(store, engine).send(request, count=2, given=given)
    assert reply == b"[1, 2]"
    assert len(engine.requests) == 1, "the copy that came too late found the reply and chose nothing more"
    found = await store.read(lambda tx: tx.find_study(NAME))
    assert (found.study.next_number, found.hint) == (3, b"after 0 trials")


async def test_copies_of_a_request_for_a_trial_that_came_back_to_the_queue_get_one_reply(store):
    """The late copy's own view still holds: the trial is queued again, so that its reply alone is in the way."""
    await create(store)
    adding = trials.AddTrials(study=NAME, trials=[trials.NewTrial(parameters={"x": 0.5})], nonces=["n"])
    await store.write(lambda tx: trials.add_trials(tx, adding, pack=lambda added: b""))
    request, given = Request("Ask", "copied", "fingerprint"), []
    fast, slow = replica(store, Hinting(fresh)), replica(store, Hinting(fresh))
    read = slow.desk.history.read
    reads = []

    async def read_early(name: StudyName, **how: Any) -> Any:
        snapshot = await read(name, **how)
        reads.append(snapshot)
        if len(reads) == 1:
            await fast.send(request, given=given)
            await requeue(store, given[-1].trials[0])
        return snapshot

    slow.desk.history.read = read_early
    assert await slow.send(request, given=given) == b"[1]"
    trial = (await store.read(lambda tx: tx.find_trials(reads[0].study.id, [1])))[1]
    assert trial.state is TrialState.QUEUED, "the late copy handed out nothing"
    assert len(reads) == 2


async def requeue(store: SqlStore, trial: Trial) -> None:
    """Give a trial back as its worker would."""
    result = Result(number=trial.number, lease_token=trial.lease.token, outcome=Failed("preempted", retry=True))
    await Clerk(store).make(tell(Tell(study=NAME, results=[result]), pack=lambda told: b""))
