"""States in object stores such as S3: fetched before a training, and uploaded as complete snapshots whenever they changed.

A snapshot has a name of its own, and the service is told of it once all of it is there: whatever breaks an upload off, the last good one is
whole. What fsspec can open serves: `s3://` with s3fs, `gs://` with gcsfs, `az://` and `abfs://` with adlfs, `hdfs://` with pyarrow.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from asktell.worker.copying import Listing, copy_at_rest, listing

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

EXTRA = "pip install 'asktell[checkpoints]', and s3fs, gcsfs or adlfs for the store"
LOOK_SECONDS = 1.0
"""How often the directory is looked at; one that did not change between two looks is uploaded."""
RESTLESS_SECONDS = 10.0
"""How long a directory may go on changing before it is uploaded all the same."""
REST_SECONDS = 2.0
"""How long a moment of rest is then waited for."""
RETRY_SECONDS = 10.0
"""How long to wait after an upload that did not work."""
POLL = 0.1

logger = logging.getLogger("asktell.worker")


class Unreachable(Exception):
    """There is no store at a URL that this worker can use; the message says why."""


@dataclass(frozen=True, slots=True)
class Store:
    """A place in an object store. Its methods raise what the store's library does."""

    url: str
    system: AbstractFileSystem
    path: str

    @classmethod
    def at(cls, url: str) -> Store:
        """The place at a URL, or Unreachable."""
        try:
            from fsspec.core import url_to_fs  # noqa: PLC0415 - only who has such a root needs the extra.
        except ImportError as error:
            raise Unreachable(f"{url} needs more packages: {EXTRA}") from error
        try:
            system, path = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise Unreachable(f"{url} cannot be used: {error} ({EXTRA})") from error
        return cls(url.rstrip("/"), system, path.rstrip("/"))

    def below(self, name: str) -> Store:
        """A place below this one."""
        return Store(f"{self.url}/{name}", self.system, f"{self.path}/{name}")

    def is_empty(self) -> bool:
        """Whether there is nothing here."""
        self.system.invalidate_cache()
        return not self.system.exists(self.path)

    def files(self) -> Mapping[str, PurePosixPath]:
        """All objects below: their paths in the store -> relative to this place."""
        self.system.invalidate_cache()
        found: list[str] = self.system.find(self.path)
        return {path: PurePosixPath(path).relative_to(PurePosixPath(self.path)) for path in found}

    def fetch(self, directory: Path) -> bool:
        """Copy everything from here to a directory; whether there was anything. ValueError for a name that leads out of the directory."""
        files = self.files()
        targets = [directory / relative for relative in files.values()]
        if strange := [relative for relative in files.values() if ".." in relative.parts or relative.is_absolute()]:
            raise ValueError(f"{self.url} has an object whose name leads elsewhere: {strange[0]}")
        for folder in {target.parent for target in targets}:
            folder.mkdir(parents=True, exist_ok=True)
        if files:
            self.system.get(list(files), [str(target) for target in targets])
        return bool(files)

    def upload(self, directory: Path) -> None:
        """Copy all files of a directory here."""
        names = sorted(listing(directory))
        self.system.put([str(directory / name) for name in names], [f"{self.path}/{name}" for name in names])

    def remove(self) -> None:
        """Remove everything here; nothing is fine too."""
        with suppress(FileNotFoundError):
            self.system.rm(self.path, recursive=True)


class Snapshots(threading.Thread):
    """Uploads a directory whenever it has changed and come to rest. `newest` is the last complete snapshot."""

    def __init__(self, directory: Path, store: Store, *, staging: Path) -> None:
        super().__init__(name="asktell-snapshots", daemon=True)
        self.newest = ""
        self._directory = directory
        self._store = store
        self._staging = staging
        self._uploaded: Listing = listing(directory)
        self._count = 0
        self._wake = threading.Event()
        self._ending = False
        self._abandoned = False
        self._hurry: Literal["", "asked", "done"] = ""
        self._mine: list[Store] = []

    def run(self) -> None:
        """Look, and upload, until the end; then once more."""
        seen, since = self._uploaded, time.monotonic()
        while not self._rested(LOOK_SECONDS):
            # Before the look: what was there when it was asked for is seen.
            asked = self._hurry == "asked"
            found = listing(self._directory)
            if asked:
                if found != self._uploaded:
                    self._try()
                self._hurry = "done"
            elif found == self._uploaded:
                since = time.monotonic()
            elif (found == seen or time.monotonic() - since > RESTLESS_SECONDS) and not self._try():
                self._rested(RETRY_SECONDS)
            seen = found
        if not self._abandoned and listing(self._directory) != self._uploaded:
            self._try()

    def _rested(self, seconds: float) -> bool:
        """Sleep, but not beyond a wish; whether it was to end."""
        if not self._ending:
            self._wake.wait(seconds)
            self._wake.clear()
        return self._ending

    def hurry(self) -> bool:
        """Wish for a snapshot now, unless the newest has all there is. To be repeated: True, once, when it was tried."""
        if self._hurry == "done":
            self._hurry = ""
            return True
        if not self._hurry:
            self._hurry = "asked"
            self._wake.set()
        return False

    def end(self) -> None:
        """Ask for the last snapshot: the directory does not change any more."""
        self._ending = True
        self._wake.set()

    def abandon(self) -> None:
        """Take no more snapshots: the directory is about to vanish, and what is left of it meanwhile would be half a state."""
        self._abandoned = True
        self.end()
        if self.is_alive():
            self.join(LOOK_SECONDS)

    def forget_before(self, url: str) -> None:
        """Remove the snapshots of this attempt that came before one which the service knows."""
        places = [each.url for each in self._mine]
        if url not in places:
            return
        old = self._mine[: places.index(url)]
        for each in old:
            try:
                each.remove()
            except Exception as error:  # noqa: BLE001 - each store's library has errors of its own, and this can wait.
                logger.warning("the old snapshot %s was not removed: %s", each.url, error)
        # In place, for the thread may add to it.
        del self._mine[: len(old)]

    def _try(self) -> bool:
        try:
            self._take()
        except Exception as error:  # noqa: BLE001 - each store's library has errors of its own, and the training goes on.
            logger.warning("no snapshot at %s: %s: %s", self._store.url, type(error).__name__, error)
            return False
        return True

    def _take(self) -> None:
        shutil.rmtree(self._staging, ignore_errors=True)
        taken = listing(self._directory)
        # The training goes on writing while the copy is under way to the store.
        copy_at_rest(self._directory, self._staging, broken_off=lambda: False, patience=REST_SECONDS)
        self._count += 1
        place = self._store.below(f"{self._count:06d}")
        if taken:
            place.upload(self._staging)
            self._mine.append(place)
            self.newest = place.url
        self._uploaded = taken
