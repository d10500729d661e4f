"""What a call costs the database: a number of statements and commits that depends neither on the space nor on the history."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from sqlalchemy import Connection, Engine, event

from asktell.server import bootstrap
from asktell.server.settings import Settings
from asktell.v1 import metric_pb2 as metric
from asktell.v1 import search_space_pb2 as space
from asktell.v1 import stopping_pb2 as stopping
from asktell.v1 import study_service_pb2 as studies
from asktell.v1 import trial_service_pb2 as pb
from asktell.v1.study_service_pb2_grpc import StudyServiceStub
from asktell.v1.trial_service_pb2_grpc import TrialServiceStub
from tests.wire import real, report_request, tell_request

NEVER = 3600.0
MOST_OF_AN_ASK = 5
MOST_OF_A_TELL = 4
SPACES = (2, 50)
HISTORIES = (5, 500)
# Begins are counted by their commits. Servers tell each other of changes when they come to it, once for many calls.
_NOT_COUNTED = ("BEGIN", "LISTEN", "pg_notify(")


@dataclass(frozen=True, slots=True)
class Cost:
    """What calls took: statements, a batch of equal ones being one, and commits of transactions that changed something."""

    statements: tuple[str, ...]
    commits: int


@dataclass(slots=True)
class Ledger:
    """Everything that all engines of this process send to their databases while it is open."""

    statements: list[str] = field(default_factory=list)
    commits: int = 0
    _changing: set[int] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def execute(self, connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if any(words in statement for words in _NOT_COUNTED):
            return
        with self._lock:
            self.statements.append(" ".join(statement.split())[:60])
            if not statement.startswith("SELECT"):
                self._changing.add(id(connection))

    def commit(self, connection: Connection) -> None:
        with self._lock:
            self.commits += id(connection) in self._changing
            self._changing.discard(id(connection))

    def rollback(self, connection: Connection) -> None:
        with self._lock:
            self._changing.discard(id(connection))

    async def of(self, call: Awaitable[Any]) -> Cost:
        """What a call costs; nothing else may run."""
        self.statements.clear()
        self.commits = 0
        await call
        return Cost(tuple(self.statements), self.commits)


@contextmanager
def ledger() -> Iterator[Ledger]:
    """A ledger that listens to every engine."""
    book = Ledger()
    listeners: Sequence[tuple[str, Callable[..., None]]] = (
        ("before_cursor_execute", book.execute),
        ("commit", book.commit),
        ("rollback", book.rollback),
    )
    for name, listener in listeners:
        event.listen(Engine, name, listener)
    try:
        yield book
    finally:
        for name, listener in listeners:
            event.remove(Engine, name, listener)


@dataclass(frozen=True, slots=True)
class Service:
    """A server in this process whose own work rests, and stubs."""

    studies: StudyServiceStub
    trials: TrialServiceStub

    @classmethod
    @asynccontextmanager
    async def on(cls, address: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
        monkeypatch.setattr(bootstrap, "PROBE_INTERVAL", NEVER)
        settings = Settings(
            listen="127.0.0.1:0",
            database=address,
            migrate=False,
            engine_processes=1,
            lease_check_interval=NEVER,
            # What is prepared behind the calls reads, too.
            speculate=False,
        )
        with ledger() as own:
            async with bootstrap.running(settings) as running:
                # The look for lost leases and the probe of the database, on PostgreSQL of two statements, once at the start.
                while len(own.statements) < (3 if address.startswith("postgresql") else 2):
                    await asyncio.sleep(0.01)
                async with grpc.aio.insecure_channel(running.target) as channel:
                    yield cls(StudyServiceStub(channel), TrialServiceStub(channel))

    async def study(
        self,
        *,
        parameters: int,
        finished: int,
        name: str = "s",
        rule: stopping.StoppingRule | None = None,
        policy: str = "random",
    ) -> studies.Study:
        """A study with so many parameters and finished trials, of which something was measured."""
        specs = [
            space.ParameterSpec(name=f"x{index}", float_spec=space.FloatSpec(low=0, high=1))
            for index in range(parameters)
        ]
        objective = metric.Objective(metric="loss", goal=metric.Objective.GOAL_MINIMIZE)
        spec = studies.StudySpec(parameters=specs, objectives=[objective], policy=policy, seed=1, stopping_rule=rule)
        created: studies.Study = await self.studies.CreateStudy(
            studies.CreateStudyRequest(parent="projects/p", study_id=name, study=studies.Study(spec=spec))
        )
        values = {f"x{index}": real(0.5) for index in range(parameters)}
        result = {"loss": metric.MetricValue(value=1.0)}
        measured = [metric.Measurement(step=1, metrics=result)]
        done = pb.NewTrial(parameters=values, state=pb.Trial.STATE_SUCCEEDED, metrics=result, measurements=measured)
        await self.trials.AddTrials(pb.AddTrialsRequest(parent=created.name, trials=[done] * finished))
        return created

    async def ask(self, study: studies.Study, *, count: int = 1, request_id: str = "") -> list[pb.Trial]:
        request = pb.AskRequest(parent=study.name, worker_id="w", count=count, request_id=request_id)
        return list((await self.trials.Ask(request)).trials)


async def queue(service: Service, study: studies.Study, *, count: int) -> None:
    """Queue trials that workers gave back."""
    for trial in await service.ask(study, count=count):
        await service.trials.ReleaseTrial(pb.ReleaseTrialRequest(name=trial.name, lease_token=trial.lease.token))


@pytest.mark.parametrize("request_id", ["", "once"])
@pytest.mark.parametrize("finished", HISTORIES)
@pytest.mark.parametrize("parameters", SPACES)
async def test_an_ask_takes_at_most_five_statements_and_one_commit(
    address: str, monkeypatch: pytest.MonkeyPatch, parameters: int, finished: int, request_id: str
) -> None:
    async with Service.on(address, monkeypatch) as service:
        study = await service.study(parameters=parameters, finished=finished)
        # The first ask of a replica may read what the next ones know.
        await service.ask(study)
        with ledger() as book:
            cost = await book.of(service.ask(study, request_id=request_id))
    assert len(cost.statements) <= MOST_OF_AN_ASK, cost
    assert cost.commits == 1, cost


@pytest.mark.parametrize("request_id", ["", "once"])
async def test_an_ask_that_finds_queued_trials_takes_as_little(
    address: str, monkeypatch: pytest.MonkeyPatch, request_id: str
) -> None:
    async with Service.on(address, monkeypatch) as service:
        study = await service.study(parameters=2, finished=5)
        await queue(service, study, count=3)
        with ledger() as book:
            cost = await book.of(service.ask(study, count=3, request_id=request_id))
    assert len(cost.statements) <= MOST_OF_AN_ASK, cost
    assert cost.commits == 1, cost


async def test_an_ask_that_goes_on_from_another_trial_takes_as_little(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Service.on(address, monkeypatch) as service:
        study = await service.study(parameters=2, finished=5, policy="pbt")
        for trial in await service.ask(study, count=8):
            await service.trials.Tell(tell_request(trial, trial.number))
        await service.ask(study)
        with ledger() as book:
            cost = await book.of(service.ask(study, count=3, request_id="once"))
        (trial,) = await service.ask(study)
    assert trial.parent > 0
    assert len(cost.statements) <= MOST_OF_AN_ASK, cost
    assert cost.commits == 1, cost


@pytest.mark.parametrize("request_id", ["", "once"])
@pytest.mark.parametrize("finished", HISTORIES)
@pytest.mark.parametrize("parameters", SPACES)
async def test_a_tell_takes_at_most_four_statements_and_one_commit(
    address: str, monkeypatch: pytest.MonkeyPatch, parameters: int, finished: int, request_id: str
) -> None:
    async with Service.on(address, monkeypatch) as service:
        study = await service.study(parameters=parameters, finished=finished)
        (trial,) = await service.ask(study)
        with ledger() as book:
            cost = await book.of(service.trials.Tell(tell_request(trial, 0.5, request_id=request_id)))
    assert len(cost.statements) <= MOST_OF_A_TELL, cost
    assert cost.commits == 1, cost


@pytest.mark.parametrize("request_id", ["", "once"])
async def test_a_tell_of_many_results_takes_as_little_as_one(
    address: str, monkeypatch: pytest.MonkeyPatch, request_id: str
) -> None:
    async with Service.on(address, monkeypatch) as service:
        study = await service.study(parameters=2, finished=5)
        requests = [tell_request(trial, 0.5) for trial in await service.ask(study, count=20)]
        results = [result for request in requests for result in request.results]
        with ledger() as book:
            together = pb.TellRequest(parent=study.name, results=results, request_id=request_id)
            cost = await book.of(service.trials.Tell(together))
    assert len(cost.statements) <= MOST_OF_A_TELL, cost
    assert cost.commits == 1, cost


@pytest.mark.parametrize("finished", HISTORIES)
async def test_a_report_takes_at_most_four_statements_and_one_commit(
    address: str, monkeypatch: pytest.MonkeyPatch, finished: int
) -> None:
    async with Service.on(address, monkeypatch) as service:
        study = await service.study(parameters=2, finished=finished)
        (trial,) = await service.ask(study)
        with ledger() as book:
            cost = await book.of(service.trials.Report(report_request(trial, 1, 0.5)))
    assert len(cost.statements) <= MOST_OF_A_TELL, cost
    assert cost.commits == 1, cost


@pytest.mark.parametrize("finished", HISTORIES)
async def test_a_report_of_a_checkpoint_alone_takes_one_statement_less(
    address: str, monkeypatch: pytest.MonkeyPatch, finished: int
) -> None:
    async with Service.on(address, monkeypatch) as service:
        study = await service.study(parameters=2, finished=finished)
        (trial,) = await service.ask(study)
        measured = report_request(trial, 1, 0.5)
        with ledger() as book:
            both = await book.of(service.trials.Report(measured))
            measured.ClearField("measurements")
            measured.checkpoint_uri = "file:///checkpoint"
            alone = await book.of(service.trials.Report(measured))
    assert len(alone.statements) == len(both.statements) - 1, (both, alone)
    assert alone.commits == 1, alone


@pytest.mark.parametrize("finished", HISTORIES)
async def test_a_stopping_rule_adds_one_statement_to_a_report_and_no_commit(
    address: str, monkeypatch: pytest.MonkeyPatch, finished: int
) -> None:
    rule = stopping.StoppingRule(median=stopping.StoppingRule.Median())
    async with Service.on(address, monkeypatch) as service:
        plain = await service.study(parameters=2, finished=finished)
        ruled = await service.study(parameters=2, finished=finished, name="ruled", rule=rule)
        costs = []
        for study in (plain, ruled):
            first, second = await service.ask(study, count=2)
            # The first report of a replica may read what the next ones know.
            await service.trials.Report(report_request(first, 1, 0.5))
            with ledger() as book:
                costs.append(await book.of(service.trials.Report(report_request(second, 1, 0.5))))
    without, judged = costs
    assert len(judged.statements) == len(without.statements) + 1, costs
    assert (without.commits, judged.commits) == (1, 1)
    assert not any("change_seq >" in statement for statement in without.statements)


@pytest.mark.parametrize("finished", HISTORIES)
async def test_a_stopping_rule_adds_one_statement_to_an_ask(
    address: str, monkeypatch: pytest.MonkeyPatch, finished: int
) -> None:
    rule = stopping.StoppingRule(median=stopping.StoppingRule.Median())
    async with Service.on(address, monkeypatch) as service:
        study = await service.study(parameters=2, finished=finished, rule=rule)
        await service.ask(study)
        with ledger() as book:
            cost = await book.of(service.ask(study))
    assert len(cost.statements) <= MOST_OF_AN_ASK + 1, cost
    assert cost.commits == 1, cost
