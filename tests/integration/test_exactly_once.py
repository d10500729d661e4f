"""A call with a request id happens once, however often, wherever and whenever it is sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.protobuf.message import Message
from grpc import RpcError, StatusCode

from asktell.v1 import trial_service_pb2 as trials
from tests.processes import Processes
from tests.wire import Wire, real, refusal, refusal_of, small_study, tell_request

COPIES = 4
IDS = 5


@dataclass(frozen=True, slots=True)
class Repeatable:
    """A method, a request without an id, and another one that the same id must not cover."""

    method: str
    request: Message
    other: Message

    def payload(self, request_id: str) -> bytes:
        """The request under an id."""
        return _under(self.request, request_id)


def _under(request: Message, request_id: str) -> bytes:
    copy = type(request)()
    copy.CopyFrom(request)
    copy.request_id = request_id
    return copy.SerializeToString()


def calls(wire: Wire, study: str) -> list[Repeatable]:
    """One of each method that takes a request id."""
    asked, given = wire.one(study), wire.one(study)
    new = [[trials.NewTrial(parameters={"x": real(value)})] for value in (0.25, 0.75)]
    return [
        Repeatable(
            "Ask",
            trials.AskRequest(parent=study, worker_id="w", count=2),
            trials.AskRequest(parent=study, worker_id="w", count=3),
        ),
        Repeatable("Tell", tell_request(asked, 1), tell_request(asked, 2)),
        Repeatable(
            "AddTrials",
            trials.AddTrialsRequest(parent=study, trials=new[0]),
            trials.AddTrialsRequest(parent=study, trials=new[1]),
        ),
        Repeatable("ReleaseTrial", _release(given), _release(given, checkpoint_uri="file:///left")),
    ]


def _release(trial: trials.Trial, **fields: str) -> trials.ReleaseTrialRequest:
    return trials.ReleaseTrialRequest(name=trial.name, lease_token=trial.lease.token, **fields)


def _named(code: int) -> tuple[int, str]:
    return next(status.value for status in StatusCode if status.value[0] == code)


def at_once(wires: Sequence[Wire], call: Repeatable, request_id: str) -> list[bytes]:
    """The replies to copies that are sent together, to one server after the other in turn."""
    with ThreadPoolExecutor(COPIES) as pool:
        sent = [
            pool.submit(wires[index % len(wires)].send, call.method, call.payload(request_id))
            for index in range(COPIES)
        ]
        return [future.result() for future in sent]


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with Processes(tmp_path) as started:
        yield started


def test_a_repeated_call_happens_once_and_gets_equal_bytes_also_after_a_restart(
    processes: Processes, tmp_path: Path
) -> None:
    server = processes.serve(str(tmp_path / "asktell.db"))
    with Wire(server.target) as wire:
        study = wire.create("once", small_study()).name
        repeatable = calls(wire, study)
        first = {call.method: wire.send(call.method, call.payload("id")) for call in repeatable}
        stored = wire.all_trials(study)
        counted = wire.study(study)
        for call in repeatable:
            assert wire.send(call.method, call.payload("id")) == first[call.method]
            reused = refusal(lambda call=call: wire.send(call.method, _under(call.other, "id")))
            assert (reused.code, reused.reason) == (StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
        assert (wire.all_trials(study), wire.study(study)) == (stored, counted)
    server.kill()
    back = processes.again(server)
    with Wire(back.target) as wire:
        assert {call.method: wire.send(call.method, call.payload("id")) for call in repeatable} == first
        assert (wire.all_trials(study), wire.study(study)) == (stored, counted)


def test_independent_results_count_once_and_what_was_refused_is_refused_alike(
    processes: Processes, tmp_path: Path
) -> None:
    server = processes.serve(str(tmp_path / "asktell.db"))
    with Wire(server.target) as wire:
        study = wire.create("once", small_study()).name
        asked = list(wire.ask(study, count=4).trials)
        wire.tell(asked[1], 0.5)
        results = [tell_request(trial, value=0.25).results[0] for trial in asked]
        results[2].ClearField("succeeded")
        results[2].succeeded.SetInParent()
        results.append(trials.TrialResult(number=9, lease_token="t", succeeded=results[0].succeeded))
        request = trials.TellRequest(parent=study, results=results, request_id="id", independent=True)
        first = wire.send("Tell", request.SerializeToString())
        reply, stored = trials.TellResponse.FromString(first), wire.all_trials(study)
        assert [trial.number for trial in reply.trials] == [1, 4]
        assert [(each.number, StatusCode(_named(each.code)), each.reason, each.field) for each in reply.refusals] == [
            (2, StatusCode.FAILED_PRECONDITION, "TRIAL_ENDED", ""),
            (3, StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "results[2].succeeded.metrics[loss]"),
            (9, StatusCode.NOT_FOUND, "TRIAL_NOT_FOUND", ""),
        ]
        states = [trial.state for trial in stored]
        assert states == [trials.Trial.STATE_SUCCEEDED] * 2 + [trials.Trial.STATE_ACTIVE, trials.Trial.STATE_SUCCEEDED]
        server.kill()
        with Wire(processes.again(server).target) as back:
            assert back.send("Tell", request.SerializeToString()) == first
            assert back.all_trials(study) == stored
            # Under another id what was told is told already, and what was refused is refused again.
            request.request_id = "another"
            assert back.call("Tell", request) == reply
            assert back.all_trials(study) == stored


def test_copies_sent_at_once_through_two_servers_happen_once(processes: Processes, migrated_url: str) -> None:
    servers = [processes.serve(migrated_url) for _ in range(2)]
    with Wire(servers[0].target) as one, Wire(servers[1].target) as two:
        study = one.create("once", small_study()).name
        for turn in range(IDS):
            for call in calls(one, study):
                replies = at_once([one, two], call, f"id-{turn}")
                assert len(set(replies)) == 1, f"{call.method} gave {len(set(replies))} different replies"
        stored = [trial.number for trial in two.all_trials(study)]
        counts = two.study(study).trial_counts
        # Each turn hands out four, of which two are what the turn before gave back and added, and adds one.
        assert stored == list(range(1, 3 * IDS + 3))
        assert (counts.succeeded, counts.active + counts.queued) == (IDS, 2 * IDS + 2)
        assert one.study(study) == two.study(study)


def test_payloads_of_one_id_sent_at_once_through_two_servers_are_one_call_and_the_others_are_refused(
    processes: Processes, migrated_url: str
) -> None:
    servers = [processes.serve(migrated_url) for _ in range(2)]
    with Wire(servers[0].target) as one, Wire(servers[1].target) as two:
        study = one.create("once", small_study()).name
        for turn in range(IDS):
            for call in calls(one, study):
                # Each server begins with another payload.
                payloads = [_under(request, f"id-{turn}") for request in (call.request, call.other)]
                sent = [
                    (wire, payloads[(place + row) % 2]) for row in range(4) for place, wire in enumerate((one, two))
                ]
                outcomes = _outcomes(call.method, sent)
                replies = {(payload, outcome) for payload, outcome in outcomes if isinstance(outcome, bytes)}
                assert len(replies) == 1, f"{call.method}: {outcomes}"
                won = next(iter(replies))
                reused = (StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
                assert outcomes == [won if payload == won[0] else (payload, reused) for _, payload in sent]
        assert one.all_trials(study) == two.all_trials(study)


def _outcomes(method: str, sent: Sequence[tuple[Wire, bytes]]) -> list[tuple[bytes, object]]:
    """The reply, or the code and reason of the refusal, of each of these calls that are made together."""

    def call(wire: Wire, payload: bytes) -> tuple[bytes, object]:
        try:
            return payload, wire.send(method, payload)
        except RpcError as error:
            found = refusal_of(error)
            return payload, (found.code, found.reason)

    with ThreadPoolExecutor(len(sent)) as pool:
        return list(pool.map(call, *zip(*sent, strict=True)))


def test_an_id_of_one_study_or_method_says_nothing_of_another(processes: Processes, tmp_path: Path) -> None:
    server = processes.serve(str(tmp_path / "asktell.db"))
    with Wire(server.target) as wire:
        names = [wire.create(study, small_study(seed=seed)).name for seed, study in enumerate(("one", "two"))]
        replies = [wire.send(call.method, call.payload("id")) for name in names for call in calls(wire, name)]
        assert len(set(replies)) == 8
        assert [len(wire.all_trials(name)) for name in names] == [5, 5]


def test_a_repeated_release_is_known_though_another_worker_has_the_trial(processes: Processes, tmp_path: Path) -> None:
    with Wire(processes.serve(str(tmp_path / "asktell.db")).target) as wire:
        study = wire.create("given-back", small_study()).name
        given = wire.one(study)
        first = wire.send("ReleaseTrial", _under(_release(given), "id"))
        taken = wire.one(study, "another")
        assert (taken.number, taken.attempt) == (given.number, 2)
        assert wire.send("ReleaseTrial", _under(_release(given), "id")) == first
        assert wire.trial(study, taken.number).state == trials.Trial.STATE_ACTIVE
        lost = refusal(lambda: wire.send("ReleaseTrial", _under(_release(given), "another")))
        assert (lost.code, lost.reason) == (StatusCode.FAILED_PRECONDITION, "LEASE_LOST")


@pytest.mark.chaos
@pytest.mark.timeout(1200)
def test_a_thousand_ids_through_two_servers_happen_once_each(processes: Processes, migrated_url: str) -> None:
    servers = [processes.serve(migrated_url) for _ in range(2)]
    with Wire(servers[0].target) as one, Wire(servers[1].target) as two:
        study = one.create("once", small_study()).name
        for turn in range(250):
            for call in calls(one, study):
                assert len(set(at_once([one, two], call, f"id-{turn}"))) == 1
        assert len(two.all_trials(study)) == 752
