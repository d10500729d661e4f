"""The processes of one training, as torch.distributed knows them: rank zero has the trial, and what it hears holds for all.

distributed.init_process_group()
trial = share(study.ask()[0] if distributed.get_rank() == 0 else None)
...
distributed.destroy_process_group()
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asktell.client import FailedPrecondition
from asktell.integrations.missing import missing_extra
from asktell.integrations.training import ReportingTrial

try:
    from torch import distributed
except ModuleNotFoundError as error:
    raise missing_extra("torch", "pytorch", error) from error


def are_there() -> bool:
    """Whether torch.distributed is initialised."""
    return distributed.is_available() and distributed.is_initialized()


def are_several() -> bool:
    """Whether this process trains together with others."""
    return are_there() and distributed.get_world_size() > 1


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


@dataclass(frozen=True, slots=True)
class Told:
    """An answer that is rank zero's to act on."""

    should_stop: bool = False


@dataclass(frozen=True, slots=True)
class Follower:
    """The trial in a process whose rank is not zero: the same parameters and the same directory, but nothing is reported."""

    number: int
    name: str
    attempt: int
    parameters: Mapping[str, Any]
    checkpoint_uri: str
    checkpoint_dir: Path | None
    should_stop: bool = False

    def report(self, metrics: Mapping[str, Any], /, *, step: int) -> Told:  # noqa: ARG002 - rank zero says it.
        """Nothing: rank zero reports."""
        return Told()


def share(trial: ReportingTrial | None) -> ReportingTrial:
    """Give every process the trial that rank zero has; to be called by all, once torch.distributed is initialised.

    Lightning and transformers use the process group that is there. FailedPrecondition if rank zero has no trial.
    """
    shared: Follower | None = from_first(None if trial is None or rank() else _follower(trial))
    if shared is None:
        raise FailedPrecondition("rank zero has no trial to share", reason="NO_TRIAL")
    return shared if trial is None or rank() else trial


def require_shared(number: int) -> None:
    """Raise FailedPrecondition in a process that has not rank zero's trial; every process must call this."""
    expected = from_first(number)
    if number != expected:
        raise FailedPrecondition(
            f"rank {rank()} does not train trial {expected}: call trial = share(trial) in every process",
            reason="TRIAL_NOT_SHARED",
        )


def _follower(trial: Any) -> Follower:
    return Follower(
        number=trial.number,
        name=getattr(trial, "name", ""),
        attempt=getattr(trial, "attempt", 1),
        parameters=dict(trial.parameters),
        checkpoint_uri=trial.checkpoint_uri,
        checkpoint_dir=getattr(trial, "checkpoint_dir", None),
    )
