"""Copies of directories that somebody may be writing to."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

PAUSE = 0.5
"""Seconds before a directory that changed while it was copied is copied again."""
PATIENCE = 15.0
"""Seconds after which one that never rests is taken as it is, file by file; more than a training has to end that lost its worker."""

Listing = Mapping[str, tuple[int, int, int]]
"""Files by their path in the directory: number, size and time of change, which tell one content from another."""


NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""What says that the copy cannot be written, whatever is copied."""


class BrokenOff(Exception):
    """The copy is not wanted any more."""


class NoRoom(Exception):
    """The copy cannot be written where it shall lie."""


def listing(directory: Path) -> Listing:
    """All files below a directory; those that vanish meanwhile are left out, and so are pipes, sockets and devices."""
    found = {}
    for place, _, names in os.walk(directory):
        for name in names:
            path = Path(place, name)
            with suppress(OSError):
                state = path.stat()
                if stat.S_ISREG(state.st_mode):
                    found[path.relative_to(directory).as_posix()] = (state.st_ino, state.st_size, state.st_mtime_ns)
    return found


def copy_at_rest(source: Path, target: Path, *, broken_off: Callable[[], bool], patience: float | None = None) -> bool:
    """Copy what lies in `source`, a directory or a file, to a new directory `target`; return whether it did not change meanwhile.

    Links are replaced by what they point to, so that the copy stands alone; pipes, sockets and devices are left out. A source that changes
    is copied again until it rests.

    Raises:
        OSError: It cannot be read.
        NoRoom: The target cannot be written.
        BrokenOff: `broken_off` said so.
    """
    deadline = time.monotonic() + (PATIENCE if patience is None else patience)
    while True:
        before, late = listing(source), time.monotonic() > deadline
        try:
            _copy(source, target, broken_off=broken_off)
        except shutil.Error:
            # A directory in it may have vanished.
            if late or listing(source) == before:
                raise
        else:
            rested = listing(source) == before
            if rested or late:
                return rested
        shutil.rmtree(target)
        time.sleep(PAUSE)


def _copy(source: Path, target: Path, *, broken_off: Callable[[], bool]) -> None:
    def copy(path: str, copied: str) -> None:
        if broken_off():
            raise BrokenOff
        # Whoever writes to it may replace a file at any time.
        with suppress(FileNotFoundError):
            _copy_file(Path(path), Path(copied))

    if source.is_dir():
        shutil.copytree(source, target, copy_function=copy, ignore_dangling_symlinks=True)
    else:
        target.mkdir()
        _copy_file(source, target / source.name)


def _copy_file(source: Path, target: Path) -> None:
    """Copy a file; nothing for what is none, such as the socket of a training that ended, or a device, which has no end."""
    if not stat.S_ISREG(source.stat().st_mode):
        return
    try:
        shutil.copy2(source, target)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise NoRoom(f"{target}: {error.strerror}") from error
        raise
