"""A sampler for Optuna that has asktell choose: `optuna.create_study(sampler=AskTellSampler("localhost:50051"))`.

Optuna keeps the study and its trials; asktell gets one study for each search space that they have, and from it come the choices. What
Optuna calls a complete trial is a succeeded one there, a pruned trial is stopped with its last value, and a failed one has failed.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import threading
import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.samplers._base import _process_constraints_after_trial
from optuna.study import Study as OptunaStudy
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from asktell.client import (
    AlreadyExists,
    AskTellError,
    AtMost,
    Cancelled,
    Client,
    DeadlineExceeded,
    FailedPrecondition,
    FinishedTrial,
    InvalidArgument,
    Maximize,
    Minimize,
    NotFound,
    Objective,
    ParameterSpec,
    ResourceExhausted,
    Study,
    Trial,
    TrialState,
    Unavailable,
)
from asktell.client.trial_protocol import TAKEN
from asktell.integrations.choices import wire_name
from asktell.integrations.optuna_space import Space, common_space

logger = logging.getLogger("asktell.integrations.optuna")

IDENTITY: Final = "asktell:study"
"""System attribute of an Optuna study: what tells its asktell studies from those of another study of the same name."""
LINK: Final = "asktell:trial"
"""System attribute of an Optuna trial: the asktell study and the number of the trial that chose its parameters."""
NUMBER: Final = "optuna_trial"
"""Metadata of an imported asktell trial: Optuna's number."""

_FINISHED = (OptunaState.COMPLETE, OptunaState.PRUNED, OptunaState.FAIL)
STATES = {
    OptunaState.COMPLETE: TrialState.SUCCEEDED,
    OptunaState.PRUNED: TrialState.STOPPED,
    OptunaState.FAIL: TrialState.FAILED,
}
_ONE_BY_ONE = 32
"""Trials that are imported with a call each. A call has an id after its trial, so that processes which do the same do it once."""


class AskTellSampler(BaseSampler):
    """Chooses by asktell. Safe to share between threads and studies; a copy in another process connects by itself.

    `target` is by default that of the environment variable ASKTELL_TARGET, else localhost:50051; a `client` may be given instead.
    `policy`, `seed` and `noisy` are those of the asktell studies. Parameters that are in every complete trial are chosen together, from the
    second trial on; others are left to `independent_sampler`, by default a RandomSampler with the seed. With `parameters`, asktell's own
    (`Float("momentum", 0, 1, when=("optimizer", ["sgd"]))`), all are chosen together from the first trial on, also those that exist only
    under conditions; the objective then suggests them with the same ranges, a Bool as the choices (False, True).
    `constraints_func` is what Optuna's own samplers take.
    """

    def __init__(  # noqa: PLR0913 - one keyword for each option.
        self,
        target: str | None = None,
        *,
        client: Client | None = None,
        project: str = "default",
        policy: str = "auto",
        seed: int | None = None,
        noisy: bool = False,
        parameters: Sequence[ParameterSpec] | None = None,
        independent_sampler: BaseSampler | None = None,
        constraints_func: Callable[[FrozenTrial], Sequence[float]] | None = None,
    ) -> None:
        self._target, self._project = target, project
        self._policy, self._seed, self._noisy = policy, seed, noisy
        self._declared = None if parameters is None else Space.declared(parameters)
        self._independent_sampler = independent_sampler or RandomSampler(seed=seed)
        self._constraints_func = constraints_func
        self._given = client
        self._begin()

    def _begin(self) -> None:
        """Start without connection and claims, as in a new process."""
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._client: Client | None = self._given
        self._mirrors: dict[str, _Mirror] = {}
        self._asked: dict[tuple[str, int], _Asked] = {}
        self._untold: list[_Told] = []
        self._explained: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        kept = [
            "_target",
            "_project",
            "_policy",
            "_seed",
            "_noisy",
            "_declared",
            "_independent_sampler",
            "_constraints_func",
        ]
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _given=None)
        self._begin()

    def close(self) -> None:
        """End the connection. Trials that are still being worked on are asktell's to hand out again once their leases end."""
        with self._lock:
            if self._client is not None and self._client is not self._given:
                self._client.close()
            self._begin()

    def reseed_rng(self) -> None:
        """Give the independent sampler a new seed; asktell itself never chooses the same twice."""
        self._independent_sampler.reseed_rng()

    def infer_relative_search_space(
        self,
        study: OptunaStudy,
        trial: FrozenTrial,  # noqa: ARG002 - Optuna hands it over.
    ) -> dict[str, BaseDistribution]:
        """The parameters that were declared, else those that every complete trial has."""
        if self._declared is not None:
            return self._declared.distributions
        return common_space(study.get_trials(deepcopy=False)).distributions

    def sample_relative(
        self, study: OptunaStudy, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """What asktell chose, kept as a link in the trial; values of the independent sampler where it has nothing left to choose."""
        space = Space.of(search_space) if self._declared is None else self._declared.only(search_space)
        asked = self._ask(study, trial, space) if space.dials else None
        found = {} if asked is None else space.received(asked.trial.parameters)
        missing = search_space.keys() - (() if asked is None else space.distributions)
        return found | {name: self._independently(study, trial, name, search_space[name]) for name in sorted(missing)}

    def sample_independent(
        self, study: OptunaStudy, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A value of the independent sampler."""
        if trial.number and param_name not in self._explained:
            self._explained.add(param_name)
            logger.info(
                "parameter %r is drawn by %s: it is not in every complete trial with a range that stays;"
                " declare the search space with `parameters=` to have asktell choose it",
                param_name,
                self._independent_sampler,
            )
        return self._independently(study, trial, param_name, param_distribution)

    def _independently(self, study: OptunaStudy, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        return self._independent_sampler.sample_independent(study, trial, name, distribution)

    def before_trial(self, study: OptunaStudy, trial: FrozenTrial) -> None:
        """Hand on to the independent sampler."""
        self._independent_sampler.before_trial(study, trial)

    def after_trial(
        self, study: OptunaStudy, trial: FrozenTrial, state: OptunaState, values: Sequence[float] | None
    ) -> None:
        """Tell what became of the trial. A service that is out of reach then is told before the next choice."""
        self._independent_sampler.after_trial(study, trial, state, values)
        if self._constraints_func is not None:
            _process_constraints_after_trial(self._constraints_func, study, trial, state)
            trial = _storage(study).get_trial(trial._trial_id)  # noqa: SLF001
        link = trial.system_attrs.get(LINK)
        if link is None:
            return
        with self._current():
            asked = self._asked.pop((link, trial.number), None)
            mirror = self._mirrors.get(_study_of(link)) if asked is None else asked.mirror
            if mirror is not None:
                self._untold.append(_Told(mirror, asked, _number_of(link), _Ending(trial, state, values)))
        self._tell()

    def _tell(self) -> None:
        """Tell all that is to be told; what the service cannot take now is kept, and what is left when something else goes wrong."""
        with self._lock:
            waiting, self._untold = self._untold, []
        later: list[_Told] = []
        try:
            while waiting:
                told = waiting.pop(0)
                if not self._is_settled(told):
                    later.append(told)
        finally:
            with self._lock:
                self._untold[:0] = [*later, *waiting]

    def _is_settled(self, told: _Told) -> bool:
        """Deliver it; False if that has to be tried again. Of an error that would come again it is said once, and the lease is let go."""
        try:
            told.deliver()
        except (Unavailable, DeadlineExceeded, ResourceExhausted, Cancelled) as error:
            logger.warning("trial %d is told later: %s", told.ending.trial.number, error)
            return False
        except NotFound as error:
            told.let_go()
            self._forget(told.mirror, error)
        except AskTellError:
            told.let_go()
            raise
        return True

    def _ask(self, study: OptunaStudy, trial: FrozenTrial, space: Space) -> _Asked | None:
        """A choice that this process has now a lease of; None if there is none."""
        finished = study.get_trials(deepcopy=False, states=_FINISHED)
        self._take_up(finished)
        self._tell()
        mirror = self._mirror(study, space, constraints_of(finished))
        try:
            mirror.catch_up(finished)
            asked = mirror.ask(trial)
        except NotFound as error:
            self._forget(mirror, error)
            return self._ask(study, trial, space)
        if asked is not None:
            link = f"{mirror.study.id}#{asked.trial.number}"
            _storage(study).set_trial_system_attr(trial._trial_id, LINK, link)  # noqa: SLF001
            with self._lock:
                self._asked[link, trial.number] = asked
        return asked

    def _take_up(self, finished: Iterable[FrozenTrial]) -> None:
        """Tell what this process asked for and another process finished."""
        with self._current():
            for trial in finished:
                asked = self._asked.pop((trial.system_attrs.get(LINK, ""), trial.number), None)
                if asked is not None:
                    ending = _Ending(trial, trial.state, trial.values)
                    self._untold.append(_Told(asked.mirror, asked, asked.trial.number, ending))

    def _forget(self, mirror: _Mirror, error: NotFound) -> None:
        """Begin an asktell study anew that somebody deleted."""
        logger.warning("begun anew: %s", error)
        with self._lock:
            self._mirrors.pop(mirror.study.id, None)

    def _mirror(self, study: OptunaStudy, space: Space, constraints: Sequence[AtMost]) -> _Mirror:
        problem = _Problem(space, objectives_of(study.directions), tuple(constraints))
        with self._current():
            study_id = _study_id(study, problem, self._policy, noisy=self._noisy)
            if study_id not in self._mirrors:
                self._mirrors[study_id] = _Mirror(self._create(study_id, problem), space)
            return self._mirrors[study_id]

    def _create(self, study_id: str, problem: _Problem) -> Study:
        """The asktell study; one that another process made, with another seed, will do."""
        client = self._connected()
        try:
            return client.create_study(
                study_id,
                parameters=problem.space.parameters,
                objectives=problem.objectives,
                outcome_constraints=problem.constraints,
                noisy=self._noisy,
                policy=self._policy,
                seed=self._seed,
            )
        except AlreadyExists:
            return client.get_study(study_id)

    def _connected(self) -> Client:
        if self._client is None:
            self._client = Client(self._target, project=self._project)
            weakref.finalize(self, _close, self._client, os.getpid())
        return self._client

    @contextlib.contextmanager
    def _current(self) -> Any:
        """Hold the lock, after a start anew if this is a fork: a connection is of one process."""
        if self._pid != os.getpid():
            self._given = None
            self._begin()
        with self._lock:
            yield


@dataclass(frozen=True, slots=True)
class _Problem:
    """What an asktell study is about. Optuna's constraints are met at 0 and below."""

    space: Space
    objectives: tuple[Objective, ...]
    constraints: tuple[AtMost, ...]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A trial of asktell's that this process works on, and what keeps its lease."""

    mirror: _Mirror
    trial: Trial
    kept: contextlib.ExitStack


@dataclass(frozen=True, slots=True)
class _Ending:
    """How an Optuna trial ended."""

    trial: FrozenTrial
    state: OptunaState
    values: Sequence[float] | None

    @property
    def metrics(self) -> dict[str, float]:
        """The objectives and constraints, if they were measured."""
        if self.state is OptunaState.FAIL or self.values is None:
            return {}
        constraints = {constraint_metric(name): value for name, value in self.trial.constraints.items()}
        return dict(zip(_metrics(len(self.values)), self.values, strict=True)) | constraints


@dataclass(frozen=True, slots=True)
class _Told:
    """What is to be told of an asktell trial; `asked` is None where another process asked for it."""

    mirror: _Mirror
    asked: _Asked | None
    number: int
    ending: _Ending

    def deliver(self) -> None:
        """Tell it, or, where the trial used other parameters or is no longer ours, add what it was as a trial that ended."""
        if self.asked is None:
            self.mirror.replace(self.number, self.ending)
            return
        if self.mirror.space.agrees(self.asked.trial.parameters, self.ending.trial.params):
            self._tell(self.asked.trial)
        else:
            self.mirror.replace(self.number, self.ending)
        self.let_go()

    def let_go(self) -> None:
        """Keep the lease no longer."""
        if self.asked is not None:
            self.asked.kept.close()

    def _tell(self, trial: Trial) -> None:
        try:
            _end(trial, self.ending)
        except FailedPrecondition as refusal:
            if refusal.reason not in TAKEN:
                raise
            self.mirror.add([self.ending])
        self.mirror.known.add(self.ending.trial.number)


def _end(trial: Trial, ending: _Ending) -> None:
    match ending.state:
        case OptunaState.COMPLETE:
            trial.tell(ending.metrics)
        case OptunaState.PRUNED:
            trial.stop(ending.metrics, message="pruned by Optuna")
        case _:
            trial.fail(f"trial {ending.trial.number} of Optuna failed")


@dataclass(slots=True)
class _Mirror:
    """An asktell study with the trials of an Optuna study that fit its space; `known` are the Optuna numbers of those it has or cannot have."""

    study: Study
    space: Space
    known: set[int] = field(default_factory=set)
    caught_up: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def catch_up(self, trials: Sequence[FrozenTrial]) -> None:
        """Add the finished trials that asktell lacks, whoever ran or added them."""
        with self.lock:
            if self.caught_up:
                self.known.update(trial.number for trial in trials if self._is_linked(trial))
            else:
                self._look_back(trials)
                self.caught_up = True
            self.add([_Ending(trial, trial.state, trial.values) for trial in trials if trial.number not in self.known])

    def ask(self, trial: FrozenTrial) -> _Asked | None:
        """A choice with the parameters that an enqueued trial has fixed; None if asktell has nothing to hand out."""
        fixed = self.space.fixed(trial.system_attrs.get("fixed_params", {}))
        answer = self.study.ask_once(fixed=fixed)
        if not answer.trials:
            logger.info("study %s hands out nothing: %s", self.study.id, answer.reason.value)
            return None
        kept = contextlib.ExitStack()
        kept.enter_context(answer.trials[0].keep_alive())
        return _Asked(self, answer.trials[0], kept)

    def replace(self, number: int, ending: _Ending) -> None:
        """Withdraw an asktell trial whose parameters were not used, or whose lease is another's, and add what was used."""
        with contextlib.suppress(NotFound, FailedPrecondition):
            self.study.get_trial(number).cancel()
        self.add([ending])

    def add(self, endings: Sequence[_Ending]) -> None:
        """Add trials that ended as far as they fit the space."""
        found = [(ending.trial.number, self._finished(ending)) for ending in endings]
        fitting = {number: finished for number, finished in found if finished is not None}
        if len(fitting) <= _ONE_BY_ONE or not self._add_together(fitting):
            for number, finished in fitting.items():
                self._add_alone(number, finished)
        self.known.update(number for number, _ in found)

    def _add_together(self, trials: Mapping[int, FinishedTrial]) -> bool:
        """Whether the service took all in one go."""
        numbers = " ".join(map(str, trials))
        try:
            self.study.import_trials(trials.values(), request_id=f"optuna-{_digest(numbers)}")
        except InvalidArgument:
            return False
        return True

    def _add_alone(self, number: int, finished: FinishedTrial) -> None:
        try:
            self.study.import_trials([finished], request_id=f"optuna-{number}")
        except InvalidArgument as error:
            logger.warning("trial %d is nothing for %s: %s", number, self.study.id, error)

    def _finished(self, ending: _Ending) -> FinishedTrial | None:
        """The trial as one that ended elsewhere; None if it lies outside the space or says nothing."""
        try:
            parameters = self.space.sent(ending.trial.params)
        except ValueError:
            return None
        metadata = {NUMBER: str(ending.trial.number)}
        return FinishedTrial(
            parameters=parameters, metrics=ending.metrics, state=STATES[ending.state], metadata=metadata
        )

    def _look_back(self, trials: Sequence[FrozenTrial]) -> None:
        """Take in what earlier processes left: what they imported or told, and trials that ended in Optuna but were never told."""
        there = {each.number: each for each in self.study.list_trials()}
        self.known.update(int(each.metadata[NUMBER]) for each in there.values() if NUMBER in each.metadata)
        for trial in filter(self._is_linked, trials):
            left = there.get(_number_of(trial.system_attrs[LINK]))
            if left is None or trial.number in self.known:
                continue
            if left.state.terminal:
                self.known.add(trial.number)
            else:
                self.replace(left.number, _Ending(trial, trial.state, trial.values))

    def _is_linked(self, trial: FrozenTrial) -> bool:
        link = trial.system_attrs.get(LINK)
        return link is not None and _study_of(link) == self.study.id


def _study_id(study: OptunaStudy, problem: _Problem, policy: str, *, noisy: bool) -> str:
    """The id of the asktell study: the same in all processes, whenever they begin."""
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "-", study.study_name)[:64]
    described = repr((problem.space.parameters, problem.objectives, problem.constraints, policy, noisy))
    return f"optuna-{readable}-{_identity(study)}-{_digest(described)}"


def _identity(study: OptunaStudy) -> str:
    """What tells the Optuna study from others of its name. Two processes that draw one at the same time end up with the later one."""
    storage, number = _storage(study), study._study_id  # noqa: SLF001
    if IDENTITY not in storage.get_study_system_attrs(number):
        storage.set_study_system_attr(number, IDENTITY, uuid.uuid4().hex[:8])
    return str(storage.get_study_system_attrs(number)[IDENTITY])


def objectives_of(directions: Sequence[StudyDirection], names: Sequence[str] | None = None) -> tuple[Objective, ...]:
    """The objectives with the names that the user gave them, else `value`, or `value_0`, `value_1` and so on."""
    metrics = _metrics(len(directions)) if names is None else [wire_name(name) for name in names]
    return tuple(
        Maximize(metric) if direction is StudyDirection.MAXIMIZE else Minimize(metric)
        for metric, direction in zip(metrics, directions, strict=True)
    )


def _metrics(count: int) -> list[str]:
    return ["value"] if count == 1 else [f"value_{index}" for index in range(count)]


def constraints_of(trials: Iterable[FrozenTrial]) -> tuple[AtMost, ...]:
    """Of every constraint that any trial was told of. Optuna's are met at 0 and below."""
    names = {name for trial in trials if trial.state is not OptunaState.FAIL for name in trial.constraints}
    return tuple(AtMost(metric, 0.0) for metric in sorted(map(constraint_metric, names)))


def constraint_metric(name: str) -> str:
    """The metric that stands for a constraint of Optuna's."""
    return wire_name(f"constraint_{name}")


def _storage(study: OptunaStudy) -> Any:
    """Where Optuna keeps the study: attributes of samplers have no public way there."""
    return study._storage  # noqa: SLF001


def _close(client: Client, pid: int) -> None:
    """End a connection, in the process that has it."""
    if os.getpid() == pid:
        client.close()


def _study_of(link: str) -> str:
    return link.rpartition("#")[0]


def _number_of(link: str) -> int:
    return int(link.rpartition("#")[2])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
