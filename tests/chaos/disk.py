"""A filesystem of its own, on an image that can be copied: the copy is what a power cut would leave on the disk."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType


class CannotMount(Exception):
    """This machine mounts no image; the message is why."""


@dataclass(frozen=True, slots=True)
class Disk:
    """An ext4 filesystem on a loop device, mounted at `path` while the block runs.

    What was written but not flushed is in the page cache above the filesystem, and so not in the image.
    """

    image: Path
    path: Path

    @classmethod
    def new(cls, *, mebibytes: int) -> Disk:
        """An empty disk, with a directory of its own that anybody may enter: as root, PostgreSQL runs as another user."""
        directory = Path(tempfile.mkdtemp(prefix="asktell-disk-"))
        directory.chmod(0o755)
        disk = cls(directory / "image", directory / "mounted")
        with disk.image.open("wb") as image:
            image.truncate(mebibytes * 2**20)
        _run("mkfs.ext4", "-q", str(disk.image))
        return disk

    def copy(self) -> Disk:
        """What a power cut would leave now, as a disk of its own. Only what is written while this copies can be torn."""
        directory = Path(tempfile.mkdtemp(prefix="asktell-cut-"))
        directory.chmod(0o755)
        _run("cp", "--sparse=always", str(self.image), str(directory / "image"))
        return Disk(directory / "image", directory / "mounted")

    def check(self) -> None:
        """Recover the filesystem's journal, as a machine does when it starts. A filesystem with errors is an error."""
        _run("fsck.ext4", "-p", str(self.image))

    def __enter__(self) -> Disk:
        self.path.mkdir()
        _run("mount", "-o", "loop", str(self.image), str(self.path))
        self.path.chmod(0o777)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _run("umount", "--lazy", str(self.path))
        shutil.rmtree(self.image.parent)


def require_disks() -> None:
    """Raise CannotMount where images cannot be mounted: without root, without loop devices, or without ext4."""
    with Disk.new(mebibytes=8):
        pass


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise CannotMount(f"there is no {command[0]}") from error
    except subprocess.CalledProcessError as error:
        raise CannotMount(f"{' '.join(command)}: {error.stderr.strip()}") from error
