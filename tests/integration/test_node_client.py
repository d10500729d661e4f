"""A client in another language works from proto/ alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.processes import Processes

NODE = Path(__file__).parents[1] / "node"
LOCK = NODE / "package-lock.json"
INSTALLED = NODE / "node_modules" / ".package-lock.json"


@pytest.fixture(scope="module")
def node() -> str:
    """The Node.js command, with the packages of the lock file installed."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("there is no Node.js on this machine")
    # The other processes of the tests may need them at the same time.
    with FileLock(Path(tempfile.gettempdir()) / "asktell-npm.lock"):
        if not INSTALLED.exists() or INSTALLED.stat().st_mtime < LOCK.stat().st_mtime:
            command = [npm, "ci", "--no-audit", "--no-fund"]
            subprocess.run(command, cwd=NODE, check=True, capture_output=True, timeout=120)
    return node


def run(node: str, *arguments: str) -> Any:
    done = subprocess.run(
        [node, "client.mjs", *arguments], cwd=NODE, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_node_client_tunes_a_study_from_the_protos_alone(node: str, tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        server = processes.serve(str(tmp_path / "a.db"))
        saw = run(node, server.target, "tuned")
    *trials, state, reason = saw["seen"]
    assert [trial["number"] for trial in trials] == ["1", "2", "3", "4"]
    assert {trial["exact"] for trial in trials} == {"9007199254740993"}, "64-bit integers arrive exactly"
    assert {trial["directive"] for trial in trials} == {"DIRECTIVE_CONTINUE"}
    assert {trial["state"] for trial in trials} == {"STATE_SUCCEEDED"}
    assert (state, reason) == ("STATE_CLOSED", "REASON_BUDGET_SPENT")
    assert saw["repeated"] == 4, "the same request id gets the same reply"
    assert saw["best"] == pytest.approx(min((trial["x"] - 0.25) ** 2 for trial in trials))
    assert saw["refusal"] == 5, "NOT_FOUND"


def test_the_lock_file_names_versions_and_no_place() -> None:
    packages = json.loads(LOCK.read_text())["packages"]
    assert all("resolved" not in package for package in packages.values())
    assert all("integrity" in package for name, package in packages.items() if name)
