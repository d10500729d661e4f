"""What states of a study's trials lie at a root."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from asktell.worker.checkpoints import DirectoryCheckpoints, NoCheckpoints, StoreCheckpoints, Unwritable, kept_at
from asktell.worker.copying import listing
from asktell.worker.stores import Store


@dataclass(frozen=True, slots=True)
class State:
    """The state that an attempt of a trial left, or one snapshot of it; `size` in bytes."""

    number: int
    name: str
    uri: str
    size: int


class Shelf(Protocol):
    """The states of a study's trials."""

    def states(self) -> list[State]:
        """All that are there, in the order of trials."""

    def remove(self, state: State) -> None:
        """Remove one."""


@dataclass(frozen=True, slots=True)
class Directories:
    """Directories `NUMBER/attempt-A` below `home`."""

    home: Path

    def states(self) -> list[State]:
        """All that are there."""
        return sorted(self._found(), key=lambda state: (state.number, state.name))

    def _found(self) -> Iterator[State]:
        # A worker that was killed leaves the copy that it was making, under a name with a dot.
        for directory in [*self.home.glob("*/attempt-*"), *self.home.glob("*/.attempt-*")]:
            if directory.parent.name.isdecimal() and directory.is_dir():
                size = sum(size for _, size, _ in listing(directory).values())
                yield State(int(directory.parent.name), directory.name, directory.as_uri(), size)

    def remove(self, state: State) -> None:
        """Remove a directory, and its trial's if that is empty then."""
        place = self.home / str(state.number)
        shutil.rmtree(place / state.name)
        if not any(place.iterdir()):
            place.rmdir()


@dataclass(frozen=True, slots=True)
class Snapshots:
    """Objects `NUMBER/attempt-A/COUNT/…` below `home`."""

    home: Store

    def states(self) -> list[State]:
        """All that are there."""
        sizes: dict[tuple[int, str], int] = {}
        for path, relative in self.home.files().items():
            number, *middle = relative.parts[:3]
            if number.isdecimal() and len(relative.parts) > 3:
                key = int(number), "/".join(middle)
                sizes[key] = sizes.get(key, 0) + int(self.home.system.size(path) or 0)
        return [
            State(number, name, self.home.below(f"{number}/{name}").url, size)
            for (number, name), size in sorted(sizes.items())
        ]

    def remove(self, state: State) -> None:
        """Remove a snapshot."""
        self.home.below(f"{state.number}/{state.name}").remove()


def shelf(root: str, *, project: str, study: str) -> Shelf:
    """What lies below the root of `asktell work --checkpoints`. Unwritable if it is a URL that cannot be used, or no directory."""
    match kept_at(root, project=project, study=study):
        case DirectoryCheckpoints(home):
            if not home.parents[1].is_dir():
                raise Unwritable(f"there is no directory {home.parents[1]}")
            return Directories(home)
        case StoreCheckpoints(store):
            return Snapshots(store)
        case NoCheckpoints() | _:
            raise AssertionError("a root is given")
