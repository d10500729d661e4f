"""A target that cannot be one is refused when the client is made, with what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from asktell import client as at
from asktell.cli import app
from asktell.client import aio
from asktell.worker import cli as worker

GOOD = (
    "localhost:50051 127.0.0.1:1 [::1]:1 host.example:65535 my_host-1:1 dns:///host:1 dns:host:1 dns://8.8.8.8:53/host:1"
    " ipv4:127.0.0.1:1 ipv4:10.0.0.1:1,10.0.0.2:1 ipv6:[::1]:1 ipv6:%5B::1%5D:1 unix:/tmp/a unix:///tmp/a"
    " unix-abstract:a vsock:2:1 xds:///service"
)
OPEN = "; while a Client.local has it open, its client.target is where it can be reached"
BAD = [
    ("http://localhost:50051", "'http://localhost:50051' has a scheme, http://: write localhost:50051"),
    ("https://me:hidden@host/path", "'https://host' has a scheme, https://: write host:50051"),
    ("localhost", "'localhost' has no port: write localhost:50051"),
    ("localhost:", "'localhost:' has no port: write localhost:50051"),
    ("dns:///host", "'dns:///host' has no port: write host:50051"),
    ("ipv4:10.0.0.1:1,10.0.0.2", "'ipv4:10.0.0.1:1,10.0.0.2' has no port: write 10.0.0.2:50051"),
    ("::1", "'::1' has no port, or its IPv6 address no brackets: write [::1]:50051"),
    ("[::1]", "'[::1]' has no port, or its IPv6 address no brackets: write [::1]:50051"),
    (":50051", "':50051' has no host: write localhost:50051"),
    ("host:http", "'host:http' has no number for a port: write host:50051"),
    ("host:99999", "'host:99999' has the port 99999, not one from 1 to 65535: write host:50051"),
    ("localhost:1/", "'localhost:1/' is more than a host and a port: write localhost:1"),
    (
        "x.db",
        f"'x.db' looks like a file: Client.local('x.db') opens it, `asktell serve --database x.db` serves it{OPEN}",
    ),
    ("a/b", f"'a/b' looks like a file: Client.local('a/b') opens it, `asktell serve --database a/b` serves it{OPEN}"),
    (
        "sqlite:///x.db",
        f"'sqlite:///x.db' looks like a file: Client.local('x.db') opens it, `asktell serve --database x.db` serves it{OPEN}",
    ),
    (
        "postgresql://me:hidden@host/name",
        "'postgresql://host' is a database: write where `asktell serve` listens, such as localhost:50051",
    ),
    (
        Path("x.db"),
        f"{Path('x.db')!r} is a PosixPath, not a text: Client.local('x.db') opens it, `asktell serve --database x.db` serves it{OPEN}",
    ),
]


@pytest.mark.parametrize("kind", [at.Client, aio.Client], ids=["threads", "asyncio"])
@pytest.mark.parametrize("target", GOOD.split())
def test_what_grpc_takes_is_taken(kind, target):
    assert kind(target).target == target


@pytest.mark.parametrize("kind", [at.Client, aio.Client], ids=["threads", "asyncio"])
@pytest.mark.parametrize(("target", "said"), BAD, ids=[str(target) for target, _ in BAD])
def test_what_is_no_target_is_refused_with_what_to_write(kind, target, said):
    with pytest.raises(at.InvalidArgument) as caught:
        kind(target)
    assert str(caught.value) == f"target: {said}"
    assert caught.value.field_violations == (("target", said),)


@pytest.mark.parametrize("kind", [at.Client, aio.Client], ids=["threads", "asyncio"])
def test_a_target_of_the_environment_is_refused_with_the_variable(kind, monkeypatch):
    monkeypatch.setenv("ASKTELL_TARGET", "localhost")
    with pytest.raises(at.InvalidArgument, match=r"^ASKTELL_TARGET: 'localhost' has no port: write localhost:50051$"):
        kind()


@pytest.mark.parametrize("command", ["study list", "study show s", "work f:g --study s"])
def test_the_command_line_refuses_it_as_one_that_makes_no_sense(command, capsys, monkeypatch):
    monkeypatch.setenv("ASKTELL_TARGET", "http://localhost:50051")
    with pytest.raises(SystemExit) as exited:
        app.main(command.split())
    error = capsys.readouterr().err
    assert (exited.value.code, error.count("\n")) == (2, 1)
    assert error.endswith("'http://localhost:50051' has a scheme, http://: write localhost:50051\n")


def test_so_does_the_module_of_the_worker(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["worker", "--study", "s", "--target", "localhost", "f:g"])
    with pytest.raises(SystemExit) as exited:
        worker.main()
    assert exited.value.code == 2
    assert capsys.readouterr().err == "asktell work: target: 'localhost' has no port: write localhost:50051\n"
