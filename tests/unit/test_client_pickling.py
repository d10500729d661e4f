"""A client is its arguments, and a study its client and what it is: other processes connect by themselves."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import grpc
import pytest

from asktell import client as at
from asktell.client import aio
from tests.unit.client_fake import serving

SPACE = {"parameters": [at.Float("x", 0, 1), at.Categorical("c", [None, "a"])], "objectives": [at.Minimize("y")]}


@pytest.fixture
def service():
    with serving() as service:
        yield service


@pytest.fixture
def client(service):
    with at.Client(service.target, project="p", timeout=20.0, retry_for=7.0) as client:
        yield client


def work(study):
    """In another process."""
    study.optimize(lambda trial: trial.parameters["x"], count=1)
    return study.name


def studies_of(client):
    """In another process."""
    with client:
        return [study.id for study in client.list_studies()]


def test_a_client_and_its_studies_work_in_other_processes(client):
    study = client.create_study("s", **SPACE)
    (mine,) = study.ask()
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        assert list(pool.map(work, [study, study])) == [study.name] * 2
        assert pool.submit(studies_of, client).result(60) == ["s"]
    assert [trial.state.value for trial in study.list_trials()] == ["active", "succeeded", "succeeded"]
    mine.tell(y=0.0)


def test_a_client_arrives_with_its_arguments_and_a_connection_of_its_own(service, client):
    with pickle.loads(pickle.dumps(client)) as back:
        assert (back.target, back.project) == (service.target, "p")
        assert (back._connection._timeout, back._connection._retry_for) == (20.0, 7.0)
        assert back.list_studies() == []
    assert client.list_studies() == [], "closing one does not close the other"


def test_a_study_arrives_as_it_was_and_its_leases_stay(client):
    study = client.create_study("s", **SPACE)
    (trial,) = study.ask()
    with trial.keep_alive():
        back = pickle.loads(pickle.dumps(study))
        assert (back.record, back._keeper._book._entries) == (study.record, {})
    assert copy.deepcopy(study).record == study.record
    back.refresh()


def refused(of):
    with pytest.raises(TypeError) as caught:
        pickle.dumps(of)
    return str(caught.value)


def test_a_trial_says_what_to_send_in_its_place(client):
    study = client.create_study("s", **SPACE)
    (trial,) = study.ask()
    for each in (trial, *study.list_trials()):
        assert "send trial.number and trial.parameters" in refused(each)


def test_a_client_with_credentials_says_what_to_do(service):
    with at.Client(service.target, credentials=grpc.ssl_channel_credentials()) as client:
        assert "open Client('host:port', credentials=...) in each process" in refused(client)


def test_a_local_client_and_its_studies_say_what_to_do(tmp_path):
    with at.Client.local(tmp_path / "a.db") as client:
        for each in (client, client.create_study("s", **SPACE)):
            assert "open Client('host:port') in each process" in refused(each)


async def test_what_belongs_to_an_event_loop_says_what_to_do(service):
    async with aio.Client(service.target) as client:
        study = await client.create_study("s", **SPACE)
        (trial,) = await study.ask()
        assert "send trial.number and trial.parameters" in refused(trial)
        for each in (client, study):
            assert "open Client('host:port') in each process" in refused(each)
