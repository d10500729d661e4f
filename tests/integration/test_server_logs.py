"""What a server says in its log, to whom it is of use: of refused calls, of a database that fails, on a terminal and to programs."""

from __future__ import annotations

import json
import os
import pty
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from asktell.client import Client, Float, Minimize
from asktell.client.errors import Unavailable
from asktell.v1 import trial_service_pb2 as trials
from tests.postgres import Postgres
from tests.processes import ASKTELL, Processes, Server, until
from tests.wire import Wire


@contextmanager
def served(directory: Path, database: str, **environment: str) -> Iterator[Server]:
    with Processes(directory) as processes:
        yield processes.serve(database, environment={"ASKTELL_LOG_FORMAT": "json", **environment})


def said(server: Server, event: str) -> list[dict[str, Any]]:
    """The lines of the log of an event; every line is JSON."""
    return [line for line in map(json.loads, server.errors().splitlines()) if line["event"] == event]


def test_a_refused_call_is_logged_with_whose_it_was_and_without_its_secrets(tmp_path: Path) -> None:
    with served(tmp_path, str(tmp_path / "a.db")) as server, Wire(server.target) as wire:
        with Client(server.target, project="p") as client:
            client.create_study("s", parameters=[Float("x", 0, 1)], objectives=[Minimize("y")])
        wire.one("projects/p/studies/s")
        result = trials.TrialResult(number=1, lease_token="hidden-token")
        request = trials.TellRequest(parent="projects/p/studies/s", request_id="request-7", results=[result])
        with pytest.raises(grpc.RpcError):
            wire.call("Tell", request)
        with pytest.raises(grpc.RpcError):
            wire.call("GetTrial", trials.GetTrialRequest(name="projects/p/studies/s/trials/99"))
        told, got = until(lambda: said(server, "rpc_refused")[1:] and said(server, "rpc_refused"))
    assert (told["method"], told["resource"], told["request_id"]) == ("Tell", "projects/p/studies/s", "request-7")
    assert told["level"] == "info"
    assert (got["method"], got["resource"]) == ("GetTrial", "projects/p/studies/s/trials/99")
    assert "request_id" not in got
    assert all(each["peer"].startswith("ipv4:127.0.0.1:") for each in (told, got))
    assert "hidden-token" not in server.errors()


def test_a_disk_that_is_full_is_an_error_in_the_log_once_a_minute(tmp_path: Path) -> None:
    with (
        served(tmp_path, str(tmp_path / "a.db"), ASKTELL_LOG_LEVEL="warning") as server,
        Client(server.target, project="p", retry_for=0) as client,
    ):
        client.create_study("s", parameters=[Float("x", 0, 1)], objectives=[Minimize("y")])
        # No file of the server can grow beyond this any more.
        size = (tmp_path / "a.db-wal").stat().st_size
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        for number in range(5):
            with pytest.raises(Unavailable):
                client.create_study(f"s{number}", parameters=[Float("x", 0, 1)], objectives=[Minimize("y")])
        (line,) = until(lambda: said(server, "database_fails"))
        assert said(server, "rpc_refused") == []
    assert (line["level"], line["reason"], line["refused"]) == ("error", "DATABASE_UNAVAILABLE", 1)
    assert (line["method"], line["resource"], line["study_id"]) == ("CreateStudy", "projects/p", "s0")
    assert line["message"].startswith("the database cannot be used now: ")


def health(server: Server, service: str) -> int:
    with grpc.insecure_channel(server.target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return int(stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=30).status)


def test_a_server_without_its_database_lives_and_names_what_it_tries_again(postgres: Postgres, tmp_path: Path) -> None:
    name = postgres.create_database(migrated=True)
    with served(tmp_path, postgres.url(name)) as server:
        until(lambda: health(server, "") == health_pb2.HealthCheckResponse.SERVING)
        postgres.drop_database(name)
        until(lambda: health(server, "") == health_pb2.HealthCheckResponse.NOT_SERVING)
        assert health(server, "liveness") == health_pb2.HealthCheckResponse.SERVING
        asked = [subprocess.run([ASKTELL, "health", server.target, *more], check=False) for more in ([], LIVENESS)]
        assert [each.returncode for each in asked] == [1, 0]
        retries = until(lambda: said(server, "database_retry"))
        assert "stamina" not in server.errors()
    assert {line["level"] for line in retries} == {"info"}
    assert all(line["reason"] and line["retries"] >= 1 for line in retries)
    assert len({line["kind"] for line in retries}) == len(retries)


LIVENESS = ["--service", "liveness"]

PROGRAM = """
import structlog
from asktell.server.logs import show_logs
show_logs(level="info", style="console")
log = structlog.get_logger("asktell.test")
log.info("calm", number=1)
try:
    1 / 0
except ZeroDivisionError:
    log.exception("broken")
"""


def written(*, terminal: bool, **environment: str) -> str:
    """What a program logs for people, into a pipe or on a terminal."""
    plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    command, chosen = [sys.executable, "-c", PROGRAM], {**plain, "TERM": "xterm-256color", **environment}
    if not terminal:
        return subprocess.run(command, env=chosen, stderr=subprocess.PIPE, text=True, check=True, timeout=60).stderr
    reader, writer = pty.openpty()
    try:
        subprocess.run(command, env=chosen, stderr=writer, check=True, timeout=60)
        return os.read(reader, 1 << 16).decode()
    finally:
        os.close(writer)
        os.close(reader)


@pytest.mark.parametrize(
    ("terminal", "environment", "coloured"),
    [(True, {}, True), (True, {"NO_COLOR": "1"}, False), (False, {}, False), (False, {"NO_COLOR": "1"}, False)],
)
def test_logs_for_people_have_colours_on_a_terminal_alone_and_without_no_color(
    terminal: bool, environment: dict[str, str], coloured: bool
) -> None:
    text = written(terminal=terminal, **environment)
    assert "calm" in text
    assert "ZeroDivisionError" in text
    assert ("\x1b[" in text) is coloured


EMBEDDED = """
import logging, sys
from asktell.client import Client

logging.basicConfig(level=logging.INFO)
Client.local(sys.argv[1]).close()
"""


def test_a_server_within_a_program_logs_lines_of_text_as_the_program_says_and_no_migrations(tmp_path: Path) -> None:
    file = tmp_path / "asktell.db"
    done = subprocess.run([sys.executable, "-c", EMBEDDED, str(file)], capture_output=True, text=True, check=True)
    serving, draining = done.stderr.splitlines()
    assert serving.startswith(f"INFO:asktell.server:serving database=sqlite:///{file} listen=127.0.0.1:")
    assert draining == "INFO:asktell.server:draining seconds=1.0"
