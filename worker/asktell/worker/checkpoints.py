"""Directories in which trainings keep their state: one for each attempt of a trial, filled from what the attempt before left.

An attempt has a directory of its own lest a training whose lease was lost, on a machine that nobody reaches, write into what its successor
reads. What it still saves is left behind.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from asktell.client import Trial
from asktell.worker.copying import BrokenOff, NoRoom
from asktell.worker.resuming import Unresumable, attempt_names, local_path, resume
from asktell.worker.stores import POLL, Snapshots, Store, Unreachable

logger = logging.getLogger("asktell.worker")

_BROKEN_URL = re.compile(r"(?!file:|local:)[a-z][a-z0-9+.-]+:/(?!/)")
"""A URL that lacks a slash, as `s3:/bucket`: a directory of that name, empty on each machine, would lose every state without a word."""


class Unwritable(Exception):
    """There is no room for checkpoints here, for whatever trial."""


class Checkpoint(Protocol):
    """Where one attempt of a trial keeps its state."""

    @property
    def directory(self) -> Path | None:
        """Where the training finds its state and leaves it; None if it has no such place."""

    @property
    def standing_uri(self) -> str:
        """The directory as other workers read it; empty where they read snapshots of it, or nothing."""

    @property
    def upload_request(self) -> Path | None:
        """The file by which the training asks that its state be handed over before it goes on; None where all it writes is there at once."""

    def hand_over(self) -> bool:
        """See to it that `uri` is that of the present state. To be repeated: True once it was tried."""

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
    standing_uri: str = ""
    upload_request: Path | None = None

    def hand_over(self) -> bool:
        """There is nothing to hand over."""
        return True

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
    upload_request: Path | None = None

    def hand_over(self) -> bool:
        """It is there already."""
        return True

    @property
    def standing_uri(self) -> str:
        """That of the directory, whatever is in it."""
        return self.directory.as_uri()

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
            # So that what goes wrong below is not the place's fault, unless it says so.
            partial.mkdir()
            partial.rmdir()
            resume(trial, partial, broken_off=broken_off)
            return DirectoryCheckpoint(_publish(partial, place, trial.attempt))
        except (OSError, NoRoom) as error:
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


@dataclass(frozen=True, slots=True)
class StoreCheckpoint:
    """A directory of this machine, and its snapshots in a store."""

    scratch: Path
    snapshots: Snapshots

    @property
    def directory(self) -> Path:
        """Where the training finds its state and leaves it."""
        return self.scratch / "state"

    @property
    def standing_uri(self) -> str:
        """None: each snapshot has its own."""
        return ""

    @property
    def upload_request(self) -> Path:
        """Beside the state."""
        return self.scratch / "upload"

    def hand_over(self) -> bool:
        """Take a snapshot now."""
        return self.snapshots.hurry()

    def uri(self) -> str:
        """The last complete snapshot; before the first, nowhere new."""
        return self.snapshots.newest

    def acknowledge(self, uri: str) -> None:
        """Earlier snapshots of this attempt are not needed any more."""
        self.snapshots.forget_before(uri)

    def last(self, *, broken_off: Callable[[], bool]) -> str:
        """Upload what is not uploaded yet, unless there is no time; then the snapshot before counts."""
        self.snapshots.end()
        while self.snapshots.is_alive():
            if broken_off():
                logger.warning("no time to upload the last state: %s counts", self.uri() or "nothing")
                break
            self.snapshots.join(POLL)
        return self.uri()

    def close(self) -> None:
        """Remove the directory; an upload that is under way is of no more use."""
        self.snapshots.abandon()
        shutil.rmtree(self.scratch, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class StoreCheckpoints:
    """Snapshots `ROOT/PROJECT/STUDY/NUMBER/attempt-ATTEMPT/COUNT`; `home` is `ROOT/PROJECT/STUDY`."""

    home: Store

    def begin(self, trial: Trial, *, broken_off: Callable[[], bool]) -> StoreCheckpoint:
        """A new directory on this machine, filled from the store."""
        scratch = Path(tempfile.mkdtemp(prefix="asktell-checkpoint-"))
        try:
            return StoreCheckpoint(scratch, self._snapshots(trial, scratch, broken_off=broken_off))
        except (Unresumable, BrokenOff):
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        except Exception as error:
            # Each store's library has errors of its own. The trial keeps its state, wherever that is.
            shutil.rmtree(scratch, ignore_errors=True)
            raise Unwritable(f"{self.home.url} or {trial.checkpoint_uri or 'it'} cannot be used: {error}") from error

    def _snapshots(self, trial: Trial, scratch: Path, *, broken_off: Callable[[], bool]) -> Snapshots:
        resume(trial, scratch / "state", broken_off=broken_off)
        if broken_off():
            raise BrokenOff
        place = self.home.below(str(trial.number))
        free = next(place.below(name) for name in attempt_names(trial.attempt) if place.below(name).is_empty())
        snapshots = Snapshots(scratch / "state", free, staging=scratch / "staging")
        snapshots.start()
        return snapshots


def kept_at(root: str | None, *, project: str, study: str) -> Checkpoints:
    """The places of a study's trials below a root, a directory or a URL; none without a root. Unwritable if it cannot be used."""
    if root is None:
        return NO_CHECKPOINTS
    # `local:` is what fsspec calls it, whose file system makes no directories.
    if "://" in root and not root.startswith(("file:", "local:")):
        try:
            return StoreCheckpoints(Store.at(root).below(f"{project}/{study}"))
        except Unreachable as error:
            raise Unwritable(str(error)) from error
    if _BROKEN_URL.match(root):
        raise Unwritable(f"{root} is neither a directory nor a URL: write {root.replace(':/', '://', 1)} or ./{root}")
    directory = local_path(root) if root.startswith(("file:", "local:")) else Path(root).expanduser()
    return DirectoryCheckpoints(directory.absolute() / project / study)
