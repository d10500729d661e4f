"""Add, read and cancel trials."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from asktell.server.application.clerk import Change, Draft, missing_trial
from asktell.server.application.curves import chart
from asktell.server.application.history import History
from asktell.server.application.ports import Locked, Request, Transaction
from asktell.server.application.requests import keep_reply, refuse_replay
from asktell.server.application.studies import locked_study, require_study
from asktell.server.domain.errors import InvalidArgument
from asktell.server.domain.metric import Measurement, Metrics, check_measurements, check_metrics
from asktell.server.domain.ranking import optimal
from asktell.server.domain.space import Parameters
from asktell.server.domain.study import StudyName, StudySpec
from asktell.server.domain.text import check_message, check_notes
from asktell.server.domain.trial import Origin, Trial, TrialName, TrialState

MAX_TRIALS = 1_000
_ADDABLE = (
    TrialState.QUEUED,
    TrialState.SUCCEEDED,
    TrialState.STOPPED,
    TrialState.INFEASIBLE,
    TrialState.FAILED,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTrial:
    """A trial of the caller's choice: to be evaluated, or finished elsewhere."""

    parameters: Parameters
    state: TrialState = TrialState.QUEUED
    metrics: Metrics = field(default_factory=dict)
    measurements: Sequence[Measurement] = ()
    message: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    def validate(self) -> None:
        """Raise InvalidArgument with a path relative to the trial, for what is wrong in any study."""
        if self.state not in _ADDABLE:
            raise InvalidArgument("state", f"a trial cannot be added as {self.state.value}")
        if self.metrics and self.state not in (TrialState.SUCCEEDED, TrialState.STOPPED):
            raise InvalidArgument("metrics", f"a {self.state.value} trial has none")
        if self.measurements and not self.state.terminal:
            raise InvalidArgument("measurements", f"a {self.state.value} trial has none")
        check_metrics(self.metrics)
        check_measurements(self.measurements)
        check_message("message", self.message)
        check_notes("metadata", self.metadata)

    def checked(self, spec: StudySpec) -> NewTrial:
        """The trial as the study keeps it, steps in order; InvalidArgument for what is wrong in this study."""
        if self.state is TrialState.SUCCEEDED:
            check_metrics(self.metrics, required=spec.objectives)
        in_order = sorted(self.measurements, key=lambda measurement: measurement.step)
        return replace(self, parameters=spec.space.check(self.parameters), measurements=in_order)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddTrials:
    """Trials of the caller's choice; `nonces` one for each."""

    study: StudyName
    trials: Sequence[NewTrial]
    nonces: Sequence[str]
    request: Request | None = None

    def validate(self) -> None:
        """Raise InvalidArgument with a path relative to the request."""
        if not 1 <= len(self.trials) <= MAX_TRIALS:
            raise InvalidArgument("trials", f"has {len(self.trials):,} trials; 1 to {MAX_TRIALS:,} are allowed")
        for index, trial in enumerate(self.trials):
            try:
                trial.validate()
            except InvalidArgument as error:
                raise error.within(f"trials[{index}]") from None


def add_trials(tx: Transaction, command: AddTrials, *, pack: Callable[[Sequence[Trial]], bytes]) -> bytes:
    """Add the trials, all or none, and return them packed."""
    count = len(command.trials)
    locked = locked_study(tx, command.study, changes=count, new_trials=count, request=command.request)
    refuse_replay(locked, command.request)
    checked = _check(command, locked.study.spec)
    trials = [_trial(command, locked, new, index) for index, new in enumerate(checked)]
    tx.insert_trials(locked.study.id, trials)
    measurements = {trial.number: trial.measurements for trial in trials}
    charted = chart(locked.study.spec, {trial.number: trial.sequence for trial in trials})
    tx.record_measurements(locked.study.id, measurements, now=locked.now, charted=charted)
    return keep_reply(tx, locked, command.request, pack(trials))


def _check(command: AddTrials, spec: StudySpec) -> list[NewTrial]:
    checked = []
    for index, trial in enumerate(command.trials):
        try:
            checked.append(trial.checked(spec))
        except InvalidArgument as error:
            raise error.within(f"trials[{index}]") from None
    return checked


def _trial(command: AddTrials, locked: Locked, new: NewTrial, index: int) -> Trial:
    queued = Trial(
        number=locked.first_number + index,
        state=TrialState.QUEUED,
        parameters=new.parameters,
        origin=Origin(policy="user", method="imported" if new.state.terminal else "enqueued"),
        nonce=command.nonces[index],
        metadata=new.metadata,
        measurements=new.measurements,
        sequence=locked.first_sequence + index,
        create_time=locked.now,
    )
    if not new.state.terminal:
        return queued
    last = new.measurements[-1].metrics if new.measurements and new.state is TrialState.STOPPED else {}
    return queued.ended(new.state, metrics=new.metrics or last, message=new.message, now=locked.now)


def get_trial(tx: Transaction, name: TrialName) -> Trial:
    """The trial with its measurements, or NotFound."""
    study = require_study(tx, name.study)
    trial = tx.find_trials(study.id, [name.number]).get(name.number)
    if trial is None:
        raise missing_trial(name)
    return replace(trial, measurements=tuple(tx.list_measurements(study.id, name.number)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ListTrials:
    """A page of a study's trials: numbers above `after`, in any of the states (all if empty), of the worker (any if "")."""

    study: StudyName
    after: int
    limit: int
    states: Collection[TrialState] = ()
    worker_id: str = ""


def list_trials(tx: Transaction, command: ListTrials) -> list[Trial]:
    """The page, by number, without measurements."""
    study = require_study(tx, command.study)
    return tx.list_trials(
        study.id, after=command.after, limit=command.limit, states=command.states, worker_id=command.worker_id
    )


async def list_optimal_trials(history: History, name: StudyName) -> list[Trial]:
    """The best feasible trial, or, with several objectives, the Pareto front."""
    snapshot = await history.read(name)
    # With many objectives and trials this takes seconds, which other callers must not wait for.
    return await asyncio.to_thread(optimal, list(snapshot.roster.trials.values()), snapshot.study.spec)


def cancel_trial(name: TrialName) -> Change[Trial]:
    """The change that withdraws a queued or active trial. A cancelled one stays as it is; one that ended otherwise is FailedPrecondition."""

    def amend(draft: Draft) -> Trial:
        trial = draft.trial(name.number)
        if trial.state is TrialState.CANCELLED:
            return trial
        return draft.change(trial.ended(TrialState.CANCELLED, now=draft.now))

    return Change(study=name.study, numbers=[name.number], amend=amend)
