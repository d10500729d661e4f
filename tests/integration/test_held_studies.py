"""A study that another transaction holds: calls that must wait for it take none of the threads that others need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import psycopg
import pytest
from google.protobuf.message import Message

from asktell.v1 import study_service_pb2 as studies
from tests.place import Place
from tests.wire import METHODS, small_study

CALLS = 24
"""More than there are threads that write."""
PARENT = "projects/p"
LOCK = "SELECT 1 FROM studies WHERE project = 'p' AND name = %s FOR UPDATE"
INSERT = """
    INSERT INTO studies (project, name, spec, seed, state, budget, labels, next_number, change_seq, create_time, update_time)
    SELECT project, %s, spec, seed, state, budget, labels, next_number, change_seq, create_time, update_time
    FROM studies WHERE project = 'p' AND name = %s
"""


def begin(place: Place, method: str, request: Message) -> Any:
    """A call that is sent now, and whose status is waited for later. A server takes up the calls of a connection in their order."""
    return place.wire.channel.unary_unary(METHODS[method]).future(request.SerializeToString(), timeout=60)


def statuses(calls: list[Any]) -> Counter[grpc.StatusCode]:
    return Counter(call.code() for call in calls)


@pytest.fixture
def holder(on_postgresql: Place) -> Iterator[psycopg.Connection[Any]]:
    """Another transaction on the server's database."""
    with psycopg.connect(on_postgresql.server.database) as connection:
        yield connection
        connection.rollback()


def test_deletions_of_a_held_study_keep_no_other_study_waiting(
    on_postgresql: Place, holder: psycopg.Connection[Any]
) -> None:
    held = on_postgresql.wire.create("held-deleted", small_study()).name
    trial = on_postgresql.wire.one(on_postgresql.wire.create("free-of-deletions", small_study()).name)
    holder.execute(LOCK, ["held-deleted"])
    request = studies.DeleteStudyRequest(name=held)
    calls = [begin(on_postgresql, "DeleteStudy", request) for _ in range(CALLS)]
    # Before a statement has waited too long for a lock, or else the deletions fail.
    on_postgresql.wire.tell(trial, 1.0)
    holder.rollback()
    assert statuses(calls) == {grpc.StatusCode.OK: 1, grpc.StatusCode.NOT_FOUND: CALLS - 1}


def test_creations_of_a_study_that_another_transaction_creates_keep_no_other_study_waiting(
    on_postgresql: Place, holder: psycopg.Connection[Any]
) -> None:
    trial = on_postgresql.wire.one(on_postgresql.wire.create("free-of-creations", small_study()).name)
    holder.execute(INSERT, ["held-created", "free-of-creations"])
    request = studies.CreateStudyRequest(parent=PARENT, study_id="held-created", study=small_study())
    calls = [begin(on_postgresql, "CreateStudy", request) for _ in range(CALLS)]
    on_postgresql.wire.tell(trial, 1.0)
    holder.rollback()
    assert statuses(calls) == {grpc.StatusCode.OK: CALLS}
    assert len({call.result() for call in calls}) == 1, "one creates it, the others get what is there"
