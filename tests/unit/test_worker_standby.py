"""Guards that are there before there is a command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from asktell.worker.events import Exited, Line
from asktell.worker.process import GUARD, Process
from asktell.worker.standby import Standby
from tests.processes import PATIENCE, until

SAY = ["sh", "-c", 'echo "$GREETING"; exit 3']


@pytest.fixture
def standby() -> Iterator[Standby]:
    standby = Standby()
    yield standby
    standby.close()
    assert standby.guard is None


def pid(standby: Standby) -> int:
    assert standby.guard is not None
    return standby.guard.pid


def said(process: Process) -> list[str | int]:
    """What the process wrote, and its exit status."""
    heard: list[str | int] = []
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        match process.next_event(0.1):
            case Line() as line:
                heard.append(line.text.strip())
            case Exited(code):
                return [*heard, code]
    raise TimeoutError(heard)


def test_a_command_runs_under_the_guard_that_waits_and_with_its_own_environment_alone(
    standby: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_WORKER", "1")
    standby.prepare(1.0)
    waiting = pid(standby)
    show = ["sh", "-c", 'echo "$GREETING, $OF_THE_WORKER, $PPID"']
    process = standby.start(show, {"GREETING": "grüß\nGott", "PATH": os.environ["PATH"]}, grace=1.0)
    assert said(process) == ["grüß", f"Gott, , {waiting}", 0]


def test_without_a_guard_that_waits_a_command_gets_its_own(standby: Standby) -> None:
    assert said(standby.start(SAY, {"GREETING": "hello"}, grace=1.0)) == ["hello", 3]


def test_a_guard_that_was_killed_is_replaced(standby: Standby) -> None:
    standby.prepare(1.0)
    os.kill(pid(standby), signal.SIGKILL)
    until(lambda: psutil.Process(pid(standby)).status() == psutil.STATUS_ZOMBIE)
    assert said(standby.start(SAY, {"GREETING": "hello"}, grace=1.0)) == ["hello", 3]


def test_a_guard_that_waits_ends_when_it_is_not_needed(standby: Standby) -> None:
    standby.prepare(3600.0)
    waiting = pid(standby)
    standby.close()
    assert not psutil.pid_exists(waiting)


def test_what_a_scheduler_sends_to_all_does_not_end_a_guard_that_waits(standby: Standby) -> None:
    standby.prepare(1.0)
    # It catches signals from the moment when it waits for its order.
    until(lambda: handles_sigterm(pid(standby)))
    os.kill(pid(standby), signal.SIGTERM)
    assert said(standby.start(SAY, {"GREETING": "hello"}, grace=1.0)) == ["hello", 3]


def handles_sigterm(number: int) -> bool:
    status = Path(f"/proc/{number}/status").read_text("utf-8")
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize("order", [b"", b"20 3", b"100 2\ntouch\0new\0", b"8 2\ntouch\0n"])
def test_an_order_that_broke_off_is_not_carried_out(order: bytes, tmp_path) -> None:
    lifeline, held = os.pipe()
    command = [sys.executable, "-I", "-S", str(GUARD), str(lifeline), "1"]
    done = subprocess.run(command, input=order, pass_fds=(lifeline,), cwd=tmp_path, capture_output=True, check=False)
    os.close(lifeline)
    os.close(held)
    assert (done.returncode, done.stderr, list(tmp_path.iterdir())) == (0, b"", [])


def test_a_nul_in_a_command_is_refused_and_leaves_no_guard(standby: Standby) -> None:
    standby.prepare(1.0)
    waiting = pid(standby)
    with pytest.raises(ValueError, match="null byte"):
        standby.start(["echo", "a\0b"], {}, grace=1.0)
    assert not psutil.pid_exists(waiting)
