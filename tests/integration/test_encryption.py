"""Encrypted connections between real servers and clients: who is let in, and what is said to who is not."""

from __future__ import annotations

import asyncio
import pickle
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
import trustme

from asktell.client import Client, Float, InvalidArgument, Minimize, Unavailable, aio
from tests.processes import ASKTELL, DidNotStart, Processes, Server

VARIABLES = ("ASKTELL_TLS", "ASKTELL_TLS_CA", "ASKTELL_TLS_CERT", "ASKTELL_TLS_KEY", "ASKTELL_TOKEN_FILE")
SPACE = {"parameters": [Float("x", 0, 1)], "objectives": [Minimize("y")], "policy": "random"}

TRAINING = """
import json
from asktell.client import Client

with Client.from_environment() as client:
    print(json.dumps({"y": client.get_study("s").counts.active}))
"""


class Authority:
    """An authority that makes certificates, all as files in a directory."""

    def __init__(self, directory: Path, name: str) -> None:
        self._ca, self._directory, self._name = trustme.CA(), directory, name
        self.certificate = directory / f"{name}.pem"
        self._ca.cert_pem.write_to_path(str(self.certificate))

    def issue(self, *names: str) -> tuple[Path, Path]:
        """The files of a new certificate and of its key."""
        made = self._ca.issue_cert(*names)
        certificate, key = (self._directory / f"{self._name}-{names[0]}.{end}" for end in ("pem", "key"))
        certificate.write_bytes(b"".join(each.bytes() for each in made.cert_chain_pems))
        made.private_key_pem.write_to_path(str(key))
        return certificate, key


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with Processes(tmp_path) as processes:
        yield processes


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def serve(processes: Processes, directory: Path, pair: tuple[Path, Path], client_ca: Path | None = None) -> Server:
    environment = {"ASKTELL_SERVER_CERT": str(pair[0]), "ASKTELL_SERVER_KEY": str(pair[1])}
    if client_ca is not None:
        environment["ASKTELL_CLIENT_CA"] = str(client_ca)
    return processes.serve(str(directory / "asktell.db"), environment=environment)


def listed(server: Server) -> list[str]:
    with Client(server.target, retry_for=1) as client:
        return [study.id for study in client.list_studies()]


def test_a_client_trusts_the_authority_of_the_environment_and_tells_its_results(
    processes, authority, tmp_path, monkeypatch
):
    server = serve(processes, tmp_path, authority.issue("127.0.0.1"))
    monkeypatch.setenv("ASKTELL_TLS_CA", str(authority.certificate))
    with Client(server.target) as client:
        study = client.create_study("s", **SPACE)
        study.optimize(lambda trial: trial.parameters["x"], count=2)
        assert study.counts.succeeded == 2
        # What a pool of processes is handed connects by itself, by the environment that is there.
        with pickle.loads(pickle.dumps(client)) as copied:
            assert copied.get_study("s").counts.succeeded == 2

    async def count() -> int:
        async with aio.Client(server.target) as client:
            return (await client.get_study("s")).counts.succeeded

    assert asyncio.run(count()) == 2


def test_commands_workers_and_their_trainings_are_encrypted_by_the_same_variables(
    processes, authority, tmp_path, monkeypatch
):
    server = serve(processes, tmp_path, authority.issue("127.0.0.1"))
    monkeypatch.setenv("ASKTELL_TLS_CA", str(authority.certificate))
    monkeypatch.setenv("ASKTELL_TARGET", server.target)
    created = processes.start([ASKTELL, "study", "create", "s", "--float", "x=0:1", "--minimize", "y"])
    assert created.wait() == 0, created.errors()
    training = tmp_path / "training.py"
    training.write_text(TRAINING)
    command = [ASKTELL, "work", "--study", "s", "--max-trials", "1", "--", sys.executable, str(training)]
    worker = processes.start(command)
    assert worker.wait() == 0, worker.errors()
    with Client(server.target) as client:
        assert client.get_study("s").best_trial.value() == 1.0


def test_who_does_not_encrypt_or_trusts_another_authority_gets_nowhere(processes, authority, tmp_path, monkeypatch):
    server = serve(processes, tmp_path, authority.issue("127.0.0.1"))
    with pytest.raises(Unavailable, match="if connections there are encrypted, set ASKTELL_TLS=1"):
        listed(server)
    monkeypatch.setenv("ASKTELL_TLS_CA", str(Authority(tmp_path, "other").certificate))
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        listed(server)


def test_a_server_that_asks_for_certificates_lets_in_only_who_has_one_of_its_authority(
    processes, authority, tmp_path, monkeypatch
):
    server = serve(processes, tmp_path, authority.issue("127.0.0.1"), authority.certificate)
    monkeypatch.setenv("ASKTELL_TLS_CA", str(authority.certificate))
    with pytest.raises(Unavailable):
        listed(server)
    for issuer, is_in in ((Authority(tmp_path, "other"), False), (authority, True)):
        certificate, key = issuer.issue("worker-1")
        monkeypatch.setenv("ASKTELL_TLS_CERT", str(certificate))
        monkeypatch.setenv("ASKTELL_TLS_KEY", str(key))
        if is_in:
            assert listed(server) == []
        else:
            with pytest.raises(Unavailable):
                listed(server)


def test_a_certificate_is_replaced_without_a_restart_once_it_is_whole(processes, authority, tmp_path, monkeypatch):
    certificate, key = authority.issue("127.0.0.1")
    server = serve(processes, tmp_path, (certificate, key))
    other = Authority(tmp_path, "other")
    new_certificate, new_key = other.issue("127.0.0.1")
    shutil.copy(new_certificate, certificate)
    # Half of it: the old one is still shown.
    monkeypatch.setenv("ASKTELL_TLS_CA", str(authority.certificate))
    for _ in range(3):
        assert listed(server) == []
    assert server.errors().count("certificate_not_renewed") == 1, "not once for each connection"
    shutil.copy(new_key, key)
    monkeypatch.setenv("ASKTELL_TLS_CA", str(other.certificate))
    assert listed(server) == []
    assert "certificate_not_renewed" in server.errors()
    assert "certificate_renewed" in server.errors()


def test_health_is_asked_over_an_encrypted_connection(processes, authority, tmp_path):
    server = serve(processes, tmp_path, authority.issue("127.0.0.1"))
    environment = {"ASKTELL_TLS_CA": str(authority.certificate)}
    asked = processes.start([ASKTELL, "health", server.target], environment=environment)
    assert (asked.wait(), asked.rest()) == (0, "SERVING\n"), asked.errors()


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"ASKTELL_SERVER_CERT": "{certificate}"}, "--server-cert and --server-key go together"),
        ({"ASKTELL_CLIENT_CA": "{certificate}"}, "--client-ca needs --server-cert and --server-key"),
        ({"ASKTELL_SERVER_CERT": "{certificate}", "ASKTELL_SERVER_KEY": "{other}"}, "are no certificate with its key"),
        ({"ASKTELL_SERVER_CERT": "{key}", "ASKTELL_SERVER_KEY": "{key}"}, "are no certificate with its key"),
        (
            {"ASKTELL_SERVER_CERT": "{certificate}", "ASKTELL_SERVER_KEY": "{key}", "ASKTELL_CLIENT_CA": "{key}"},
            "has no certificates of authorities",
        ),
        ({"ASKTELL_SERVER_CERT": "{empty}", "ASKTELL_SERVER_KEY": "{key}"}, "has no PEM block"),
    ],
)
def test_a_server_without_a_whole_certificate_does_not_start(processes, authority, tmp_path, environment, words):
    certificate, key = authority.issue("127.0.0.1")
    _, other = authority.issue("localhost")
    empty = tmp_path / "empty"
    empty.touch()
    found = {
        name: value.format(certificate=certificate, key=key, other=other, empty=empty)
        for name, value in environment.items()
    }
    with pytest.raises(DidNotStart, match=words):
        processes.serve(str(tmp_path / "asktell.db"), environment=found)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"ASKTELL_TLS": "perhaps"}, "ASKTELL_TLS: must be 1 or 0, not 'perhaps'"),
        ({"ASKTELL_TLS": "0", "ASKTELL_TLS_CA": "{file}"}, "ASKTELL_TLS: is '0', but ASKTELL_TLS_CA or"),
        ({"ASKTELL_TLS_CA": "/nowhere/ca.pem"}, "ASKTELL_TLS_CA: cannot be read: .*No such file"),
        ({"ASKTELL_TLS_CA": "{file}"}, "ASKTELL_TLS_CA: .* has no PEM block"),
        ({"ASKTELL_TLS_CERT": "{file}"}, "ASKTELL_TLS_KEY: must be set along with ASKTELL_TLS_CERT"),
        ({"ASKTELL_TLS_KEY": "{file}"}, "ASKTELL_TLS_CERT: must be set along with ASKTELL_TLS_KEY"),
        (
            {"ASKTELL_TOKEN_FILE": "{file}"},
            "ASKTELL_TOKEN_FILE: is set, and a token is sent over an encrypted connection",
        ),
        ({"ASKTELL_TLS": "1", "ASKTELL_TOKEN_FILE": "{file}"}, "ASKTELL_TOKEN_FILE: .* holds no token"),
        ({"ASKTELL_TLS": "1", "ASKTELL_TOKEN_FILE": "/nowhere/token"}, "ASKTELL_TOKEN_FILE: cannot be read"),
    ],
)
def test_variables_that_cannot_be_meant_are_refused_by_name(tmp_path, monkeypatch, environment, words):
    file = tmp_path / "file"
    file.write_text("two words\n")
    for name, value in environment.items():
        monkeypatch.setenv(name, value.format(file=file))
    with pytest.raises(InvalidArgument, match=words):
        Client("localhost:1")


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"ASKTELL_TLS_CA": "{key}"}, "ASKTELL_TLS_CA: .*key has no certificates of authorities"),
        ({"ASKTELL_TLS_CERT": "{certificate}", "ASKTELL_TLS_KEY": "{other}"}, "ASKTELL_TLS_KEY: .* is not the key"),
        ({"ASKTELL_TLS_CERT": "{key}", "ASKTELL_TLS_KEY": "{certificate}"}, "ASKTELL_TLS_KEY: .* is not the key"),
    ],
)
def test_files_that_a_connection_could_not_use_are_refused_at_once(authority, monkeypatch, environment, words):
    certificate, key = authority.issue("worker-1")
    _, other = authority.issue("worker-2")
    for name, value in environment.items():
        monkeypatch.setenv(name, value.format(certificate=certificate, key=key, other=other))
    with pytest.raises(InvalidArgument, match=words):
        Client("localhost:1")


def test_a_server_in_this_process_is_reached_whatever_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("ASKTELL_TLS", "1")
    with Client.local(tmp_path / "asktell.db", retry_for=1) as client:
        assert client.create_study("s", **SPACE).id == "s"


@contextmanager
def gate(pair: tuple[Path, Path], told: list[str]) -> Iterator[str]:
    """A server that notes by which words its callers say who they are, and knows no method."""

    class Noting(grpc.ServerInterceptor):
        def intercept_service(self, continuation, details):
            told.append(dict(details.invocation_metadata).get("authorization", ""))
            return continuation(details)

    server = grpc.server(ThreadPoolExecutor(1), interceptors=[Noting()])
    credentials = grpc.ssl_server_credentials([(pair[1].read_bytes(), pair[0].read_bytes())])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0)


def test_the_token_of_the_file_goes_along_with_each_call_as_it_is_at_that_moment(authority, tmp_path, monkeypatch):
    token, told = tmp_path / "token", []
    token.write_text("first\n")
    monkeypatch.setenv("ASKTELL_TLS_CA", str(authority.certificate))
    monkeypatch.setenv("ASKTELL_TOKEN_FILE", str(token))
    with gate(authority.issue("127.0.0.1"), told) as target, Client(target, retry_for=0.1) as client:
        for content in ("first", "second"):
            token.write_text(content)
            with pytest.raises(Exception, match="Method not found"):
                client.list_studies()
    assert told == ["Bearer first", "Bearer second"]
