"""Directories in which trainings keep their state: one for each attempt of a trial, filled from what the attempt before left.

An attempt has a directory of its own lest a training whose lease was lost, on a machine that nobody reaches, write into what its successor
reads. What it still saves is left behind.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit
from urllib.request import url2pathname

from asktell.client import Trial
from asktell.worker.copying import copy_at_rest

logger = logging.getLogger("asktell.worker")


class Unresumable(Exception):
    """The trial goes on from another one's state, and that is gone: from nothing it would be another trial."""


class Gone(Exception):
    """There is nothing at a checkpoint's URI, or nothing that can be read here; the message says which."""


class Unwritable(Exception):
    """There is no room for checkpoints here, for whatever trial."""


class Checkpoint(Protocol):
    """Where one attempt of a trial keeps its state."""

    @property
    def directory(self) -> Path | None:
        """Where the training finds its state and leaves it; None if it has no such place."""

    def uri(self) -> str:
        """Where the newest complete state lies that another worker can read; empty if nowhere."""

    def acknowledge(self, uri: str) -> None:
        """Take in that the service knows this URI, and needs none from before."""

    def last(self, *, broken_off: Callable[[], bool]) -> str:
        """As `uri` once the training has ended, which may take until `broken_off` says that there is no more time."""

    def close(self) -> None:
        """Let go of what only this attempt needed."""


class Checkpoints(Protocol):
    """Gives each attempt of a trial its place."""

    def begin(self, trial: Trial, *, broken_off: Callable[[], bool]) -> Checkpoint:
        """Make the place of a trial's present attempt, with the state in it that the trial goes on from.

        Raises:
            Unresumable: The trial goes on from another one, whose state is gone.
            Unwritable: The place cannot be made.
            BrokenOff: `broken_off` said so.
        """


@dataclass(frozen=True, slots=True)
class NoCheckpoint:
    """The place of trainings that keep no state, or a store of their own."""

    directory: Path | None = None

    def uri(self) -> str:
        """Nowhere."""
        return ""

    def acknowledge(self, uri: str) -> None:
        """Nothing follows from it."""

    def last(self, *, broken_off: Callable[[], bool]) -> str:  # noqa: ARG002 - nothing takes time here.
        """Nowhere."""
        return ""

    def close(self) -> None:
        """There is nothing to let go of."""


@dataclass(frozen=True, slots=True)
class NoCheckpoints:
    """For workers that were given no root."""

    def begin(self, trial: Trial, *, broken_off: Callable[[], bool]) -> NoCheckpoint:  # noqa: ARG002 - whatever the trial.
        """No place."""
        return NoCheckpoint()


NO_CHECKPOINTS = NoCheckpoints()


@dataclass(frozen=True, slots=True)
class DirectoryCheckpoint:
    """A directory that other workers see too, or will when they are started here."""

    directory: Path

    def uri(self) -> str:
        """That of the directory, as soon as there is something in it."""
        with os.scandir(self.directory) as entries:
            return self.directory.as_uri() if next(entries, None) else ""

    def acknowledge(self, uri: str) -> None:
        """What was before stays, for a late word of an earlier attempt may still count."""

    def last(self, *, broken_off: Callable[[], bool]) -> str:  # noqa: ARG002 - it is there already.
        """That of the directory, if there is something in it."""
        return self.uri()

    def close(self) -> None:
        """The directory stays."""


@dataclass(frozen=True, slots=True)
class DirectoryCheckpoints:
    """Directories `ROOT/PROJECT/STUDY/NUMBER/attempt-ATTEMPT`; `home` is `ROOT/PROJECT/STUDY`, absolute."""

    home: Path

    def begin(self, trial: Trial, *, broken_off: Callable[[], bool]) -> DirectoryCheckpoint:
        """A new directory; it appears under its name once it is complete."""
        place = self.home / str(trial.number)
        partial = place / f".attempt-{trial.attempt}-{uuid.uuid4().hex}"
        try:
            place.mkdir(parents=True, exist_ok=True)
            resume(trial, partial, broken_off=broken_off)
            return DirectoryCheckpoint(_publish(partial, place, trial.attempt))
        except OSError as error:
            raise Unwritable(f"no directory for checkpoints can be made in {place}: {error}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _publish(partial: Path, place: Path, attempt: int) -> Path:
    """Give the directory its name. One of this name that is there already is another study's, deleted or at another service."""
    for name in attempt_names(attempt):
        try:
            return partial.rename(place / name)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            logger.warning("%s is there already, and not this trial's: it is left alone", place / name)
    raise AssertionError("names never end")


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
    """Copy what lies at a URI to a new directory, or raise Gone."""
    if urlsplit(uri).scheme != "file":
        raise Gone(f"{uri} cannot be read here")
    source = local_path(uri)
    if not source.exists():
        raise Gone(f"there is nothing at {uri}")
    if not copy_at_rest(source, directory, broken_off=broken_off):
        logger.warning("%s is still being written to: its files may be of different times", uri)


def local_path(uri: str) -> Path:
    """The path of a `file:` URI."""
    return Path(url2pathname(urlsplit(uri).path))


def kept_at(root: str | None, *, project: str, study: str) -> Checkpoints:
    """The places of a study's trials below a root; none without a root."""
    if root is None:
        return NO_CHECKPOINTS
    directory = local_path(root) if root.startswith("file:") else Path(root).expanduser()
    return DirectoryCheckpoints(directory.absolute() / project / study)
