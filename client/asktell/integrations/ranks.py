"""The processes of one training, as torch.distributed knows them: one of them has the trial, all of them stop together."""

from __future__ import annotations

from typing import Any

from asktell.integrations.missing import missing_extra

try:
    from torch import distributed
except ModuleNotFoundError as error:
    raise missing_extra("torch", "pytorch", error) from error


def are_several() -> bool:
    """Whether this process trains together with others."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def rank() -> int:
    """The place of this process among those that train together, from 0."""
    return distributed.get_rank() if are_several() else 0


def from_first(value: Any) -> Any:
    """What rank zero has; every process must call this."""
    if not are_several():
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def of_all(value: Any) -> list[Any]:
    """What each process has, by rank; every process must call this."""
    if not are_several():
        return [value]
    values = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values
