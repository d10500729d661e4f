"""What a client with gRPC's own limits can receive, however much it asks for; and what is sent in parts that the service takes."""

from __future__ import annotations

import itertools
from pathlib import Path

from asktell.client import Client, FinishedTrial, Float, Minimize, TrialState
from asktell.v1 import search_space_pb2 as space
from asktell.v1 import trial_service_pb2 as trials
from tests.place import Place
from tests.wire import seconds, small_study

IDS = itertools.count()
RECEIVED = 4 * 1024 * 1024
Answer = trials.AskResponse


def wide(place: Place, parameters: int) -> str:
    """A study with so many parameters."""
    message = small_study()
    message.spec.ClearField("parameters")
    for number in range(parameters):
        spec = space.ParameterSpec(name=f"parameter{number}", float_spec=space.FloatSpec(low=0, high=1))
        message.spec.parameters.append(spec)
    return place.wire.create(f"wide{next(IDS)}", message).name


def test_an_ask_hands_out_what_its_client_can_receive_and_asking_again_the_rest(place: Place) -> None:
    wire, study = place.wire, wide(place, 150)
    given: list[int] = []
    while len(given) < 1_000:
        answer = wire.ask(study, count=1_000 - len(given), request_id=f"ask{len(given)}")
        assert 0 < answer.ByteSize() <= RECEIVED
        given += [trial.number for trial in answer.trials]
        full = len(given) < 1_000
        assert answer.reason == (Answer.REASON_REPLY_FULL if full else Answer.REASON_UNSPECIFIED)
        assert answer.study_state == Answer.STATE_OPEN
        assert answer.HasField("retry_after") == full
        assert len(given) > 400, "the first reply is nearly full"
    assert given == list(range(1, 1_001))
    assert wire.study(study).trial_counts.active == 1_000


def test_queued_trials_with_much_to_say_are_handed_out_a_few_at_a_time_but_at_least_one(place: Place) -> None:
    wire = place.wire
    study = wire.create(f"much{next(IDS)}", small_study(max_attempts=5)).name
    wire.enqueue(study, [number / 100 for number in range(100)])
    for trial in wire.ask(study, count=100).trials:
        broken = trials.TrialResult.Failed(message="x" * 65_000, retry=True)
        result = trials.TrialResult(number=trial.number, lease_token=trial.lease.token, failed=broken)
        wire.call("Tell", trials.TellRequest(parent=study, results=[result]))
    first = wire.ask(study, count=100, lease_duration=seconds(3600))
    assert (first.reason, first.ByteSize() <= RECEIVED) == (Answer.REASON_REPLY_FULL, True)
    assert 40 < len(first.trials) < 50
    second = wire.ask(study, count=100, lease_duration=seconds(3600))
    numbers = [trial.number for answer in (first, second) for trial in answer.trials]
    assert numbers == list(range(1, len(numbers) + 1))


def test_trials_are_added_in_requests_that_the_service_takes(place: Place) -> None:
    with Client(place.server.target) as client:
        study = client.create_study(
            f"long{next(IDS)}", parameters=[Float("x", 0.0, 1.0)], objectives=[Minimize("loss")], policy="random"
        )
        failed = [
            FinishedTrial(parameters={"x": number / 1_000}, state=TrialState.FAILED, message="ü" * 6_000)
            for number in range(1_000)
        ]
        added = study.import_trials(failed)
        assert [trial.number for trial in added] == list(range(1, 1_001))
        study.refresh()
        assert study.counts.failed == 1_000


def test_a_file_that_breaks_off_says_what_is_added_and_is_not_added_twice_when_given_again(
    client: Client, study, tmp_path: Path
) -> None:
    study("create", "half", "--float", "x=0:1", "--minimize", "loss")
    rows = [f"{number / 2_000},{number}" for number in range(1_500)]
    file = tmp_path / "results.csv"
    file.write_text("\n".join(["x,loss", *rows[:1_200], "7,1", *rows[1_201:]]))
    command = ["enqueue", "half", "--finished", "--file", str(file)]
    assert "(the 1000 before are added)" in study(*command, status=1)
    assert client.get_study("half").counts.succeeded == 1_000
    file.write_text("\n".join(["x,loss", *rows]))
    for _ in range(2):
        assert "1500 trials added as finished: 1 to 1500" in study(*command)
        assert client.get_study("half").counts.succeeded == 1_500
