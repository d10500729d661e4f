"""One optimisation problem: what is searched, for what, with how much."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from asktell.server.domain.errors import InvalidArgument
from asktell.server.domain.fidelity import POLICIES, Fidelity
from asktell.server.domain.metric import Objective, OutcomeConstraint, check_constraints, check_objectives
from asktell.server.domain.population import POLICY as POPULATION_POLICY
from asktell.server.domain.population import Population
from asktell.server.domain.space import ParameterSpec, SearchSpace
from asktell.server.domain.stopping import NewRule, StoppingRule
from asktell.server.domain.text import check_identifier, check_notes, excerpt
from asktell.server.domain.widening import widened

MIN_LEASE = timedelta(seconds=1)
MAX_LEASE = timedelta(days=7)
DEFAULT_LEASE = timedelta(seconds=60)
DEFAULT_ATTEMPTS = 3
MAX_ATTEMPTS = 100
MAX_SOURCES = 10
MAX_DURATION = timedelta(days=36_500)
INT64 = range(-(2**63), 2**63)
LIMITS = ("max_trials", "max_duration", "max_failures", "max_parallel")
"""Of a budget."""


class StudyState(Enum):
    """Whether a study hands out trials."""

    ACTIVE = "active"
    PAUSED = "paused"
    FINISHED = "finished"


class LateTells(Enum):
    """What becomes of a result told after its lease was lost."""

    ACCEPT = "accept"
    REFUSE = "refuse"


class StudyName(NamedTuple):
    """`projects/{project}/studies/{study}`. A tuple, since a call looks a dozen times for what goes by it."""

    project: str
    study: str

    def __str__(self) -> str:
        return f"projects/{self.project}/studies/{self.study}"

    @classmethod
    def parse(cls, name: str, *, path: str) -> StudyName:
        """Return the parts of a resource name, or raise InvalidArgument that names `path`."""
        try:
            return _parsed(name)
        except InvalidArgument as error:
            raise error.within(path) from None


@lru_cache(maxsize=1024)
def _parsed(name: str) -> StudyName:
    parts = name.split("/")
    if len(parts) != 4 or parts[0] != "projects" or parts[2] != "studies":
        raise InvalidArgument("", f"{excerpt(name)} is not of the form projects/{{project}}/studies/{{study}}")
    return StudyName(check_identifier("", parts[1]), check_identifier("", parts[3]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much a study may spend; None is unlimited."""

    max_trials: int | None = None
    max_duration: timedelta | None = None
    max_failures: int | None = None
    max_parallel: int | None = None

    def validate(self) -> None:
        """Raise InvalidArgument with a path relative to the budget if a limit makes no sense."""
        for name in ("max_trials", "max_failures", "max_parallel"):
            limit = getattr(self, name)
            if limit is not None and not 1 <= limit < 2**53:
                raise InvalidArgument(name, f"must be from 1 to 2^53, not {limit}")
        if self.max_duration is not None and not timedelta(0) < self.max_duration <= MAX_DURATION:
            raise InvalidArgument("max_duration", f"must be above 0 and at most 100 years, not {self.max_duration}")

    def changed(self, to: Budget, limits: Collection[str]) -> Budget:
        """The budget with the named limits of another."""
        return replace(self, **{limit: getattr(to, limit) for limit in limits})


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySpec:
    """What is searched, and for what. Fixed at creation, but for a wider search space and another stopping rule.

    `noisy`: the same parameters give another result each time.
    """

    space: SearchSpace
    objectives: tuple[Objective, ...]
    outcome_constraints: tuple[OutcomeConstraint, ...] = ()
    policy: str = "auto"
    seed: int | None = None
    lease_duration: timedelta = DEFAULT_LEASE
    max_attempts: int = DEFAULT_ATTEMPTS
    late_tells: LateTells = LateTells.ACCEPT
    noisy: bool = False
    stopping_rule: StoppingRule | None = None
    warm_start: tuple[str, ...] = ()
    fidelity: Fidelity | None = None
    population: Population | None = None

    def validate(self) -> None:
        """Raise InvalidArgument with a path relative to the spec if a part makes no sense. The policy's name is the engine's to judge."""
        self.space.validate()
        check_objectives(self.objectives)
        check_constraints(self.outcome_constraints, self.objectives)
        if self.seed is not None and self.seed not in INT64:
            raise InvalidArgument("seed", f"{self.seed} is not a 64-bit integer")
        check_lease_duration("lease_duration", self.lease_duration)
        if self.stopping_rule is not None:
            self.stopping_rule.validate(self.objectives)
        check_warm_start(self.warm_start)
        if self.fidelity is not None:
            self.fidelity.validate(self.space)
            self._validate_with_fidelity()
        self._validate_population()
        if not 1 <= self.max_attempts <= MAX_ATTEMPTS:
            raise InvalidArgument("max_attempts", f"must be from 1 to {MAX_ATTEMPTS}, not {self.max_attempts}")

    def _validate_with_fidelity(self) -> None:
        """Refuse what makes no sense beside a fidelity."""
        if self.policy not in POLICIES:
            raise InvalidArgument(
                "policy",
                f"{excerpt(self.policy)} knows no fidelity; with one, the policy is one of {', '.join(POLICIES)}",
            )
        if self.stopping_rule is not None:
            raise InvalidArgument(
                "stopping_rule",
                "cannot go with a fidelity, whose rungs decide already which trainings go on: give one of the two",
            )
        if self.noisy:
            raise InvalidArgument("noisy", "cannot go with a fidelity: a configuration has one trial at each rung")

    def _validate_population(self) -> None:
        """Refuse what makes no sense in a population, whose trials are intervals of trainings that began earlier."""
        if self.population is None and self.policy != POPULATION_POLICY:
            return
        if self.population is None or self.policy != POPULATION_POLICY:
            raise InvalidArgument("population", f"goes with the policy {POPULATION_POLICY!r}, and with no other")
        self.population.validate()
        refused = {
            "objectives[1]": (
                len(self.objectives) > 1,
                "cannot go with a population, which is ranked by one objective",
            ),
            "outcome_constraints": (
                self.outcome_constraints,
                "cannot go with a population, which is ranked by its objective",
            ),
            "noisy": (self.noisy, "cannot go with a population: the same parameters come again from another state"),
            "stopping_rule": (
                self.stopping_rule is not None,
                "cannot go with a population, which decides itself which trainings go on: give one of the two",
            ),
            "warm_start": (self.warm_start, "cannot go with a population: it makes no use of earlier studies"),
        }
        for path, (given, reason) in refused.items():
            if given:
                raise InvalidArgument(path, reason)

    def widened(self, parameters: Sequence[ParameterSpec]) -> StudySpec:
        """The spec with a wider search space; itself if that is the same. InvalidArgument with a path that starts at `spec`."""
        try:
            if self.fidelity is not None:
                self.fidelity.check_kept(self.space, parameters)
            space = widened(self.space, parameters)
        except InvalidArgument as error:
            raise error.within("spec") from None
        return self if self.space.difference(space) is None else replace(self, space=space)

    @property
    def charted(self) -> Objective | None:
        """What the stopping rule looks at; None without one."""
        return None if self.stopping_rule is None else self.stopping_rule.looked_at(self.objectives)

    def ruled(self, new: NewRule) -> StudySpec:
        """The spec with another stopping rule, or none; itself if that is the same. InvalidArgument with a path that starts at `spec`."""
        if new.rule == self.stopping_rule:
            return self
        changed = replace(self, stopping_rule=new.rule)
        try:
            changed.validate()
        except InvalidArgument as error:
            raise error.within("spec") from None
        return changed


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialCounts:
    """How many trials stand where."""

    queued: int = 0
    active: int = 0
    succeeded: int = 0
    stopped: int = 0
    infeasible: int = 0
    failed: int = 0
    cancelled: int = 0

    @property
    def spent(self) -> int:
        """Trials that count against `max_trials`: all but cancelled ones."""
        return self.queued + self.active + self.succeeded + self.stopped + self.infeasible + self.failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A study as it stands.

    `id` is the database's and never reused; `next_number` is the number of the next new trial, and changes exactly when a trial is
    added; `sequence` is that of the latest change of the study or one of its trials, `own_sequence` that of the latest change of the
    study itself: its creation, state, budget, labels, search space or stopping rule.
    """

    id: int
    name: StudyName
    spec: StudySpec
    seed: int
    budget: Budget = field(default_factory=Budget)
    labels: Mapping[str, str] = field(default_factory=dict)
    state: StudyState = StudyState.ACTIVE
    next_number: int = 1
    sequence: int = 0
    own_sequence: int = 0
    create_time: datetime
    update_time: datetime

    def difference(self, spec: StudySpec, budget: Budget) -> str | None:
        """What in a spec and budget is other than in this study, for an error message; None if nothing is. No seed matches any seed."""
        space = self.spec.space.difference(spec.space)
        if space is not None:
            return space
        for name in (
            "objectives",
            "outcome_constraints",
            "policy",
            "lease_duration",
            "max_attempts",
            "late_tells",
            "noisy",
            "stopping_rule",
            "warm_start",
            "fidelity",
            "population",
        ):
            kept, given = getattr(self.spec, name), getattr(spec, name)
            if kept != given:
                return f"{name} {_shown(kept, absent='none')}, not {_shown(given, absent='none')}"
        if spec.seed is not None and spec.seed != self.seed:
            return f"seed {self.seed}, not {spec.seed}"
        for name in LIMITS:
            kept, given = getattr(self.budget, name), getattr(budget, name)
            if kept != given:
                return f"{name} {_shown(kept)}, not {_shown(given)}; update the study to change its budget"
        return None

    def changed(
        self,
        *,
        state: StudyState | None = None,
        budget: Budget | None = None,
        limits: Collection[str] = LIMITS,
        labels: Mapping[str, str] | None = None,
        label_changes: Mapping[str, str | None] | None = None,
        parameters: Sequence[ParameterSpec] | None = None,
        stopping_rule: NewRule | None = None,
    ) -> Study:
        """The study with some of its mutable parts replaced: of the budget the named limits, of the labels all or those with new text; None
        removes one. InvalidArgument, with a path relative to the study, for too many labels, for parameters that are no wider search space,
        and for a stopping rule that makes no sense.
        """
        spec = self.spec if parameters is None else self.spec.widened(parameters)
        return replace(
            self,
            spec=spec if stopping_rule is None else spec.ruled(stopping_rule),
            state=state or self.state,
            budget=self.budget if budget is None else self.budget.changed(budget, limits),
            labels=_changed_notes(self.labels if labels is None else labels, label_changes or {}),
        )


def _changed_notes(notes: Mapping[str, str], changes: Mapping[str, str | None]) -> Mapping[str, str]:
    changed = {**notes, **changes}
    return check_notes("labels", {key: text for key, text in changed.items() if text is not None})


def check_warm_start(sources: Sequence[str]) -> None:
    """Raise InvalidArgument for ids of sources that are none, too many or repeated."""
    if len(sources) > MAX_SOURCES:
        raise InvalidArgument("warm_start", f"names {len(sources)} studies; at most {MAX_SOURCES} are allowed")
    for index, source in enumerate(sources):
        check_identifier(f"warm_start[{index}]", source)
        if source in sources[:index]:
            raise InvalidArgument(f"warm_start[{index}]", f"{excerpt(source)} is named already")


def check_lease_duration(path: str, duration: timedelta) -> timedelta:
    """Return a lease duration, or raise: 1 s to 7 days."""
    if not MIN_LEASE <= duration <= MAX_LEASE:
        raise InvalidArgument(path, f"must be from 1 s to 7 days, not {duration.total_seconds():g} s")
    return duration


def _described(part: Objective | OutcomeConstraint | str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, OutcomeConstraint):
        return f"{part.metric} {part.relation.value} {part.bound!r}"
    reference = "" if part.reference is None else f" from {part.reference!r}"
    return f"{part.goal.value} {part.metric}{reference}"


def _shown(part: object, *, absent: str = "unlimited") -> str:
    """A part of a study as its user wrote it."""
    match part:
        case None:
            return absent
        case timedelta():
            return f"{part.total_seconds():g} s"
        case LateTells():
            return part.value
        case bool():
            return str(part).lower()
        case tuple():
            return ", ".join(map(_described, part)) or "none"
        case _:
            return str(part)
