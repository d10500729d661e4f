"""Add, read and cancel trials."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from asktell.server.application.change import Change, Draft, missing_trial, weight
from asktell.server.application.curves import chart
from asktell.server.application.history import History
from asktell.server.application.ports import Engine, Locked, Request, Transaction
from asktell.server.application.requests import keep_reply, refuse_replay
from asktell.server.application.studies import locked_study, require_study
from asktell.server.domain.errors import InvalidArgument
from asktell.server.domain.metric import Measurement, Metrics, check_measurements, check_metrics, count_metrics
from asktell.server.domain.ranking import MAX_FRONT, front_losses, optimal, reference, standings
from asktell.server.domain.space import Parameters
from asktell.server.domain.study import StudyName, StudySpec
from asktell.server.domain.text import check_message, check_notes
from asktell.server.domain.trial import Origin, Trial, TrialName, TrialState

MAX_TRIALS = 1_000
MAX_STAGES = 200
"""So many entries at most has a hypervolume's history."""
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

    @property
    def weight(self) -> int:
        """How much work it is for the database, in trials."""
        return weight(len(self.trials), metrics=sum(count_metrics(trial.measurements) for trial in self.trials))

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


@dataclass(frozen=True, slots=True)
class Volume:
    """The hypervolume of the front that a trial's end brought about."""

    number: int
    value: float


@dataclass(frozen=True, slots=True)
class Hypervolume:
    """How much the Pareto front dominates up to a reference (by metric, in its unit), and how that came about as trials ended."""

    reference: Mapping[str, float]
    history: Sequence[Volume]

    @property
    def value(self) -> float:
        """The hypervolume now."""
        return self.history[-1].value if self.history else 0.0


@dataclass(frozen=True, slots=True)
class Optimal:
    """The best feasible trial, or, with several objectives, the Pareto front, and if these are few its hypervolume."""

    trials: Sequence[Trial]
    hypervolume: Hypervolume | None = None


async def list_optimal_trials(history: History, engine: Engine, name: StudyName) -> Optimal:
    """What is optimal of a study's trials."""
    snapshot = await history.read(name)
    trials, spec = list(snapshot.roster.trials.values()), snapshot.study.spec
    # With many objectives and trials this takes seconds, which other callers must not wait for.
    front = await asyncio.to_thread(optimal, trials, spec)
    if not 1 < len(spec.objectives) <= MAX_FRONT or not front:
        return Optimal(front)
    return Optimal(front, await _hypervolume(engine, trials, spec))


async def _hypervolume(engine: Engine, trials: Sequence[Trial], spec: StudySpec) -> Hypervolume:
    arrived = await asyncio.to_thread(lambda: list(standings(trials, spec)))
    corner = reference(await asyncio.to_thread(front_losses, trials, spec), spec)
    history = await engine.hypervolumes(arrived, corner, most=MAX_STAGES)
    ends = zip(spec.objectives, corner, strict=True)
    return Hypervolume(
        {objective.metric: objective.loss(loss) for objective, loss in ends}, [Volume(*each) for each in history]
    )


def cancel_trial(name: TrialName) -> Change[Trial]:
    """The change that withdraws a queued or active trial. A cancelled one stays as it is; one that ended otherwise is FailedPrecondition."""

    def amend(draft: Draft) -> Trial:
        trial = draft.trial(name.number)
        if trial.state is TrialState.CANCELLED:
            return trial
        return draft.change(trial.ended(TrialState.CANCELLED, now=draft.now))

    return Change(study=name.study, numbers=[name.number], amend=amend)
