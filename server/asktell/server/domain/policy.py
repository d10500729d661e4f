"""What a policy is asked, and what it answers. A policy is a pure function of the request."""

from __future__ import annotations

from dataclasses import dataclass, field

from asktell.server.domain.fidelity import Fidelity
from asktell.server.domain.metric import Metrics, Objective, OutcomeConstraint
from asktell.server.domain.population import Population
from asktell.server.domain.space import Parameters, SearchSpace
from asktell.server.domain.trial import Origin, TrialState

MAX_HINT = 4_096
"""How many bytes of hint are kept for a study and policy."""


@dataclass(frozen=True, slots=True)
class Observation:
    """A trial that ended, as the model learns from it: `state` is SUCCEEDED, STOPPED, INFEASIBLE or FAILED.

    `parent` and `member` are those of the trial, 0 for none.
    """

    number: int
    state: TrialState
    parameters: Parameters
    metrics: Metrics
    parent: int = 0
    member: int = 0


@dataclass(frozen=True, slots=True)
class Source:
    """An earlier study to start from: which of its parameters are also this study's, and its observations, of these parameters alone.

    All their values lie in this study's ranges. `gone` if the study was deleted since, or shares nothing any more.
    """

    name: str
    parameters: frozenset[str] = frozenset()
    observations: tuple[Observation, ...] = ()
    gone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SuggestRequest:
    """Everything that the choice of candidates depends on.

    `next_number` is the number that the first candidate's trial gets; `pending` are the parameters of queued and active trials,
    `pending_members` which members of a population those are, in the same order, 0 for none; empty means that none is one;
    `noisy`: the same parameters give another result each time, so that repeats are worth something;
    `sources` are earlier studies to start from;
    `population` is that of the policy `pbt`;
    `fixed` parameters every candidate must have exactly so; `max_trials` is the study's budget, if any; `time_limit`, in seconds, is how
    long the computation may take before it should settle for what it has, and does not change the answer otherwise. `hint` is what an
    earlier decision of this policy in this study left to make later ones cheaper, or b"": the candidates are the same to the bit with it,
    with an older one, with another version's bytes, or with none.

    In a study with a `fidelity` a policy is asked for new configurations at the highest one: that is fixed, the observations are as if they
    had been made there, one for each configuration, and `lessons` have what was really measured.
    """

    space: SearchSpace
    objectives: tuple[Objective, ...]
    outcome_constraints: tuple[OutcomeConstraint, ...] = ()
    noisy: bool = False
    policy: str
    seed: int
    count: int
    next_number: int
    observations: tuple[Observation, ...] = ()
    pending: tuple[Parameters, ...] = ()
    pending_members: tuple[int, ...] = ()
    sources: tuple[Source, ...] = ()
    population: Population | None = None
    fixed: Parameters = field(default_factory=dict)
    max_trials: int | None = None
    time_limit: float | None = None
    hint: bytes = b""
    fidelity: Fidelity | None = None
    lessons: tuple[Observation, ...] = ()

    @property
    def measurements(self) -> tuple[Observation, ...]:
        """What was really measured, which is what models learn from."""
        return self.lessons or self.observations

    @property
    def aim(self) -> Parameters:
        """The fidelity at which configurations are compared, where there is one: it is fixed there."""
        name = "" if self.fidelity is None else self.fidelity.parameter
        return {name: self.fixed[name]} if name in self.fixed else {}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A point that a policy chose, not yet a trial: the active parameters, checked against the space, and how they were chosen.

    `parent` is the number of the trial whose checkpoint it goes on from, which must be one that the policy was shown; `member` which one of
    a population it is; 0 for none.
    """

    parameters: Parameters
    origin: Origin
    parent: int = 0
    member: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """A policy's answer: `count` candidates, or fewer exactly when a finite space has no more configurations to offer, or when the policy
    `waits`: there will be more once one of the pending trials has ended.

    `hint`, at most MAX_HINT bytes, is for the study's later requests; b"" leaves them the one that is stored. It may be lost at any time.
    `timely`: so many candidates, the first ones, were chosen before the time limit was over, which others may owe their choice to; None if it
    plays no part.
    """

    candidates: tuple[Candidate, ...]
    hint: bytes = b""
    waits: bool = False
    timely: int | None = None
