"""Seeds as they are written on a command line."""

from __future__ import annotations


def parsed(text: str) -> tuple[int, ...]:
    """The seeds in `0-4`, `3` or `0,2,5-7`, in order, each once; ValueError for anything else."""
    seeds: set[int] = set()
    for part in text.split(","):
        low, dash, high = part.partition("-")
        try:
            first, last = int(low), int(high if dash else low)
        except ValueError:
            raise ValueError(f"{text!r} is not seeds such as 0-4 or 0,2,5") from None
        if last < first:
            raise ValueError(f"{part!r} ends before it begins")
        seeds.update(range(first, last + 1))
    return tuple(sorted(seeds))
