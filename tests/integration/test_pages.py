"""Pages of a listing go on where the one before ended, and a token is good for its own listing only."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from google.protobuf.message import Message
from grpc import StatusCode

from asktell.v1 import study_service_pb2 as studies
from asktell.v1 import trial_service_pb2 as trials
from tests.place import Place
from tests.wire import refusal, small_study

QUEUED, ACTIVE = trials.Trial.STATE_QUEUED, trials.Trial.STATE_ACTIVE


@pytest.fixture
def listings(place: Place) -> list[Message]:
    """Requests of which each lists something else, of more than one page of one."""
    parents = [f"projects/paged-{name}" for name in ("a", "b")]
    found: list[Message] = [studies.ListStudiesRequest(parent=parent) for parent in parents]
    for parent in parents:
        names = [_study(place, parent, study_id).name for study_id in ("one", "two", "three")]
        for name in names[:2]:
            for number in range(3):
                place.wire.one(name, worker_id="w")
                place.wire.one(name, worker_id=f"v{number}")
            place.wire.enqueue(name, (0.1, 0.2))
            found.append(trials.ListTrialsRequest(parent=name))
    filters = [{"states": [ACTIVE]}, {"states": [QUEUED]}, {"states": [ACTIVE, QUEUED]}, {"worker_id": "w"}]
    found += [trials.ListTrialsRequest(parent=names[1], **each) for each in filters]
    return found


def _study(place: Place, parent: str, study_id: str) -> studies.Study:
    request = studies.CreateStudyRequest(parent=parent, study_id=study_id, study=small_study())
    created: studies.Study = place.wire.call("CreateStudy", request)
    return created


def page(place: Place, listing: Message, *, size: int, token: str = "") -> tuple[list[str], str]:
    """The names on a page, and the token of the next one."""
    request = type(listing)()
    request.CopyFrom(listing)
    request.page_size, request.page_token = size, token
    reply = place.wire.call(listing.DESCRIPTOR.name.removesuffix("Request"), request)
    return [each.name for each in (reply.studies if hasattr(reply, "studies") else reply.trials)], reply.next_page_token


def refused(place: Place, listing: Message, token: str) -> tuple[StatusCode, str, str]:
    found = refusal(lambda: page(place, listing, size=1, token=token))
    return found.code, found.field, found.message.rpartition(" is ")[2]


def test_pages_of_any_size_have_everything_once_and_in_order(place: Place, listings: list[Message]) -> None:
    for listing in listings:
        whole, end = page(place, listing, size=1_000)
        assert len(whole) > 1
        assert not end
        found, token = page(place, listing, size=1)
        for size in _sizes():
            if not token:
                break
            more, token = page(place, listing, size=size, token=token)
            found += more
        assert found == whole


def _sizes() -> Iterator[int]:
    for _ in range(100):
        yield from (2, 1)


def test_a_token_of_another_call_parent_or_filter_is_refused(place: Place, listings: list[Message]) -> None:
    tokens = [page(place, listing, size=1)[1] for listing in listings]
    assert len(set(tokens)) == len(listings)
    for row, listing in enumerate(listings):
        wanted = (StatusCode.INVALID_ARGUMENT, "page_token", "of another listing: only page_size may change")
        for column, token in enumerate(tokens):
            if row != column:
                assert refused(place, listing, token) == wanted


@pytest.mark.parametrize("tail", ["", "abc", "-1", "1" * 17, "\u00b2", "../etc", "a b", "1\0"])
def test_a_token_that_was_tampered_with_is_refused(place: Place, listings: list[Message], tail: str) -> None:
    for listing in (listings[0], listings[2]):
        listed, _, _ = base64.urlsafe_b64decode(page(place, listing, size=1)[1]).partition(b":")
        token = base64.urlsafe_b64encode(listed + b":" + tail.encode()).decode()
        # What may be the name of a study, none has to be there.
        if listing is listings[2] or tail not in ("abc", "1" * 17):
            assert refused(place, listing, token)[:2] == (StatusCode.INVALID_ARGUMENT, "page_token")
