"""Calls outlive a restart of the service."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack, contextmanager

import pytest

from asktell import client as at
from tests.ports import free_port


@contextmanager
def server(port, database):
    command = [
        sys.executable,
        "-m",
        "asktell.cli",
        "serve",
        "--listen",
        f"127.0.0.1:{port}",
        "--database",
        str(database),
    ]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def port():
    return free_port()


def test_a_trial_is_told_across_a_crash_and_restart_of_the_server(port, tmp_path):
    database = tmp_path / "asktell.db"
    with at.Client(f"127.0.0.1:{port}", retry_for=90) as client, ExitStack() as servers:
        first = servers.enter_context(server(port, database))
        study = client.create_study(
            "s", parameters=[at.Float("x", 0, 1)], objectives=[at.Minimize("y")], policy="random", max_trials=2
        )
        (trial,) = study.ask()
        first.kill()
        first.wait()
        servers.enter_context(server(port, database))
        trial.tell(y=1)
        study.optimize(lambda trial: 2.0)
        assert [each.value() for each in study.list_trials()] == [1.0, 2.0]


def test_a_process_that_forgets_to_close_its_local_client_ends(tmp_path):
    code = """
from asktell import client as at
client = at.Client.local("asktell.db")
study = client.create_study("s", parameters=[at.Bool("b")], objectives=[at.Minimize("y")], policy="random")
trials = study.trials()
trial = next(trials)
print(trial.number)
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "1\n")
    assert "Traceback" not in ended.stderr
