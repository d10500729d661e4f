"""The pages that say which test holds a promise name tests that there are."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("docs/promises.md", "docs/faults.md", "docs/checkpoints.md", "README.md", "Makefile")
NAME = re.compile(r"((?:tests/\w+/)?test_\w+\.py|…(?=::))(?:::(test_\w+))?")
WORDS = re.compile(r'make chaos[^`\n]*CHAOS="-k ([\w ]+)"')
ROW = re.compile(r"^\| P\d+ \|[^|]*\|[^|]*\|([^|]*)\|", re.MULTILINE)


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def files(name: str) -> list[Path]:
    return [ROOT / name] if "/" in name else list((ROOT / "tests").glob(f"*/{name}"))


@cache
def chaos() -> str:
    """The names of all tests of the full form."""
    marked = [str(file) for file in ROOT.glob("tests/*/test_*.py") if "mark.chaos" in file.read_text(encoding="utf-8")]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "chaos", "-p", "no:cacheprovider", *marked]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.lower()


def named() -> list[tuple[str, str, str]]:
    """Page, file and test; an ellipsis is the file named before."""
    found = []
    for page in PAGES:
        last = ""
        for name, test in NAME.findall(text(page)):
            last = last if name == "…" else name
            found.append((page, last, test))
    return found


def words() -> list[str]:
    """What `-k` selects of the full form: in commands, and in the last column of the promises as far as it is no path."""
    commanded = [word for page in PAGES for word in WORDS.findall(text(page))]
    listed = [word for cell in ROW.findall(text("docs/promises.md")) for word in re.findall(r"`([\w ]+)`", cell)]
    return sorted(set(commanded + listed))


def test_every_test_that_a_page_names_is_there() -> None:
    missing = [
        f"{page}: {name}::{test}"
        for page, name, test in named()
        if not any(file.exists() and f"def {test}" in file.read_text(encoding="utf-8") for file in files(name))
    ]
    assert missing == []


@pytest.mark.parametrize("word", words())
def test_every_word_of_the_full_form_selects_a_test(word: str) -> None:
    assert any(part in chaos() for part in word.split(" or "))


def test_words_are_found_at_all() -> None:
    assert {"siege", "steady_work", "slept or race"} <= set(words())
    assert len(named()) > 30
