"""The command line itself: its help, its completion, its errors, and what it does not load."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from asktell.cli import app as application

STUDY = [
    "create",
    "list",
    "show",
    "best",
    "trials",
    "export",
    "import",
    "delete",
    "update",
    "pause",
    "resume",
    "finish",
]
COMMANDS = [
    [],
    ["serve"],
    ["migrate"],
    ["health"],
    ["work"],
    ["study"],
    ["completion"],
    *(["study", name] for name in STUDY),
]


def asktell(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "asktell.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | environment,
    )


def call(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exited:
        application.main(arguments)
    written = capsys.readouterr()
    return exited.value.code or 0, written.out, written.err


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(command: list[str], capsys) -> None:
    status, out, err = call(capsys, *command, "--help")
    assert (status, err) == (0, "")
    assert "or example:" in out
    assert " ".join(["asktell", *command]) in out.partition("or example:")[2].replace("\n", " ")


def examples(command: list[str]) -> list[str]:
    """The command lines in a command's own text, where those that the source breaks are one line too."""
    app = application.build(command[0] if command else "")
    for name in command:
        app = app[name]
    text = app.help or str(getattr(app.default_command, "__doc__", ""))
    spans = re.findall(r"^ *(?:For example: )?`([^`]+)`$", text, re.MULTILINE)
    return [" ".join(span.split()) for span in spans if "asktell" in span]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_example_is_one_line_of_the_help_of_a_narrow_terminal(command: list[str], capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = call(capsys, *command, "--help")
    lines = {line.removeprefix("For example: ").rstrip() for line in out.splitlines()}
    assert examples(command)
    assert [example for example in examples(command) if example not in lines] == []


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_example_is_a_command_line_that_is_understood(command: list[str]) -> None:
    for example in examples(command):
        words = shlex.split(re.split(r" [|>] ", example)[0])
        arguments = words[words.index("asktell") + 1 :]
        application.build().parse_args(arguments, print_error=False, exit_on_error=False)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["study", "--help"]])
def test_help_loads_nothing_of_the_server(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom asktell.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit: pass\n"
        "print(*[name for name in ('torch', 'sqlalchemy', 'numpy', 'asktell.server') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_of_every_shell_is_printed(shell: str, capsys) -> None:
    status, out, _ = call(capsys, "completion", shell)
    assert status == 0
    assert "asktell" in out
    assert "export" in out


def test_the_bash_completion_is_valid_bash(capsys) -> None:
    _, script, _ = call(capsys, "completion", "bash")
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope"], 'Unknown command "nope"'),
        (["study", "list", "--jsn"], "Unknown option: --jsn. Did you mean --json?"),
        (["study", "show"], "NAME requires an argument"),
        (["study", "create", "x", "--bool", "a", "--maximize", "m", "--seed", "s"], 'unable to convert "s" into int'),
        (["study", "create", "x", "--float", "a"], "--float 'a': expected NAME=LOW:HIGH"),
        (["study", "create", "x", "--bool", "a"], "give --minimize METRIC or --maximize METRIC"),
        (["study", "create", "x", "--minimize", "a"], "a study has parameters"),
        (["study", "create", "x", "--bool", "a", "--minimize", "m", "--label", "l"], "--label 'l': expected KEY=VALUE"),
        (["study", "update", "x"], "nothing to change: give --max-trials"),
        (["study", "update", "x", "--max-trials", "0"], 'Invalid value "0" for --max-trials'),
        (["study", "update", "x", "--label", "l"], "--label 'l': expected KEY=VALUE"),
        (["study", "update", "x", "--label", "k=v", "--remove-label", "k"], "--remove-label 'k': --label sets it"),
        (["study", "create", "x", "--spec", "no-such-file.toml"], "no-such-file.toml: No such file"),
        (["study", "import", "no-such-file.jsonl"], "no-such-file.jsonl: No such file"),
        (["study", "trials", "x", "--state", "odd"], 'Invalid value "odd" for --state'),
        (["work", "--study", "x", "python", "--lr"], "A command line goes after --."),
        (["completion", "tcsh"], 'Invalid value "tcsh"'),
    ],
)
def test_a_misuse_is_one_line_on_standard_error_and_status_2(arguments: list[str], message: str, capsys) -> None:
    status, out, err = call(capsys, *arguments)
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("asktell: ")
    assert message in line


def test_a_missing_extra_is_named(monkeypatch, capsys) -> None:
    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name == "sqlalchemy" or name.startswith("asktell.server.cli"):
                raise ModuleNotFoundError("No module named 'sqlalchemy'", name="sqlalchemy")

    for name in [name for name in sys.modules if name.startswith("asktell.server")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    status, _, err = call(capsys, "serve")
    assert status == 2
    assert (
        err == "asktell: serve needs the server extra: pip install 'asktell[server]' (No module named 'sqlalchemy')\n"
    )


def test_no_line_of_grpc_itself_is_on_the_terminal(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = asktell("serve", "--listen", address, "--database", str(tmp_path / "asktell.db"))
        loud = asktell("serve", "--listen", address, "--database", str(tmp_path / "loud.db"), GRPC_VERBOSITY="ERROR")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"asktell serve: cannot listen on {address}: ")
    # Who sets it himself is left his choice.
    assert len(loud.stderr.splitlines()) > 1


def test_a_fault_of_the_program_itself_is_not_hidden(monkeypatch) -> None:
    monkeypatch.setattr("asktell.cli.study.tables.studies", lambda _records, **_: 1 / 0)
    monkeypatch.setattr("asktell.client.Client.list_studies", lambda _client: [type("S", (), {"record": None})()])
    with pytest.raises(ZeroDivisionError):
        application.main(["study", "list"])


def test_it_runs_as_a_module_too() -> None:
    done = asktell("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()
