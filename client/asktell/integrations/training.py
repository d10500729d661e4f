"""What the callbacks of all frameworks have in common: which metrics they report, whether to go on, and where a state lies.

Nothing here knows a framework.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias
from urllib.parse import urlsplit
from urllib.request import url2pathname

from asktell.client import InvalidArgument

TRIAL_NAME: Final = "ASKTELL_TRIAL_NAME"
DIRECTORY: Final = "ASKTELL_CHECKPOINT_DIR"
"""The environment variable by which a worker tells a command the trial's directory."""
DIRECTORY_URI: Final = "ASKTELL_CHECKPOINT_DIR_URI"
"""How other workers read that directory: to be said here, for a worker may come too late where the command tells its result itself."""
logger = logging.getLogger("asktell.integrations")

MetricNames: TypeAlias = str | Sequence[str] | Mapping[str, str]
"""Metrics to report: names that the framework and the study share, or a mapping of the study's name to the framework's."""


class Verdict(Protocol):
    """The answer to a report."""

    @property
    def should_stop(self) -> bool:
        """Whether to end the training."""


class ReportingTrial(Protocol):
    """A trial that a training belongs to: the SDK's `asktell.client.Trial`, or the one that a worker hands to an objective."""

    @property
    def number(self) -> int:
        """1, 2, 3 and so on in the study."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Values of the active parameters by name."""

    @property
    def checkpoint_uri(self) -> str:
        """Where the state lies to go on from; empty if nowhere."""

    @property
    def should_stop(self) -> bool:
        """Whether the training should end, as far as is known here."""

    def report(self, metrics: Mapping[str, Any], /, *, step: int) -> Verdict:
        """Send metrics on the way."""


class Selection:
    """The metrics that a study wants, found among those that a framework has."""

    def __init__(self, metrics: MetricNames) -> None:
        match metrics:
            case str():
                self.names = {metrics: metrics}
            case Mapping():
                self.names = dict(metrics)
            case _:
                self.names = {name: name for name in metrics}
        if not self.names:
            raise InvalidArgument.at("metrics", "is empty: name at least one metric to report")

    def missing(self, logged: Mapping[str, Any]) -> list[str]:
        """The framework's names that are not there."""
        return [name for name in self.names.values() if name not in logged]

    def of(self, logged: Mapping[str, Any]) -> dict[str, float]:
        """The study's metrics. InvalidArgument that names what is missing and what there is."""
        for name, source in self.names.items():
            if source not in logged:
                raise InvalidArgument.at(f"metrics[{name!r}]", _unknown(name, source, logged))
        return {name: _number(name, logged[source]) for name, source in self.names.items()}


def _unknown(name: str, source: str, logged: Mapping[str, Any]) -> str:
    there = ", ".join(sorted(map(str, logged))) or "none at all"
    turned = " (write {the study's name: the framework's}: it seems to be the other way round)"
    return f"the framework has no metric {source!r}, but {there}{turned if name in logged and name != source else ''}"


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise InvalidArgument.at(f"metrics[{name!r}]", f"is {value!r}, not a number") from error


class Training:
    """One training of a trial: reports its metrics, and knows where its state lies.

    Args:
        trial: The trial; None for a training that reports to nobody.
        checkpoints: A directory under which each trial gets one of its own. By default the trial's own `checkpoint_dir`, or that of
            `ASKTELL_CHECKPOINT_DIR`, which a worker with `--checkpoints` provides; without any nothing is saved.

    Attributes:
        directory: Where to save; None for nowhere.
        should_stop: Whether the training should end: it was told so, or the lease is lost.
    """

    def __init__(self, trial: ReportingTrial | None, *, checkpoints: str | Path | None = None) -> None:
        if inspect.iscoroutinefunction(getattr(trial, "report", None)):
            raise TypeError("a training is no coroutine: take a trial of asktell.client, not of asktell.client.aio")
        self._trial = trial
        self._ours = checkpoints is not None
        self.directory = _own(trial, Path(checkpoints)) if checkpoints is not None else _given(trial)
        self._uri = _announcement(trial, self.directory, ours=self._ours)

    @property
    def number(self) -> int:
        """The trial's number; 0 without a trial."""
        return 0 if self._trial is None else self._trial.number

    @property
    def should_stop(self) -> bool:
        """Whether the training should end, as far as this process knows."""
        return self._trial is not None and self._trial.should_stop

    def report(self, metrics: Mapping[str, float], *, step: int) -> bool:
        """Report metrics at a step; whether to stop."""
        return self._trial is not None and self._trial.report(metrics, step=step).should_stop

    def places(self) -> list[Path]:
        """Directories to look for a state in, the best first: the trial's own, then the one that its checkpoint URI names."""
        uri = "" if self._trial is None else self._trial.checkpoint_uri
        elsewhere = _path(uri)
        if self._ours and uri and elsewhere is None:
            logger.warning("trial %d: what lies at %s cannot be read from here", self.number, uri)
        found = [self.directory] + ([elsewhere] if self._ours else [])
        return [place for place in found if place is not None and place.is_dir()]

    def saved(self) -> None:
        """Take in that the directory has a state: the service is told once, where no worker does it."""
        announce = getattr(self._trial, "checkpoint", None)
        if self._uri and announce is not None and not self.should_stop:
            announce(self._uri)
            self._uri = ""


def _announcement(trial: ReportingTrial | None, directory: Path | None, *, ours: bool) -> str:
    """The URI to tell the service; empty where a worker tells it."""
    if directory is None:
        return ""
    if ours:
        return directory.as_uri()
    return "" if getattr(trial, "checkpoint_dir", None) else os.environ.get(DIRECTORY_URI, "")


def _given(trial: ReportingTrial | None) -> Path | None:
    """What a worker gives a function with the trial, and a command, for the trial that it was started for, in its environment."""
    directory = getattr(trial, "checkpoint_dir", None)
    if not directory and getattr(trial, "name", "") == os.environ.get(TRIAL_NAME, "none"):
        directory = os.environ.get(DIRECTORY)
    return Path(directory) if directory else None


def _own(trial: ReportingTrial | None, root: Path) -> Path | None:
    """ROOT/PROJECT/STUDY/NUMBER/attempt-ATTEMPT: a worker that lost the trial, unbeknown to itself, writes nowhere else."""
    if trial is None:
        return None
    match getattr(trial, "name", "").split("/"):
        case ["projects", project, "studies", study, *_]:
            place = root / project / study / str(trial.number)
        case _:
            place = root / str(trial.number)
    return (place / f"attempt-{getattr(trial, 'attempt', 1)}").absolute()


def _path(uri: str) -> Path | None:
    """The path that a URI of this machine names; None for another's."""
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc not in {"", "localhost"}:
        return None
    return Path(url2pathname(parts.path))
