"""Brings the state that a trial goes on from."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from asktell.client import Trial
from asktell.worker.copying import copy_at_rest
from asktell.worker.stores import Store, Unreachable

logger = logging.getLogger("asktell.worker")


class Unresumable(Exception):
    """The trial goes on from another one's state, and that is gone: from nothing it would be another trial."""


class Gone(Exception):
    """There is nothing at a checkpoint's URI, or nothing that can be read here; the message says which."""


def attempt_names(attempt: int) -> Iterator[str]:
    """Names for an attempt's state, the usual one first."""
    yield f"attempt-{attempt}"
    yield from (f"attempt-{attempt}-{number}" for number in count(2))


def resume(trial: Trial, directory: Path, *, broken_off: Callable[[], bool]) -> None:
    """Make a new directory with the state that a trial goes on from; empty if there is none.

    If it is gone, a trial without a parent starts afresh, which costs time alone; for others see Unresumable.
    """
    if trial.checkpoint_uri:
        try:
            bring(trial.checkpoint_uri, directory, broken_off=broken_off)
        except Gone as error:
            if trial.parent:
                raise Unresumable(f"the state of trial {trial.parent} to go on from: {error}") from error
            logger.warning("trial %d starts afresh: %s", trial.number, error)
            shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(exist_ok=True)


def bring(uri: str, directory: Path, *, broken_off: Callable[[], bool]) -> None:
    """Copy what lies at a URI to a new directory, or raise Gone. What a store's library raises says nothing of what lies there."""
    scheme = urlsplit(uri).scheme
    if scheme in ("http", "https"):
        raise Gone(f"{uri} is no directory that could be copied")
    if scheme != "file":
        _fetch(uri, directory)
        return
    try:
        rested = _copy(uri, directory, broken_off=broken_off)
    except OSError as error:
        # It is the trial's trouble, which every worker would have: this one can go on with others.
        raise Gone(f"what lies at {uri} cannot be read: {error}") from error
    if not rested:
        logger.warning("%s is still being written to: its files may be of different times", uri)


def _copy(uri: str, directory: Path, *, broken_off: Callable[[], bool]) -> bool:
    source = local_path(uri)
    if not source.is_dir() and not source.is_file():
        raise Gone(f"there is nothing at {uri}")
    return copy_at_rest(source, directory, broken_off=broken_off)


def _fetch(uri: str, directory: Path) -> None:
    try:
        store = Store.at(uri)
    except Unreachable as error:
        raise Gone(str(error)) from error
    if not store.fetch(directory):
        raise Gone(f"there is nothing at {uri}")


def local_path(uri: str) -> Path:
    """The path of a `file:` URI."""
    return Path(url2pathname(urlsplit(uri).path))
