"""What became of a trial here. `checkpoint_uri` is where its state lies; empty if nowhere, or where it lay before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from asktell.worker.output import Metric


@dataclass(frozen=True, slots=True)
class Succeeded:
    """It was evaluated."""

    metrics: Mapping[str, Metric]
    checkpoint_uri: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """It broke; `message` says how, for a person to read."""

    message: str
    killed: bool = False
    """Whether a signal from outside ended it (a want of memory, a preemption), which says little about the trial."""
    checkpoint_uri: str = ""


@dataclass(frozen=True, slots=True)
class Infeasible:
    """These parameters cannot work."""

    message: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """It was ended early because the service said so; `metrics` may be empty."""

    message: str
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    checkpoint_uri: str = ""


@dataclass(frozen=True, slots=True)
class Lost:
    """It is no longer this worker's: there is nothing to tell."""

    message: str


@dataclass(frozen=True, slots=True)
class Released:
    """The worker was told to end: another one shall have it."""

    checkpoint_uri: str = ""


Outcome = Succeeded | Failed | Infeasible | Stopped | Lost | Released
