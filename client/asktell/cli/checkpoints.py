"""`asktell study checkpoints`: what states of trials lie at a root, and which of them nobody needs any more."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated

from cyclopts import Parameter
from rich.filesize import decimal

from asktell.cli import tables
from asktell.cli.failure import Refused
from asktell.cli.service import ANYWHERE, Json, Service
from asktell.client import Study, StudyRecord, StudyState, TrialRecord, TrialState

UNDER_WAY = (TrialState.QUEUED, TrialState.ACTIVE)


def checkpoints(
    name: str,
    /,
    *,
    root: Annotated[str, Parameter(env_var="ASKTELL_CHECKPOINTS")],
    prune: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    service: Service = ANYWHERE,
    as_json: Json = False,
) -> None:
    """List the states that trials left at a root, and why they are kept; with `--prune`, remove those that nobody needs.

    Kept is what lies where the service says of: trials under way, the best trial or the Pareto front, whatever a trial under way goes on
    from, and, while a study with a population or a fidelity, or a noisy one, is open, every trial that succeeded or was stopped.

    For example: `asktell study checkpoints digits --root /shared/checkpoints --prune`

    Parameters
    ----------
    name
        The study.
    root
        That of `asktell work --checkpoints`.
    prune
        Remove the states that are not kept.
    """
    from asktell.worker.checkpoints import Unwritable
    from asktell.worker.shelf import shelf

    with service.study(name) as study:
        need = Need.of(study)
        try:
            place = shelf(root, project=service.project, study=study.id)
        except Unwritable as error:
            raise Refused(str(error)) from error
        states = [(state, need.why_kept(state.number, state.uri)) for state in place.states()]
    unneeded = [state for state, why in states if not why]
    if prune:
        for state in unneeded:
            place.remove(state)
    gone = "removed" if prune else "may be removed"
    if as_json:
        documents = [{**asdict(state), "kept": why, "removed": prune and not why} for state, why in states]
        print(json.dumps(documents, indent=2))
        return
    rows = [(str(state.number), state.name, decimal(state.size), why or gone) for state, why in states]
    total = decimal(sum(state.size for state in unneeded))
    tables.show(tables.checkpoints(rows), f"{len(unneeded)} of {len(states)} {gone}, {total}")


@dataclass(frozen=True, slots=True)
class Need:
    """Which states are needed, by what the service knew before it was looked what there is."""

    trials: Mapping[int, TrialRecord]
    best: Collection[int]
    successors: bool

    @classmethod
    def of(cls, study: Study) -> Need:
        """Ask the service."""
        trials = {trial.number: trial.record for trial in study.list_trials()}
        best = {trial.number for trial in study.optimal_trials()}
        study.refresh()
        return cls(trials, best, _has_successors(study.record))

    def why_kept(self, number: int, uri: str) -> str:
        """Why a state is needed; empty if it is not."""
        trial = self.trials.get(number)
        if trial is None:
            return "no trial of this study"
        if trial.state in UNDER_WAY:
            return trial.state.value
        if heir := self._heir(trial, uri):
            return f"trial {heir} goes on from it"
        if uri != trial.checkpoint_uri:
            return ""
        if number in self.best:
            return "best"
        may_be_continued = self.successors and trial.state in (TrialState.SUCCEEDED, TrialState.STOPPED)
        return "may be needed" if may_be_continued else ""

    def _heir(self, trial: TrialRecord, uri: str) -> int:
        """The number of a trial under way that goes on from this state, or will once it is handed out; 0 if there is none."""
        for other in self.trials.values():
            waits = other.parent == trial.number and not other.checkpoint_uri and uri == trial.checkpoint_uri
            if other.state in UNDER_WAY and (other.checkpoint_uri == uri or waits):
                return other.number
        return 0


def _has_successors(record: StudyRecord) -> bool:
    """Whether a trial that is not the best may still be needed: a new one may go on from it, or, in a noisy study, it may become the best."""
    over = record.state is StudyState.FINISHED or tables.is_spent(record)
    handed_on = record.fidelity is not None or record.population is not None or record.policy == "pbt"
    return not over and (handed_on or record.noisy)
