"""Failures arrive as one tree of exceptions, with what the service said."""

from __future__ import annotations

import logging
import pickle
import traceback
from datetime import timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2

from asktell import client as at
from asktell.client import aio, errors
from asktell.client.study import Study
from tests.unit.client_fake import refusal, serving, tick


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


def test_a_service_that_is_not_there_is_one_error_that_says_how_long_it_was_tried_and_what_runs_one(
    caplog, monkeypatch
):
    tick(monkeypatch, 1.0)
    caplog.set_level(logging.WARNING, "asktell.client.retries")
    with at.Client("127.0.0.1:9", retry_for=1.5) as client, pytest.raises(at.Unavailable) as caught:
        client.get_study("s")
    assert str(caught.value).endswith("; tried for 1.5 s (retry_for); `asktell serve` runs a service")
    assert (caught.value.tried_for, caught.value.code.name) == (1.5, "UNAVAILABLE")
    shown = "".join(traceback.format_exception(caught.value))
    assert "tenacity" not in shown
    assert "grpc" not in shown.replace("asktell/v1", "")
    assert "trying again for up to 1.5 s" in caplog.text


async def test_for_asyncio_a_service_that_is_not_there_is_said_alike(caplog, monkeypatch):
    tick(monkeypatch, 1.0)
    caplog.set_level(logging.WARNING, "asktell.client.retries")
    async with aio.Client("127.0.0.1:9", retry_for=1.5) as client:
        with pytest.raises(at.Unavailable) as caught:
            await client.get_study("s")
    assert str(caught.value).endswith("; tried for 1.5 s (retry_for); `asktell serve` runs a service")
    shown = "".join(traceback.format_exception(caught.value))
    assert "tenacity" not in shown
    assert "trying again for up to 1.5 s" in caplog.text


def test_a_service_that_says_why_it_is_unavailable_is_there(service):
    info = error_details_pb2.ErrorInfo(reason="DATABASE_UNAVAILABLE", domain="asktell")
    service.fail("GetStudy", *[refusal(code_pb2.UNAVAILABLE, "no database", info)] * 1000)
    with at.Client(service.target, retry_for=0.3) as client, pytest.raises(at.Unavailable) as caught:
        client.get_study("s")
    assert str(caught.value) == "no database; tried for 0.3 s (retry_for)"


def test_an_export_that_gives_up_says_so_once(service, tmp_path):
    with at.Client(service.target, retry_for=0.3) as client:
        study = client.create_study("s", parameters=[at.Float("x", 0, 1)], objectives=[at.Minimize("y")])
    with at.Client("127.0.0.1:9", retry_for=0.3) as client, pytest.raises(at.Unavailable) as caught:
        Study(study.record, connection=client._connection, keeper=client._keeper).export(tmp_path / "s")
    assert str(caught.value).count("tried for") == 1


def refused(code, field, description, reason="INVALID_ARGUMENT"):
    bad = error_details_pb2.BadRequest()
    if field:
        bad.field_violations.add(field=field, description=description)
    said = f"{field}: {description}" if field else description
    return refusal(code, said, error_details_pb2.ErrorInfo(reason=reason, domain="asktell"), bad)


SPACE = [at.Float("x", 0, 1), at.Float("lr", 0, 1)]
WORDS = [
    ("study.spec.parameters[1].float_spec.low", "parameter lr, low"),
    ("study.spec.parameters[1].name", "parameter lr"),
    ("study.spec.parameters[1].when.parent", "parameter lr, when.parent"),
    ("study.spec.parameters[7].name", "parameters[7].name"),
    ("study.spec.objectives[0].metric", "objective y"),
    ("study.spec.outcome_constraints[0].bound", "outcome constraint z, bound"),
    ("study.spec.input_constraints[0]", "constraints[0]"),
    ("study.spec.max_attempts", "max_attempts"),
    ("study.budget.max_trials", "max_trials"),
    ("study.labels[a]", "labels[a]"),
    ("study_id", "study_id"),
]


@pytest.mark.parametrize(("field", "words"), WORDS)
async def test_what_is_wrong_with_a_new_study_is_said_by_names(service, client, field, words):
    options = {"parameters": SPACE, "objectives": [at.Minimize("y")], "outcome_constraints": [at.AtMost("z", 1)]}
    service.fail("CreateStudy", *[refused(code_pb2.INVALID_ARGUMENT, field, "is odd")] * 2)
    with pytest.raises(at.InvalidArgument) as caught:
        client.create_study("s", **options)
    async with aio.Client(service.target, retry_for=0) as asynchronous:
        with pytest.raises(at.InvalidArgument) as again:
            await asynchronous.create_study("s", **options)
    for error in (caught.value, again.value):
        assert (str(error), error.field_violations) == (f"{words}: is odd", ((field, "is odd"),))
        assert (error.reason, type(error.__cause__).__name__) != ("", "NoneType")


async def test_what_is_wrong_with_a_change_of_a_study_is_said_by_names(service, client):
    field = "study.spec.parameters[1].float_spec.low"
    study = client.create_study("s", parameters=SPACE, objectives=[at.Minimize("y")])
    service.fail("UpdateStudy", *[refused(code_pb2.INVALID_ARGUMENT, field, "is odd")] * 2)
    with pytest.raises(at.InvalidArgument, match=r"^parameter lr, low: is odd$") as caught:
        study.update(parameters=SPACE)
    assert caught.value.field_violations == ((field, "is odd"),)
    async with aio.Client(service.target, retry_for=0) as asynchronous:
        with pytest.raises(at.InvalidArgument, match=r"^parameter lr, low: is odd$"):
            await (await asynchronous.get_study("s")).update(parameters=SPACE)


async def test_a_name_that_is_taken_says_what_can_be_done(service, client):
    options = {"parameters": SPACE, "objectives": [at.Minimize("y")]}
    taken = refused(code_pb2.ALREADY_EXISTS, "", "study 's' exists with another parameter 'lr'", "STUDY_EXISTS")
    service.fail("CreateStudy", taken, taken)
    said = r"^study 's' exists with another parameter 'lr'; study\.update\(\.\.\.\).* another name, or delete it$"
    with pytest.raises(at.AlreadyExists, match=said):
        client.create_study("s", **options)
    async with aio.Client(service.target, retry_for=0) as asynchronous:
        with pytest.raises(at.AlreadyExists, match=said):
            await asynchronous.create_study("s", **options)


@pytest.mark.parametrize(
    ("differs", "budget", "remedy"),
    [
        (
            "max_trials 3, not 6000000",
            {"max_trials": 6_000_000},
            'study = client.get_study("s"); study.update(max_trials=6000000), or `asktell study update s --max-trials 6000000`, changes it',
        ),
        (
            "max_duration 60 s, not 5400 s",
            {"max_duration": timedelta(hours=1.5)},
            (
                'study = client.get_study("s"); study.update(max_duration=5400.0), or'
                " `asktell study update s --max-duration 5400`, changes it"
            ),
        ),
        (
            "max_parallel 3, not unlimited",
            {},
            'study = client.get_study("s"); study.update(max_parallel=None) changes it',
        ),
    ],
)
def test_a_study_of_another_budget_says_once_which_call_changes_it(service, client, differs, budget, remedy):
    said = f"study 's' exists with {differs}; update the study to change its budget"
    service.fail("CreateStudy", refused(code_pb2.ALREADY_EXISTS, "", said, "STUDY_EXISTS"))
    with pytest.raises(at.AlreadyExists) as caught:
        client.create_study("s", parameters=SPACE, objectives=[at.Minimize("y")], **budget)
    assert str(caught.value) == f"study 's' exists with {differs}: {remedy}"


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
