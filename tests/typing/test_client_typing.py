"""The types of the client are part of its promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def mypy(path: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(cache), "--no-error-summary", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE.parents[1])


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("mypy")


def test_mypy_accepts_right_uses_of_the_client(cache):
    found = mypy(HERE / "accepted_client.py", cache)
    assert (found.returncode, found.stdout) == (0, "")


def test_mypy_refuses_each_wrong_use_of_the_client_and_nothing_else(cache):
    path = HERE / "refused_client.py"
    marked = {number for number, line in enumerate(path.read_text().splitlines(), 1) if "# refused" in line}
    found = mypy(path, cache)
    assert found.returncode == 1
    assert {int(number) for number in re.findall(r"refused_client\.py:(\d+): error", found.stdout)} == marked
