"""Variables with asktell's prefix that nothing knows."""

from __future__ import annotations

from dataclasses import fields

import pytest

from asktell.cli import app as application
from asktell.cli import environment
from asktell.client import current, encryption
from asktell.client.channel import TARGET_VARIABLE
from asktell.server.cli import app as server_app
from asktell.server.settings import Settings
from asktell.worker.cli import app as worker_app


def said(*names: str) -> list[str]:
    return list(environment.warnings(dict.fromkeys(names, "x")))


def test_the_settings_of_every_part_are_known() -> None:
    commands = (worker_app, server_app["serve"], server_app["migrate"], server_app["backup"])
    declared = {
        name
        for command in commands
        for argument in command.assemble_argument_collection()
        for name in argument.parameter.env_var or ()
    }
    assert len(declared) > len(fields(Settings))
    assert said(*declared) == []


def test_what_the_worker_sets_for_trainings_and_the_client_reads_is_known() -> None:
    assert said(current.PROJECT, current.STUDY, current.TRIAL, current.TOKEN, current.UPLOAD, TARGET_VARIABLE) == []
    assert said(encryption.CA, encryption.CERTIFICATE, encryption.KEY) == []
    assert said("ASKTELL_PARAMETERS", "ASKTELL_PARAM_ANY_NAME_AT_ALL", "ASKTELL_SLOT", "ASKTELL_ATTEMPT") == []


def test_what_is_near_a_name_is_said_with_it() -> None:
    assert said("ASKTELL_LISTN", "HOME", "ASKTELL_DATABASE_URL", "ASKTELL_ZZZZ") == [
        "nothing reads the environment variable ASKTELL_DATABASE_URL: is ASKTELL_DATABASE meant?",
        "nothing reads the environment variable ASKTELL_LISTN: is ASKTELL_LISTEN meant?",
        "nothing reads the environment variable ASKTELL_ZZZZ",
    ]


def test_what_kubernetes_tests_and_the_compose_file_set_is_left_alone() -> None:
    links = ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_GRPC", "PORT_50051_TCP", "PORT_50051_TCP_ADDR"]
    assert said(*(f"ASKTELL_{link}" for link in links), *(f"ASKTELL_SERVER_{link}" for link in links)) == []
    ports = {"ASKTELL_PORT": "tcp://10.0.0.7:50051", "ASKTELL_SERVER_PORT": "tcp://10.0.0.7:50051"}
    assert list(environment.warnings(ports)) == []
    assert list(environment.warnings({"ASKTELL_PORT": "50052"})) != []
    assert said("ASKTELL_CHAOS_SEED", "ASKTELL_SOAK_SECONDS", "ASKTELL_TEST_MARK", "ASKTELL_DB_PASSWORD") == []


@pytest.mark.parametrize(
    ("arguments", "warned"),
    [(["serve", "--help"], True), (["migrate", "--help"], True), (["work", "--help"], True), (["study"], False)],
)
def test_the_commands_that_a_slip_would_mislead_warn_of_it(
    arguments: list[str], warned: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ASKTELL_LISTN", "0.0.0.0:50051")
    with pytest.raises(SystemExit):
        application.main(arguments)
    line = "asktell: nothing reads the environment variable ASKTELL_LISTN: is ASKTELL_LISTEN meant?\n"
    assert capsys.readouterr().err == (line if warned else "")
