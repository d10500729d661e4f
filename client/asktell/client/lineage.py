"""Which trials a trial's state came through."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from asktell.client.errors import NotFound


class Descendant(Protocol):
    """A trial, as far as its descent goes."""

    @property
    def number(self) -> int:
        """1, 2, 3 and so on in a study."""

    @property
    def parent(self) -> int:
        """The trial whose checkpoint it went on from; 0 if it started afresh."""


DescendantT = TypeVar("DescendantT", bound=Descendant)


def lineage(trials: Iterable[DescendantT], number: int) -> list[DescendantT]:
    """The trial of this number and all whose checkpoints it goes on from, the oldest first. NotFound if there is none of the number."""
    by_number = {trial.number: trial for trial in trials}
    if number not in by_number:
        raise NotFound(f"there is no trial {number}", reason="TRIAL_NOT_FOUND")
    line = [by_number[number]]
    while line[-1].parent:
        line.append(by_number[line[-1].parent])
    return line[::-1]
