"""Budgets, pauses and endings: by the wire, the SDK and the command line, on both databases, and with many asks at once through two servers."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from asktell.client import Client, Float, Minimize, Reason, StudyState, aio
from asktell.v1 import study_service_pb2 as studies
from asktell.v1 import trial_service_pb2 as trials
from tests.place import Place
from tests.postgres import Postgres
from tests.processes import Processes, Server, until
from tests.wire import Wire, real, refusal, renew_request, report_request, seconds, small_study, tell_request

IDS = itertools.count()
LONG = seconds(3600)
Answer = trials.AskResponse


def study(place: Place, **budget: Any) -> str:
    return place.wire.create(f"budget{next(IDS)}", small_study(budget=budget)).name


def update(wire: Wire, name: str, *paths: str, **fields: Any) -> studies.Study:
    message = studies.Study(name=name, **fields)
    reply: studies.Study = wire.call(
        "UpdateStudy", studies.UpdateStudyRequest(study=message, update_mask=FieldMask(paths=paths))
    )
    return reply


def fail(wire: Wire, trial: trials.Trial, *, retry: bool = False) -> None:
    result = trials.TrialResult(
        number=trial.number, lease_token=trial.lease.token, failed=trials.TrialResult.Failed(retry=retry)
    )
    wire.call("Tell", trials.TellRequest(parent=trial.name.partition("/trials/")[0], results=[result]))


def nothing(answer: Answer, reason: Answer.Reason.ValueType, state: Answer.State.ValueType) -> bool:
    return (list(answer.trials), answer.reason, answer.study_state) == ([], reason, state)


def test_trials_can_be_bought_and_withdrawn_while_the_study_runs(place: Place) -> None:
    wire, name = place.wire, study(place, max_trials=3)
    given = wire.ask(name, count=5, lease_duration=LONG)
    assert (len(given.trials), given.reason) == (3, Answer.REASON_BUDGET_SPENT)
    assert nothing(wire.ask(name), Answer.REASON_BUDGET_SPENT, Answer.STATE_OPEN)
    update(wire, name, "budget", budget=studies.Budget(max_trials=5))
    assert len(wire.ask(name, count=5, lease_duration=LONG).trials) == 2
    update(wire, name, "budget", budget=studies.Budget(max_trials=2))
    for trial in given.trials:
        wire.tell(trial, 1.0)
    assert nothing(wire.ask(name), Answer.REASON_BUDGET_SPENT, Answer.STATE_OPEN)
    update(wire, name, "budget", budget=studies.Budget())
    assert len(wire.ask(name, count=2, lease_duration=LONG).trials) == 2


def test_failures_are_counted_when_they_are_final_and_more_may_be_allowed(place: Place) -> None:
    wire, name = place.wire, study(place, max_failures=2)
    fail(wire, wire.one(name, lease_duration=LONG), retry=True)
    again = wire.one(name, lease_duration=LONG)
    assert again.attempt == 2
    fail(wire, again)
    fail(wire, wire.one(name, lease_duration=LONG))
    assert nothing(wire.ask(name), Answer.REASON_BUDGET_SPENT, Answer.STATE_CLOSED)
    update(wire, name, "budget", budget=studies.Budget(max_failures=3))
    assert wire.one(name, lease_duration=LONG).number == 3


def test_time_is_spent_by_the_databases_clock_since_creation(place: Place) -> None:
    wire, name = place.wire, study(place, max_duration=seconds(3600))
    created = wire.study(name).create_time.ToDatetime()
    held = wire.one(name, lease_duration=LONG)
    # So much from here on, however long that took.
    limit = (held.create_time.ToDatetime() - created).total_seconds() + 2
    update(wire, name, "budget", budget=studies.Budget(max_duration=seconds(limit)))
    until(lambda: not wire.ask(name, lease_duration=LONG).trials)
    assert nothing(wire.ask(name), Answer.REASON_BUDGET_SPENT, Answer.STATE_CLOSED)
    last = max(trial.create_time.ToDatetime() for trial in wire.all_trials(name))
    assert 0 <= (last - created).total_seconds() < limit
    assert wire.tell(held, 1.0).state == trials.Trial.STATE_SUCCEEDED
    update(wire, name, "budget", budget=studies.Budget(max_duration=seconds(3600)))
    assert len(wire.ask(name, lease_duration=LONG).trials) == 1


def test_no_more_are_active_at_one_time_than_allowed_whatever_the_limit_becomes(place: Place) -> None:
    wire, name = place.wire, study(place, max_parallel=2)
    first, second = wire.ask(name, count=3, lease_duration=LONG).trials
    assert nothing(wire.ask(name), Answer.REASON_MAX_PARALLEL, Answer.STATE_OPEN)
    update(wire, name, "budget", budget=studies.Budget(max_parallel=1))
    wire.tell(first, 1.0)
    assert nothing(wire.ask(name), Answer.REASON_MAX_PARALLEL, Answer.STATE_OPEN)
    wire.tell(second, 1.0)
    assert len(wire.ask(name, count=3, lease_duration=LONG).trials) == 1


@pytest.mark.parametrize("by", ["report", "renewal"])
def test_an_expired_lease_goes_on_only_while_the_study_is_not_full(place: Place, by: str) -> None:
    wire, name = place.wire, study(place, max_parallel=1)

    def go_on(trial: trials.Trial) -> trials.Directive.ValueType:
        if by == "report":
            directive: trials.Directive.ValueType = wire.call("Report", report_request(trial, 1, 0.5)).directive
            return directive
        return wire.call("RenewLeases", renew_request(trial)).leases[0].directive

    wire.enqueue(name, [0.25, 0.5])
    first = wire.one(name, worker_id="a", lease_duration=seconds(1))
    until(lambda: wire.trial(name, first.number).state == trials.Trial.STATE_QUEUED)
    second = wire.one(name, worker_id="b", lease_duration=LONG, fixed_parameters={"x": real(0.5)})
    assert go_on(first) == trials.DIRECTIVE_ABANDON
    assert wire.study(name).trial_counts.active == 1
    wire.tell(second, 1.0)
    assert go_on(first) == trials.DIRECTIVE_CONTINUE
    # Its lease is not to run out under another test.
    wire.tell(first, 1.0)


def test_a_paused_study_takes_what_its_workers_say_and_hands_out_nothing(place: Place) -> None:
    wire, name = place.wire, study(place)
    trial = wire.one(name, lease_duration=LONG)
    update(wire, name, "state", state=studies.Study.STATE_PAUSED)
    assert nothing(wire.ask(name), Answer.REASON_PAUSED, Answer.STATE_OPEN)
    assert wire.call("Report", report_request(trial, 1, 0.5)).directive == trials.DIRECTIVE_CONTINUE
    (renewed,) = wire.call("RenewLeases", renew_request(trial)).leases
    assert renewed.directive == trials.DIRECTIVE_CONTINUE
    assert wire.tell(trial, 1.0).state == trials.Trial.STATE_SUCCEEDED
    update(wire, name, "state", state=studies.Study.STATE_ACTIVE)
    assert len(wire.ask(name).trials) == 1


def test_a_finished_study_is_closed_until_it_is_opened_again(place: Place) -> None:
    wire, name = place.wire, study(place)
    trial = wire.one(name, lease_duration=LONG)
    update(wire, name, "state", state=studies.Study.STATE_FINISHED)
    assert nothing(wire.ask(name), Answer.REASON_FINISHED, Answer.STATE_CLOSED)
    assert wire.tell(trial, 1.0).state == trials.Trial.STATE_SUCCEEDED
    update(wire, name, "state", state=studies.Study.STATE_ACTIVE)
    assert len(wire.ask(name).trials) == 1


def test_an_update_leaves_what_it_does_not_name_and_a_bad_one_leaves_all(place: Place) -> None:
    wire, name = place.wire, study(place, max_trials=3, max_parallel=2)
    paused = update(wire, name, "state", state=studies.Study.STATE_PAUSED, budget=studies.Budget(max_trials=9))
    assert (paused.state, paused.budget.max_trials) == (studies.Study.STATE_PAUSED, 3)
    before = place.dump()
    for field, value in (("max_trials", 0), ("max_failures", -1), ("max_parallel", 2**62)):
        bad = studies.Budget(**{field: value})
        assert refusal(lambda bad=bad: update(wire, name, "budget", budget=bad)).field == f"study.budget.{field}"
    assert place.dump() == before


def test_the_sdk_changes_budgets_and_states(place: Place) -> None:
    with Client(place.server.target, project="p") as client:
        mine = client.create_study(
            f"sdk{next(IDS)}", parameters=[Float("x", 0, 1)], objectives=[Minimize("y")], policy="random", max_trials=1
        )
        (trial,) = mine.ask()
        assert mine.ask_once().reason is Reason.BUDGET_SPENT
        mine.update(max_trials=2, max_parallel=1)
        assert mine.ask_once().reason is Reason.MAX_PARALLEL
        mine.update(max_parallel=None)
        assert (mine.budget.max_trials, mine.budget.max_parallel) == (2, None)
        mine.pause()
        assert mine.ask_once().reason is Reason.PAUSED
        mine.resume()
        (other,) = mine.ask()
        for told in (trial, other):
            told.tell(y=1.0)
        mine.finish()
        answer = mine.ask_once()
        assert (answer.closed, answer.reason, mine.state) == (True, Reason.FINISHED, StudyState.FINISHED)


async def test_the_sdk_for_asyncio_changes_budgets_and_carries_studies(place: Place, tmp_path: Path) -> None:
    async with aio.Client(place.server.target, project="p") as client:
        mine = await client.create_study(
            f"aio{next(IDS)}", parameters=[Float("x", 0, 1)], objectives=[Minimize("y")], policy="random", max_trials=1
        )
        await mine.ask()
        await mine.update(max_trials=2)
        assert len(await mine.ask()) == 1
        await mine.pause()
        assert (await mine.ask_once()).reason is Reason.PAUSED
        assert await mine.export(tmp_path / "study.jsonl") == 2
        copy = await client.import_study(tmp_path / "study.jsonl", f"aio{next(IDS)}")
        assert (copy.state, copy.counts.queued, copy.budget) == (StudyState.PAUSED, 2, mine.budget)
        lines = [line async for line in mine.export_lines()]
        assert b"".join(lines) == (tmp_path / "study.jsonl").read_bytes()


# Many at once.


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """One server on SQLite, or two on one PostgreSQL."""
    directory = tmp_path_factory.mktemp("budgets")
    with Processes(directory) as processes:
        if request.param == "sqlite":
            yield [processes.serve(str(directory / "asktell.db"))]
            return
        postgres: Postgres = request.getfixturevalue("postgres")
        database = postgres.url(postgres.create_database(migrated=True))
        yield [processes.serve(database) for _ in range(2)]


def crowd(servers: list[Server], work: Callable[[Wire, int], None], *, size: int = 8) -> None:
    """Run `work` in so many threads, each with a client of its own, spread over the servers."""

    def run(place: int) -> None:
        with Wire(servers[place % len(servers)].target) as wire:
            work(wire, place)

    with ThreadPoolExecutor(size) as pool:
        list(pool.map(run, range(size)))


def test_a_crowd_creates_exactly_as_many_trials_as_the_budget_has(servers: list[Server]) -> None:
    with Wire(servers[0].target) as wire:
        name = wire.create(f"crowd{next(IDS)}", small_study(budget={"max_trials": 41})).name

        def work(mine: Wire, place: int) -> None:
            while (answer := mine.ask(name, f"w{place}", count=1 + place % 3)).study_state == Answer.STATE_OPEN:
                for trial in answer.trials:
                    mine.tell(trial, trial.number / 7)

        crowd(servers, work)
        found = wire.all_trials(name)
    assert [trial.number for trial in found] == list(range(1, 42))
    assert {trial.state for trial in found} == {trials.Trial.STATE_SUCCEEDED}
    assert len({trial.parameters["x"].double_value for trial in found}) == 41


def test_a_crowd_never_holds_more_trials_at_one_time_than_allowed(servers: list[Server]) -> None:
    """Told by intervals: from when the database handed a trial out to when it took its end."""
    limit = 3
    with Wire(servers[0].target) as wire:
        name = wire.create(f"crowd{next(IDS)}", small_study(budget={"max_parallel": limit, "max_trials": 30})).name

        def work(mine: Wire, place: int) -> None:
            while (answer := mine.ask(name, f"w{place}", count=2)).study_state == Answer.STATE_OPEN:
                assert wire.study(name).trial_counts.active <= limit
                for trial in answer.trials:
                    mine.tell(trial, 1.0)

        crowd(servers, work)
        found = wire.all_trials(name)
    assert len(found) == 30
    # In the order of the sequence numbers of ends, which the study's lock makes that of the commits.
    for trial in found:
        at = trial.start_time.ToDatetime()
        holding = [each for each in found if each.start_time.ToDatetime() <= at < each.end_time.ToDatetime()]
        assert len(holding) <= limit, [each.number for each in holding]


def test_a_budget_lowered_and_a_pause_in_a_crowd_hold_from_their_reply_on(servers: list[Server]) -> None:
    with Wire(servers[-1].target) as wire:
        name = wire.create(f"crowd{next(IDS)}", small_study(budget={"max_trials": 100_000})).name
        stopped = threading.Event()

        def work(mine: Wire, place: int) -> None:
            if place == 0:
                until(lambda: sum(1 for _ in wire.all_trials(name)) >= 20)
                _hold(wire, name, stopped)
                return
            while not stopped.is_set():
                for trial in mine.ask(name, f"w{place}", lease_duration=LONG).trials:
                    mine.call("Tell", tell_request(trial, 1.0))

        crowd(servers, work, size=5)


def _hold(wire: Wire, name: str, stopped: threading.Event) -> None:
    """Pause, then go on with a budget that is spent already; nothing is created from either reply on."""
    try:
        paused = update(wire, name, "state", state=studies.Study.STATE_PAUSED)
        for _ in range(20):
            wire.ask(name)
        assert sum(_all(wire.study(name))) == sum(_all(paused))
        spent = update(
            wire, name, "state", "budget", state=studies.Study.STATE_ACTIVE, budget=studies.Budget(max_trials=5)
        )
        for _ in range(20):
            wire.ask(name)
        assert sum(_all(wire.study(name))) == sum(_all(spent)) == sum(_all(paused))
    finally:
        stopped.set()


def _all(study: studies.Study) -> list[int]:
    counts = study.trial_counts
    return [getattr(counts, field.name) for field in counts.DESCRIPTOR.fields]
