"""A server that dies at any step of an ask or a tell leaves nothing half done (P8).

Each round starts a server that kills itself at a named place, lets it die there, and goes on with another server: the caller repeats the
call, or is never heard of again.
"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import grpc
import pytest
from google.protobuf.message import Message

from asktell.v1 import trial_service_pb2 as trials
from tests.chaos.seed import say
from tests.postgres import Postgres
from tests.processes import Processes, Server, until
from tests.wire import Wire, refusal, refusal_of, report_request, seconds, small_study, tell_request

ASK = ("ask.chosen", "ask.inserted", "ask.committed", "ask.replying")
TELL = ("tell.locked", "tell.updated", "tell.committed", "tell.replying")
DONE = {"ask.committed", "ask.replying", "tell.committed", "tell.replying"}
"""Places that are reached when the work is in the database."""
LEASE = seconds(1)
LONG = seconds(3600)
Trial = trials.Trial
_ids = itertools.count()


@dataclass(slots=True)
class Ground:
    """A database with a server that lives; SQLite allows one at a time, so there it makes way for one that is to die."""

    processes: Processes
    database: str
    server: Server

    @property
    def _alone(self) -> bool:
        return not self.database.startswith("postgresql:")

    def doomed(self, place: str, reach: int = 1) -> Server:
        """A server that dies when it reaches the place for that time."""
        if self._alone:
            self.server.kill()
        return self.processes.serve(self.database, environment={"ASKTELL_FAILPOINTS": f"{place}=kill@{reach}"})

    def dead(self, doomed: Server) -> Wire:
        """The way to the living server, once the other has died."""
        assert doomed.wait() == -signal.SIGKILL, doomed.errors()
        if self._alone:
            self.server = self.processes.serve(self.database)
        return Wire(self.server.target)


@pytest.fixture(scope="module")
def on_postgresql(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """A PostgreSQL database with a server; each test makes studies of its own."""
    database = postgres.url(postgres.create_database(migrated=True))
    with Processes(tmp_path_factory.mktemp("postgresql")) as processes:
        yield Ground(processes, database, processes.serve(database))


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """A SQLite database with a server; each test makes studies of its own."""
    directory = tmp_path_factory.mktemp("sqlite")
    database = str(directory / "asktell.db")
    with Processes(directory) as processes:
        yield Ground(processes, database, processes.serve(database))


@pytest.fixture(params=["on_postgresql", "on_sqlite"])
def ground(request: pytest.FixtureRequest) -> Ground:
    """Either of them."""
    found: Ground = request.getfixturevalue(request.param)
    return found


def dies(call: Callable[[], object]) -> None:
    """Make a call that the server does not survive."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert refusal_of(caught.value).code is grpc.StatusCode.UNAVAILABLE


def twice(wire: Wire, method: str, request: Message) -> bytes:
    """The reply to a request that is sent twice: it has to be the same."""
    first, second = (wire.send(method, request.SerializeToString()) for _ in range(2))
    assert first == second
    return first


def ask_request(study: str, **fields: object) -> trials.AskRequest:
    return trials.AskRequest(parent=study, worker_id="w", request_id=f"ask-{next(_ids)}", **fields)


def new_study(ground: Ground) -> str:
    with Wire(ground.server.target) as wire:
        return wire.create(f"failpoints-{next(_ids)}", small_study(max_attempts=100)).name


def forms(places: Sequence[str], *, first: str) -> list[object]:
    """For each place a round in which the call is repeated, and for one also a round in which it is not; in full, many of both."""
    full = [pytest.mark.chaos, pytest.mark.timeout(600)]
    return [
        *(pytest.param("on_postgresql", place, 2 if place == first else 1) for place in places),
        pytest.param("on_sqlite", places[2], 1),
        *(pytest.param("on_postgresql", place, 25, marks=full) for place in places),
        *(pytest.param("on_sqlite", place, 4, marks=full) for place in places),
    ]


@pytest.mark.parametrize(("ground", "place", "rounds"), forms(ASK, first="ask.committed"), indirect=["ground"])
def test_an_ask_that_the_server_died_of_is_one_trial_if_repeated_and_no_orphan_if_not(
    ground: Ground, place: str, rounds: int
) -> None:
    kept, left = new_study(ground), new_study(ground)
    asked = 0
    for turn in range(rounds):
        if turn % 2 == 1:
            abandon_ask(ground, place, left)
        else:
            asked += retry_ask(ground, place, kept, reach=1 + turn % 3)
        with Wire(ground.server.target) as wire:
            assert len(wire.all_trials(kept)) == asked
    with Wire(ground.server.target) as wire:
        until(lambda: wire.study(left).trial_counts.active == 0)
        assert {trial.state for trial in wire.all_trials(left)} <= {Trial.STATE_QUEUED}
        orphans = len(wire.all_trials(left))
        taken = wire.ask(left, count=orphans, lease_duration=LONG).trials if orphans else []
        assert sorted(trial.number for trial in taken) == list(range(1, orphans + 1))
        assert all(trial.attempt > 1 for trial in taken)
        assert (orphans > 0) == (place in DONE and rounds > 1)
    say(f"{place}: {rounds} kills, {asked} asks are {asked} trials, {orphans} orphans were handed on")


def retry_ask(ground: Ground, place: str, study: str, *, reach: int) -> int:
    """The server dies of the last of `reach` asks; how many asks there were."""
    doomed = ground.doomed(place, reach)
    with Wire(doomed.target) as wire:
        for _ in range(reach - 1):
            wire.call("Ask", ask_request(study, lease_duration=LONG))
        request = ask_request(study, lease_duration=LONG)
        dies(lambda: wire.call("Ask", request))
    with ground.dead(doomed) as wire:
        before = len(wire.all_trials(study))
        (trial,) = trials.AskResponse.FromString(twice(wire, "Ask", request)).trials
        assert len(wire.all_trials(study)) == before + (place not in DONE)
        assert trial.attempt == 1
        assert wire.tell(trial, 1).state == Trial.STATE_SUCCEEDED
    return reach


def abandon_ask(ground: Ground, place: str, study: str) -> None:
    doomed = ground.doomed(place)
    with Wire(doomed.target) as wire:
        dies(lambda: wire.call("Ask", ask_request(study, lease_duration=LEASE)))
    ground.dead(doomed).channel.close()


@pytest.mark.parametrize(("ground", "place", "rounds"), forms(TELL, first="tell.updated"), indirect=["ground"])
def test_a_tell_that_the_server_died_of_counts_once_if_repeated_and_wholly_or_not_at_all_if_not(
    ground: Ground, place: str, rounds: int
) -> None:
    study = new_study(ground)
    for turn in range(rounds):
        if turn % 2 == 1:
            abandon_tell(ground, place, study, value=turn)
        else:
            retry_tell(ground, place, study, value=turn, reach=1 + turn % 3)
    with Wire(ground.server.target) as wire:
        stored = wire.all_trials(study)
        assert {trial.state for trial in stored} == {Trial.STATE_SUCCEEDED}
    say(f"{place}: {rounds} kills, {len(stored)} trials were told once each")


def retry_tell(ground: Ground, place: str, study: str, *, value: float, reach: int) -> None:
    """The server dies of the last of `reach` tells."""
    with Wire(ground.server.target) as wire:
        asked = wire.ask(study, count=reach, lease_duration=LONG).trials
    doomed = ground.doomed(place, reach)
    with Wire(doomed.target) as wire:
        for trial in asked[:-1]:
            wire.tell(trial, value)
        request = tell_request(asked[-1], value, request_id=f"tell-{next(_ids)}")
        dies(lambda: wire.call("Tell", request))
    with ground.dead(doomed) as wire:
        before = wire.trial(study, asked[-1].number)
        assert (before.state == Trial.STATE_SUCCEEDED) == (place in DONE)
        (told,) = trials.TellResponse.FromString(twice(wire, "Tell", request)).trials
        other = tell_request(asked[-1], value + 1, request_id=request.request_id)
        assert refusal(lambda: wire.call("Tell", other)).code is grpc.StatusCode.ALREADY_EXISTS
        assert wire.trial(study, told.number) == told
        assert told.metrics["loss"].value == value
        assert place not in DONE or told == before


def abandon_tell(ground: Ground, place: str, study: str, *, value: float) -> None:
    """The server dies of a tell that nobody repeats: it stands, or the trial goes to another worker when the lease is over."""
    with Wire(ground.server.target) as wire:
        trial = wire.one(study, lease_duration=LONG if place in DONE else LEASE)
    doomed = ground.doomed(place)
    with Wire(doomed.target) as wire:
        dies(lambda: wire.call("Tell", tell_request(trial, value)))
    with ground.dead(doomed) as wire:
        if place in DONE:
            assert wire.trial(study, trial.number).metrics["loss"].value == value
            return
        until(lambda: wire.trial(study, trial.number).state == Trial.STATE_QUEUED)
        again = wire.one(study, "other", lease_duration=LONG)
        assert (again.number, again.attempt) == (trial.number, 2)
        wire.tell(again, value + 1)


def test_a_server_that_dies_while_it_expires_a_lease_spends_no_attempt_of_the_trial(ground: Ground) -> None:
    with Wire(ground.server.target) as wire:
        study = wire.create("expired", small_study(max_attempts=2)).name
    ground.server.kill()  # It would expire the lease as well.
    ground.server = ground.processes.serve(ground.database, environment={"ASKTELL_FAILPOINTS": "leases.expired=kill"})
    with Wire(ground.server.target) as wire:
        trial = wire.one(study, lease_duration=LEASE)
    assert ground.server.wait() == -signal.SIGKILL
    ground.server = ground.processes.again(ground.server)
    with Wire(ground.server.target) as wire:
        until(lambda: wire.trial(study, trial.number).state != Trial.STATE_ACTIVE)
        again = wire.one(study, "other", lease_duration=LONG)
        assert (again.number, again.attempt) == (trial.number, 2)


def test_a_report_that_the_server_died_of_is_kept_once(ground: Ground) -> None:
    study = new_study(ground)
    doomed = ground.doomed("report.committed")
    with Wire(doomed.target) as wire:
        trial = wire.one(study, lease_duration=LONG)
        dies(lambda: wire.call("Report", report_request(trial, 1, 5)))
    with ground.dead(doomed) as wire:
        assert wire.call("Report", report_request(trial, 1, 5)).directive == trials.DIRECTIVE_CONTINUE
        assert [measurement.step for measurement in wire.trial(study, trial.number).measurements] == [1]
