"""The command that runs a server: its settings, and what it says when it cannot start."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from asktell.cli import failure, places
from asktell.server.bootstrap import migrate_database
from asktell.server.settings import Settings, StartError


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "asktell.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


def test_help_lists_every_setting_with_its_environment_variable() -> None:
    shown = run("serve", "--help").stdout
    missing = [
        name
        for field in fields(Settings)
        for name in ("--" + field.name.replace("_", "-"), "ASKTELL_" + field.name.upper())
        if name not in shown
    ]
    assert missing == []
    assert "asktell serve --listen" in shown, "there is an example"


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--listen", "256.0.0.1:80"], {}, "cannot listen on 256.0.0.1:80"),
        (["--listen", "127.0.0.1:99999"], {}, "port from 0 to 65535"),
        (["--listen", "localhost"], {}, "is not HOST:PORT"),
        (["--database", "sqlite:///:memory:"], {}, "memory"),
        (["--database", "mysql://root@127.0.0.1/x"], {}, "mysql"),
        (["--database", "postgresql://a:secret@h:notaport/x"], {}, "a port 'notaport' that is no number"),
        (["--database", ""], {}, 'Invalid value "" for --database'),
        ([], {"ASKTELL_DATABASE": ""}, 'Invalid value "" for ASKTELL_DATABASE'),
        (["--database", "postgresql://nobody@127.0.0.1:1/x"], {}, "127.0.0.1"),
        (["--migrate", "--database", "postgresql://nobody:secret@127.0.0.1:1/x"], {}, "127.0.0.1"),
        ([], {"ASKTELL_ENGINE_PROCESSES": "0"}, "ASKTELL_ENGINE_PROCESSES"),
        ([], {"ASKTELL_DRAIN": "soon"}, "ASKTELL_DRAIN"),
        (["--log-level", "loud"], {}, "log-level"),
        (["--processes", "2"], {}, "--processes 2 needs PostgreSQL"),
        (
            ["--processes", "2", "--listen", "256.0.0.1:80", "--database", "postgresql://127.0.0.1:1/x"],
            {},
            "cannot listen",
        ),
        (
            ["--processes", "2", "--database", "postgresql://nobody@127.0.0.1:1/x"],
            {},
            "the database cannot be used now",
        ),
    ],
)
def test_a_server_that_cannot_start_says_why(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], message: str
) -> None:
    default = {"ASKTELL_DATABASE": str(tmp_path / "a.db"), "ASKTELL_LISTEN": "127.0.0.1:0"}
    ended = run("serve", *arguments, **{**default, **environment})
    assert ended.returncode in (1, 2)
    assert message in ended.stderr + ended.stdout
    assert "Traceback" not in ended.stderr
    assert "secret" not in ended.stderr


def test_a_flag_wins_over_its_environment_variable(tmp_path: Path) -> None:
    ended = run("serve", "--listen", "256.0.0.1:1", ASKTELL_LISTEN="256.0.0.2:2", XDG_DATA_HOME=str(tmp_path))
    assert "cannot listen on 256.0.0.1:1" in ended.stderr
    assert (tmp_path / "asktell" / "asktell.db").exists(), "the default database is in the user's data directory"


@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_without_a_data_directory_one_is_told_where_to_name_the_database(command: str) -> None:
    ended = run(command, HOME="/dev/null/nowhere", XDG_DATA_HOME="")
    assert ended.returncode == 1
    assert ended.stderr == (
        f"asktell {command}: the user {os.geteuid()} has no data directory to keep a database in:"
        " /dev/null/nowhere/.local/share/asktell: Not a directory; say where it shall be by --database or ASKTELL_DATABASE\n"
    )


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A user whom the system does not know, without HOME, as in a container under an arbitrary number."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    for name in ("HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    os.setresuid(12345, 12345, 0)
    yield 12345
    os.setresuid(0, 0, 0)


def test_a_user_without_a_home_is_told_what_to_name(nobody: int) -> None:
    with pytest.raises(StartError, match=f"user {nobody} has no home directory .* --database or ASKTELL_DATABASE"):
        Settings().database_url  # noqa: B018
    with pytest.raises(places.Homeless, match="--logs or ASKTELL_LOGS") as caught:
        places.logs(None)
    assert failure.explain(caught.value) == (str(caught.value), False)
    assert places.logs("logs") == Path("logs").absolute()


@pytest.mark.parametrize("address", ["host=db user=u password=secret dbname=asktell", "postgresql:u:secret@db"])
def test_the_address_of_a_server_in_another_form_makes_no_file(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run("serve", "--listen", "127.0.0.1:0", ASKTELL_DATABASE=address)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "write postgresql://USER@HOST/NAME" in line
    assert "secret" not in line
    assert list(tmp_path.iterdir()) == []


def test_health_of_a_server_that_is_not_there_is_an_error() -> None:
    ended = run("health", "127.0.0.1:1", "--timeout", "2")
    assert ended.returncode == 1
    assert "127.0.0.1:1: UNAVAILABLE" in ended.stderr


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("localhost", "write localhost:50051"),
        ("http://localhost:50051", "has a scheme, http://: write localhost:50051"),
    ],
)
def test_health_of_what_is_no_target_says_what_to_write(target: str, message: str) -> None:
    ended = run("health", target)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert message in line


def test_migrating_twice_is_fine_and_an_unmigrated_database_is_refused(tmp_path: Path) -> None:
    settings = Settings(database=str(tmp_path / "a.db"), migrate=False, listen="127.0.0.1:0")
    ended = run("serve", "--no-migrate", "--database", settings.database)
    assert ended.returncode == 1
    assert f"`asktell migrate --database {settings.database}`" in ended.stderr
    for _ in range(2):
        ended = run("migrate", "--database", settings.database)
        assert (ended.returncode, ended.stdout) == (0, f"{settings.database}: the schema is up to date\n")
    by_default = run("migrate", XDG_DATA_HOME=str(tmp_path))
    assert by_default.stdout == f"{tmp_path / 'asktell' / 'asktell.db'}: the schema is up to date\n"


def test_a_file_that_is_no_database_is_left_alone_and_named(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("not a database, but long enough to look at" * 10)
    ended = run("serve", "--listen", "127.0.0.1:0", "--database", str(notes))
    assert ended.returncode == 1
    assert f"{notes} cannot be used: file is not a database" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert notes.read_text().startswith("not a database")


@pytest.mark.parametrize("command", [("serve", "--listen", "127.0.0.1:0"), ("migrate",), ("backup", "copy.db")])
def test_an_empty_address_is_never_the_default_database(tmp_path: Path, command: tuple[str, ...]) -> None:
    for arguments, environment in ((("--database", ""), {}), ((), {"ASKTELL_DATABASE": ""})):
        ended = run(*command, *arguments, **environment, XDG_DATA_HOME=str(tmp_path))
        assert ended.returncode != 0
        assert "the database's address is empty" in ended.stderr
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StartError, match="is empty"):
        migrate_database(Settings(database=""))


@pytest.mark.parametrize("command", ["migrate", "backup"])
def test_a_port_that_is_no_number_is_an_error_of_one_line(command: str) -> None:
    ended = run(command, *["copy.db"][: command == "backup"], "--database", "postgresql://a:secret@h:notaport/db")
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"asktell {command}: the database's address has a port 'notaport' that is no number")
    assert ended.stderr.count("\n") == 1
    assert "secret" not in ended.stderr


def test_an_unusable_database_is_an_error_that_the_user_can_mend() -> None:
    with pytest.raises(StartError, match="mysql"):
        migrate_database(Settings(database="mysql://127.0.0.1/x"))


def test_settings_know_the_database_that_needs_no_deploy_step(tmp_path: Path) -> None:
    assert Settings(database=str(tmp_path / "a.db")).migrates
    assert not Settings(database="postgresql://u:p@h/d").migrates
    assert Settings().database_url.endswith("asktell.db")
    assert Settings().engines >= 1
    assert Settings(processes=64).engines == 1
