"""WatchStudy through the wire, on both databases."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from grpc import StatusCode

from asktell.v1 import study_service_pb2 as studies
from asktell.v1 import trial_service_pb2 as trials
from tests.place import Place
from tests.wire import METHODS, Wire, changes, refusal, small_study

Trial = trials.Trial


def sequences(found: list[studies.Change]) -> list[int]:
    return [change.sequence for change in found]


def states(found: list[studies.Change]) -> list[tuple[int, Any]]:
    """The number and the state of each changed trial; 0 for the study."""
    return [
        (change.trial.number, change.trial.state) if change.HasField("trial") else (0, change.study.state)
        for change in found
    ]


def begin(wire: Wire, study: str, after: int) -> None:
    wire.watch(study, after).cancel()


def update(wire: Wire, study: studies.Study, *paths: str) -> None:
    wire.call("UpdateStudy", studies.UpdateStudyRequest(study=study, update_mask=FieldMask(paths=paths)))


def test_a_watch_from_zero_begins_with_the_study_and_every_trial_as_it_stands(place: Place) -> None:
    wire, name = place.wire, place.wire.create("watch-all", small_study()).name
    first, second = wire.one(name), wire.one(name)
    wire.tell(first, 0.5)
    stream = wire.watch(name)
    found = changes(stream, 3)
    assert states(found) == [
        (0, studies.Study.STATE_ACTIVE),
        (2, Trial.STATE_ACTIVE),
        (1, Trial.STATE_SUCCEEDED),
    ]
    assert sequences(found) == [1, 3, 4]
    assert found[0].study == wire.study(name)
    assert found[2].trial == wire.trial(name, 1)
    assert found[1].trial.number == second.number
    stream.cancel()


def test_a_watch_shows_each_change_as_it_is_made(place: Place) -> None:
    wire, name = place.wire, place.wire.create("watch-live", small_study()).name
    stream = wire.watch(name, after=1)
    trial = wire.one(name)
    assert states(changes(stream, 1)) == [(1, Trial.STATE_ACTIVE)]
    wire.tell(trial, 0.5)
    assert states(changes(stream, 1)) == [(1, Trial.STATE_SUCCEEDED)]
    wire.enqueue(name, [0.1, 0.2])
    assert states(changes(stream, 2)) == [(2, Trial.STATE_QUEUED), (3, Trial.STATE_QUEUED)]
    wire.call("CancelTrial", trials.CancelTrialRequest(name=f"{name}/trials/2"))
    assert states(changes(stream, 1)) == [(2, Trial.STATE_CANCELLED)]
    stream.cancel()


def test_a_watch_shows_the_studys_own_changes_among_those_of_its_trials(place: Place) -> None:
    wire, name = place.wire, place.wire.create("watch-own", small_study()).name
    stream = wire.watch(name, after=1)
    update(wire, studies.Study(name=name, labels={"team": "vision"}), "labels")
    (labelled,) = changes(stream, 1)
    assert dict(labelled.study.labels) == {"team": "vision"}
    wire.enqueue(name, [0.1])
    changes(stream, 1)
    update(wire, studies.Study(name=name, state=studies.Study.STATE_FINISHED), "state")
    (finished,) = changes(stream, 1)
    assert (finished.study.state, finished.study.trial_counts.queued) == (studies.Study.STATE_FINISHED, 1)
    assert finished.sequence == finished.study.sequence == 4
    stream.cancel()


def test_a_watch_goes_on_after_the_sequence_it_is_given(place: Place) -> None:
    wire, name = place.wire, place.wire.create("watch-on", small_study()).name
    wire.enqueue(name, [0.1, 0.2, 0.3])
    stream = wire.watch(name, after=3)
    assert states(changes(stream, 1)) == [(3, Trial.STATE_QUEUED)]
    stream.cancel()


def test_a_report_is_a_change_and_a_renewal_is_none(place: Place) -> None:
    wire, name = place.wire, place.wire.create("watch-reports", small_study()).name
    trial = wire.one(name)
    stream = wire.watch(name, after=2)
    renewal = trials.LeaseRenewal(number=1, lease_token=trial.lease.token)
    wire.call("RenewLeases", trials.RenewLeasesRequest(parent=name, renewals=[renewal]))
    report = trials.ReportRequest(name=trial.name, lease_token=trial.lease.token)
    report.measurements.add(step=1).metrics["loss"].value = 1.0
    wire.call("Report", report)
    (reported,) = changes(stream, 1)
    assert (reported.sequence, reported.trial.state) == (3, Trial.STATE_ACTIVE)
    stream.cancel()


def test_a_watch_shows_nobodys_lease_token(place: Place) -> None:
    wire, name = place.wire, place.wire.create("watch-tokens", small_study()).name
    wire.one(name, "worker-1")
    stream = wire.watch(name, after=1)
    (change,) = changes(stream, 1)
    assert (change.trial.lease.worker_id, change.trial.lease.token) == ("worker-1", "")
    stream.cancel()


def test_a_history_longer_than_a_page_comes_whole(place: Place) -> None:
    wire, name = place.wire, place.wire.create("watch-long", small_study()).name
    for _ in range(3):
        wire.enqueue(name, [0.5] * 400)
    stream = wire.watch(name)
    assert sequences(changes(stream, 1_201)) == list(range(1, 1_202))
    stream.cancel()


def test_a_deleted_study_ends_its_watches(place: Place) -> None:
    wire, name = place.wire, place.wire.create("watch-deleted", small_study()).name
    stream = wire.watch(name, after=1)
    wire.call("DeleteStudy", studies.DeleteStudyRequest(name=name))
    got = refusal(lambda: next(stream))
    assert (got.code, got.reason) == (StatusCode.NOT_FOUND, "STUDY_NOT_FOUND")


def test_a_study_of_the_same_name_does_not_go_on_with_the_watches_of_the_deleted_one(place: Place) -> None:
    wire, name = place.wire, place.wire.create("watch-again", small_study()).name
    stream = wire.watch(name, after=1)
    wire.call("DeleteStudy", studies.DeleteStudyRequest(name=name))
    wire.create("watch-again", small_study())
    wire.enqueue(name, [0.5] * 10)
    assert refusal(lambda: next(stream)).code is StatusCode.NOT_FOUND


def test_a_watch_of_no_study_is_refused(place: Place) -> None:
    got = refusal(lambda: begin(place.wire, "projects/p/studies/none", 0))
    assert (got.code, got.reason) == (StatusCode.NOT_FOUND, "STUDY_NOT_FOUND")


@pytest.mark.parametrize(
    ("study", "after", "field"),
    [("", 0, "name"), ("p/digits", 0, "name"), ("HERE", -1, "after_sequence"), ("HERE", -(2**63), "after_sequence")],
)
def test_a_watch_that_makes_no_sense_names_the_field(place: Place, study: str, after: int, field: str) -> None:
    name = place.wire.create("watch-refused", small_study()).name
    before = place.dump()
    got = refusal(lambda: begin(place.wire, study.replace("HERE", name), after))
    assert (got.code, got.field) == (StatusCode.INVALID_ARGUMENT, field)
    assert place.dump() == before


@pytest.mark.parametrize("after", [2, 2**63 - 1])
def test_a_sequence_that_the_study_has_not_come_to_is_refused(place: Place, after: int) -> None:
    name = place.wire.create("watch-ahead", small_study()).name
    got = refusal(lambda: begin(place.wire, name, after))
    assert (got.code, got.reason) == (StatusCode.FAILED_PRECONDITION, "SEQUENCE_NOT_REACHED")
    assert "watch from 0" in got.message


def test_bytes_that_are_no_request_are_refused_as_such(place: Place) -> None:
    watch = place.wire.channel.unary_stream(METHODS["WatchStudy"])
    got = refusal(lambda: next(watch(b"\xff\xff\xff", timeout=10)))
    assert got.code is StatusCode.INVALID_ARGUMENT


def test_many_watchers_of_one_study_all_see_all(place: Place) -> None:
    wire, name = place.wire, place.wire.create("watch-many", small_study()).name
    streams = [wire.watch(name, after=1) for _ in range(50)]
    wire.enqueue(name, [0.5] * 20)
    for stream in streams:
        assert sequences(changes(stream, 20)) == list(range(2, 22))
        stream.cancel()


def test_a_watch_with_a_deadline_ends_there(place: Place) -> None:
    name = place.wire.create("watch-deadline", small_study()).name
    stream = place.wire.watch(name, after=1, deadline=1.0)
    assert refusal(lambda: next(stream)).code is StatusCode.DEADLINE_EXCEEDED
