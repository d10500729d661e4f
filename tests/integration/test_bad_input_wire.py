"""Bad bytes and bad manners on the wire: the service refuses or bears them, its database stays as it was, and others are served."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import grpc
import pytest
from grpc import StatusCode

from asktell.v1 import study_service_pb2 as studies
from asktell.v1 import trial_service_pb2 as trials
from tests.place import Place
from tests.wire import METHODS, Wire, real, refusal, small_study

MEBIBYTE = 1024 * 1024
# Field 1, a string of three bytes: a lone surrogate, which is no UTF-8.
LONE_SURROGATE = b"\x0a\x03\xed\xa0\x80"
# Field 1, said to be 2^31 - 1 bytes long.
ENDLESS_FIELD = b"\x0a\xff\xff\xff\xff\x07"
UNARY = sorted(set(METHODS) - {"WatchStudy"})


@pytest.mark.parametrize("payload", [LONE_SURROGATE, ENDLESS_FIELD, b"\xff" * 64, b"\x0b", b"\x07"])
def test_what_is_no_message_is_refused(place: Place, payload: bytes) -> None:
    before = place.dump()
    for method in UNARY:
        got = refusal(lambda method=method: place.wire.send(method, payload))
        assert (got.code, got.field) == (StatusCode.INVALID_ARGUMENT, "")
    assert place.dump() == before


def test_unknown_fields_of_a_newer_client_are_passed_over(place: Place) -> None:
    name = place.wire.create("newer", small_study()).name
    newer = studies.GetStudyRequest(name=name).SerializeToString() + b"\xfa\x3e\x03new"
    assert studies.Study.FromString(place.wire.send("GetStudy", newer)).name == name


def test_an_unknown_method_is_unimplemented(place: Place) -> None:
    call = place.wire.channel.unary_unary("/asktell.v1.TrialService/Guess")
    assert refusal(lambda: call(b"", timeout=10)).code is StatusCode.UNIMPLEMENTED


def test_an_oversize_batch_is_refused(place: Place) -> None:
    name = place.wire.create("oversize", small_study()).name
    before = place.dump()
    note = {f"k{index}": "x" * 1_024 for index in range(64)}
    new = [trials.NewTrial(parameters={"x": real(0.5)}, metadata=note) for _ in range(200)]
    request = trials.AddTrialsRequest(parent=name, trials=new)
    assert request.ByteSize() > 8 * MEBIBYTE
    assert refusal(lambda: place.wire.call("AddTrials", request)).code is StatusCode.RESOURCE_EXHAUSTED
    assert place.dump() == before


def test_a_compressed_bomb_is_refused_unopened(place: Place) -> None:
    before = place.dump()
    bomb = studies.GetStudyRequest(name="x" * 60 * MEBIBYTE).SerializeToString()
    with Wire(place.server.target) as wire:
        got = refusal(lambda: wire.send("GetStudy", bomb, compression=grpc.Compression.Gzip))
    assert got.code is StatusCode.RESOURCE_EXHAUSTED
    assert place.dump() == before


def test_a_small_compressed_message_is_read(place: Place) -> None:
    name = place.wire.create("compressed", small_study()).name
    request = studies.GetStudyRequest(name=name).SerializeToString()
    with Wire(place.server.target) as wire:
        reply = wire.send("GetStudy", request, compression=grpc.Compression.Gzip)
    assert studies.Study.FromString(reply).name == name


def test_too_much_metadata_is_refused(place: Place) -> None:
    name = place.wire.create("metadata", small_study()).name
    request = studies.GetStudyRequest(name=name).SerializeToString()
    with Wire(place.server.target) as wire:
        got = refusal(lambda: wire.send("GetStudy", request, metadata=[("x-large", "x" * 100_000)]))
        assert got.code in (StatusCode.RESOURCE_EXHAUSTED, StatusCode.INTERNAL)
    assert place.wire.study(name).name == name


def test_idle_and_garbled_connections_keep_nobody_out(place: Place) -> None:
    host, _, port = place.server.target.rpartition(":")
    name = place.wire.create("idle", small_study()).name
    with ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(100)]
        for connection in idle[:50]:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        for connection in idle[50:75]:
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        with Wire(place.server.target) as wire:
            assert wire.study(name).name == name


def test_a_client_that_hangs_up_leaves_the_service_well(place: Place) -> None:
    name = place.wire.create("impatient", small_study()).name
    request = trials.AskRequest(parent=name, worker_id="w").SerializeToString()
    with Wire(place.server.target) as wire:
        call = wire.channel.unary_unary(METHODS["Ask"])
        pending = [call.future(request, timeout=30) for _ in range(50)]
        for future in pending:
            future.cancel()
    told = place.wire.one(name)
    assert place.wire.tell(told, 1.0).state == trials.Trial.STATE_SUCCEEDED
    counts = place.wire.study(name).trial_counts
    assert counts.succeeded == 1
    assert counts.active <= 50


def test_slow_readers_of_large_replies_keep_nobody_waiting(place: Place) -> None:
    name = place.wire.create("slow", small_study()).name
    note = {f"k{index}": "x" * 1_024 for index in range(64)}
    new = [trials.NewTrial(parameters={"x": real(0.5)}, metadata=note) for _ in range(50)]
    for _ in range(2):
        place.wire.call("AddTrials", trials.AddTrialsRequest(parent=name, trials=new))
    assert len(place.wire.all_trials(name)) == 100
    listing = trials.ListTrialsRequest(parent=name, page_size=1_000).SerializeToString()
    with ExitStack() as stack:
        readers = [stack.enter_context(Wire(place.server.target)) for _ in range(4)]
        unread = [reader.channel.unary_unary(METHODS["ListTrials"]).future(listing, timeout=30) for reader in readers]
        with ThreadPoolExecutor(4) as pool:
            served = [pool.submit(place.wire.study, name) for _ in range(20)]
            assert {future.result().name for future in served} == {name}
        pages = [trials.ListTrialsResponse.FromString(future.result()) for future in unread]
        assert all(len(page.trials) > 10 and page.next_page_token for page in pages)
