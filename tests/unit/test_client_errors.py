"""Failures arrive as one tree of exceptions, with what the service said."""

from __future__ import annotations

import pickle

import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2

from asktell import client as at
from asktell.client import errors
from tests.unit.client_fake import refusal, serving


@pytest.fixture
def service():
    with serving() as service:
        yield service


@pytest.fixture
def client(service):
    with at.Client(service.target, retry_for=0) as client:
        yield client


@pytest.mark.parametrize("kind", errors._BY_CODE.values(), ids=lambda kind: kind.__name__)
def test_each_status_code_has_its_exception(service, client, kind):
    number = kind.default_code.value[0]
    service.fail("GetStudy", *[refusal(number, "as it is")] * 4)
    with pytest.raises(kind, match="as it is") as caught:
        client.get_study("s")
    assert caught.value.code is kind.default_code
    assert isinstance(caught.value, at.AskTellError)
    assert caught.value.__cause__ is not None


def test_a_code_without_an_exception_of_its_own_is_the_root(service, client):
    service.fail("GetStudy", refusal(code_pb2.DATA_LOSS, "gone"))
    with pytest.raises(at.AskTellError) as caught:
        client.get_study("s")
    assert (type(caught.value), caught.value.code.name) == (at.AskTellError, "DATA_LOSS")


def test_reason_fields_and_delay_come_from_the_details(service, client):
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field="study.spec.parameters[0].name", description="is empty")
    info = error_details_pb2.ErrorInfo(reason="INVALID_ARGUMENT", domain="asktell")
    retry = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=500_000_000))
    service.fail("GetStudy", refusal(code_pb2.INVALID_ARGUMENT, "bad", info, bad, retry))
    with pytest.raises(at.InvalidArgument) as caught:
        client.get_study("s")
    assert caught.value.reason == "INVALID_ARGUMENT"
    assert caught.value.field_violations == (("study.spec.parameters[0].name", "is empty"),)
    assert caught.value.retry_delay == 0.5


def test_an_error_without_details_is_readable(client):
    study = client.create_study("s", parameters=[at.Float("x", 0, 1)], objectives=[at.Minimize("y")])
    with pytest.raises(at.Unimplemented, match="not yet") as caught:
        study.predict([{"x": 0.5}])
    assert (caught.value.reason, caught.value.field_violations) == ("", ())


def test_an_error_survives_pickling():
    error = at.InvalidArgument("bad", reason="R", field_violations=(("f", "d"),))
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), str(back), back.reason, back.field_violations) == (
        at.InvalidArgument,
        "bad",
        "R",
        (("f", "d"),),
    )


def test_a_closed_client_says_so(client):
    study = client.create_study("s", parameters=[at.Float("x", 0, 1)], objectives=[at.Minimize("y")])
    client.close()
    with pytest.raises(at.Cancelled, match="closed"):
        study.ask()


def test_an_unreachable_service_is_unavailable_when_the_patience_ends():
    with (
        at.Client("127.0.0.1:9", retry_for=0.3) as client,
        pytest.raises(at.Unavailable, match=r"StudyService\.GetStudy at 127\.0\.0\.1:9: "),
    ):
        client.get_study("s")


def test_a_missing_server_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "asktell.server.embedded", None)
    with pytest.raises(at.MissingExtra, match=r"asktell\[server\]"):
        at.Client.local("x.db")


def test_a_missing_pandas_names_the_extra(client, monkeypatch):
    study = client.create_study("s", parameters=[at.Float("x", 0, 1)], objectives=[at.Minimize("y")])
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(at.MissingExtra, match=r"asktell\[dataframe\]"):
        study.to_dataframe()


def test_the_environment_names_the_default_target(service, monkeypatch):
    monkeypatch.setenv("ASKTELL_TARGET", service.target)
    with at.Client() as client:
        assert client.target == service.target
        assert client.list_studies() == []
