"""CMA-ES with margin, replayed from the trials: no state is kept but the observations themselves."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np

from asktell.server.domain.policy import Decision, Observation, SuggestRequest
from asktell.server.policies.columns import Column, LogIntegers, Vector
from asktell.server.policies.deadline import NEVER, Deadline
from asktell.server.policies.draws import generator
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.kernel import Indices, Mask, Matrix
from asktell.server.policies.proposing import Offers, Proposal, suggest_by
from asktell.server.policies.region import Region
from asktell.server.policies.scope import Scope
from asktell.server.policies.standing import ranks

NAME = "cma-es"
METHOD = "cma-es"
SIGMA = 0.25
"""The first step size, in units of a parameter's range."""
CONVERGED = 1e-6
"""A population that spreads no farther than this in any number, or is one configuration, has converged."""
_FEW, _RESAMPLED, _SELDOM_RESAMPLED = 50, 100, 5
"""Up to so many numbers, draws outside the bounds are drawn again so often; else that takes the time of a hundred draws for each."""
_ATTEMPTS = 16
_UNREPAIRED = 4
_ROUNDING = 1e-9
_LEARNING = 0.2
"""How far a name's frequencies move towards those of the better half in each generation."""
_COPIES = 16
_COURSES = 32
_MARGIN = 0.1
"""The probability of a name that the frequencies leave to all names alike, so that none dies out."""


def suggest(request: SuggestRequest) -> Decision:
    """Draws from the distribution that the trials so far have led to."""
    return suggest_by(Strategy, request, name=NAME)


class Strategy:
    """Proposes draws for one request.

    The trials that have ended, in the order of their numbers, are cut into generations, and each moves the distribution: which is a function of
    the set of trials alone. When the population has converged, a new search begins somewhere else with twice the population (IPOP, Auger and
    Hansen 2005). Failures rank last. Trials of others, or of fixed parameters, take part as if they had been drawn (Hansen 2011).

    Numbers and ordinals are the strategy's coordinates, those with steps kept alive by its margin (Hamano et al. 2022). Names, which have no
    distance, are drawn by their frequencies in the better halves of the generations, which never fall to zero. A parameter that is inactive
    in a trial takes part there as a draw of its own, so that it neither moves nor narrows the distribution on the whole.
    """

    def __init__(self, request: SuggestRequest, deadline: Deadline = NEVER) -> None:
        self._request, self._deadline = request, deadline
        self._encoder = Encoder.within(Scope.of(request.space, request.fixed))
        self._region = Region(self._encoder, deadline)
        self._state, self._fallback = _MEMORY.state(request, deadline)

    def propose(self, number: int, offers: Offers) -> Proposal | None:
        """A draw that is not taken; None if there is none among many, or among as many as there is time for."""
        for attempt in range(_ATTEMPTS):
            parameters = self._encoder.decode(self._encoder.settle(self._row(number, attempt))[0])
            if offers.free(parameters):
                return Proposal(parameters, METHOD, self._fallback)
            if self._deadline.passed:
                break
        return None

    def _row(self, number: int, attempt: int) -> Matrix:
        """A draw (`1 x d`), after some that constraints forbade moved to where they are met."""
        row, _ = self._state.drawn(number, attempt)
        if self._region.unbounded or attempt < _UNREPAIRED:
            return row[None]
        repaired, _ = self._region.repaired(row[None], generator(self._request.seed, purpose="repair", number=number))
        return repaired


@dataclass(slots=True)
class State:
    """The distribution in the course of a replay."""

    seed: int
    columns: Sequence[Column]
    restarts: int = 0
    _numbers: Indices = field(init=False)
    _names: Indices = field(init=False)
    _strategy: Any = field(init=False)
    _frequencies: list[Vector] = field(init=False)

    def __post_init__(self) -> None:
        varied = [column.size != 1 for column in self.columns]
        nominal = np.array([column.nominal for column in self.columns])
        self._numbers, self._names = np.flatnonzero(varied & ~nominal), np.flatnonzero(varied & nominal)
        self._begin()

    def _begin(self) -> None:
        # It imports scipy.stats, which takes a second and 30 MB: only studies that name this policy shall pay.
        from cmaes import CMAwM  # noqa: PLC0415

        sizes = [self.columns[place].size or 0 for place in self._names]
        self._frequencies = [np.full(size, 1 / size) for size in sizes]
        random = generator(self.seed, purpose=NAME, number=self.restarts)
        dimensions = max(len(self._numbers), 1)
        mean = random.random(dimensions) if self.restarts else np.full(dimensions, 0.5)
        varied = len(self._numbers) + len(self._names)
        self._strategy = CMAwM(
            mean=mean,
            sigma=SIGMA,
            bounds=np.tile([0.0, 1.0], (dimensions, 1)),
            steps=np.array([_step(self.columns[place]) for place in self._numbers] or [0.0]),
            # Of many coordinates one is outside whatever is drawn: it is moved to the bound in the end.
            n_max_resampling=_RESAMPLED if dimensions <= _FEW else _SELDOM_RESAMPLED,
            population_size=(4 + int(3 * np.log(max(varied, 1)))) * 2**self.restarts,
        )

    @property
    def population_size(self) -> int:
        """How many trials make the next generation."""
        return int(self._strategy.population_size)

    def drawn(self, number: int, attempt: int) -> tuple[Vector, Vector]:
        """A trial's draw as a row (`d`), and the strategy's own coordinates of it (`c`)."""
        random = generator(self.seed, purpose=f"{NAME} {attempt}", number=number)
        self._strategy.reseed_rng(int(random.integers(2**32)))
        encoded, raw = self._strategy.ask()
        row = np.zeros(len(self.columns))
        row[self._numbers] = encoded[: len(self._numbers)]
        for place, frequencies in zip(self._names, self._frequencies, strict=True):
            row[place] = random.choice(len(frequencies), p=frequencies)
        return row, raw

    def learn(self, numbers: Sequence[int], rows: Matrix, active: Mask, losses: Vector) -> None:
        """Take in one generation (`population_size`): its trials' numbers, codes, which of them are active, and losses."""
        told = [self._recalled(*trial) for trial in zip(numbers, rows, active, strict=True)]
        with np.errstate(all="ignore"):
            self._strategy.tell([(raw, float(loss)) for (_, raw), loss in zip(told, losses, strict=True)])
        whole = np.array([row for row, _ in told])
        self._learn_names(whole[np.argsort(losses, kind="stable")[: max(len(losses) // 2, 1)]])
        if self._converged(whole):
            self.restarts += 1
            self._begin()
        # A copy's covariance is symmetric to the bit: whether a replay goes on from a copy or not must not show.
        self._strategy = deepcopy(self._strategy)

    def copied(self) -> State:
        """Another state, which may be drawn from and learn without changing this one."""
        # Columns never change, and are large.
        return deepcopy(self, {id(self.columns): self.columns})

    def _learn_names(self, better: Matrix) -> None:
        for place, frequencies in zip(self._names, self._frequencies, strict=True):
            found = np.bincount(better[:, place].astype(int), minlength=len(frequencies)) / len(better)
            kept = (frequencies - _MARGIN / len(frequencies)) / (1 - _MARGIN)
            moved = (1 - _LEARNING) * kept + _LEARNING * found
            frequencies[:] = _MARGIN / len(frequencies) + (1 - _MARGIN) * moved / moved.sum()

    def _recalled(self, number: int, row: Vector, active: Mask) -> tuple[Vector, Vector]:
        """A trial as a whole row (`d`) and as the strategy's coordinates (`c`), as it was drawn if this distribution drew it."""
        drawn, raw = self.drawn(number, 0)
        whole = np.where(active, row, drawn)
        snapped = np.array([column.snap(drawn[[place]])[0] for place, column in enumerate(self.columns)])
        if (np.abs(snapped - row)[active] > _ROUNDING).any():
            raw[: len(self._numbers)] = whole[self._numbers]
        return whole, raw

    def _converged(self, rows: Matrix) -> bool:
        if len(self._names) and (rows[:, self._names] != rows[0, self._names]).any():
            return False
        narrow = np.ptp(rows[:, self._numbers], axis=0).max(initial=0.0) < CONVERGED
        return bool(narrow or self._strategy.should_stop())


@dataclass(slots=True)
class Course:
    """One study's generations so far, and copies of the latest distributions by generation."""

    generations: list[Sequence[Observation]] = field(default_factory=list)
    copies: dict[int, State] = field(default_factory=dict)

    def shared(self, trials: Sequence[Observation]) -> int:
        """How many of these generations the trials begin with."""
        start = 0
        for place, generation in enumerate(self.generations):
            end = start + len(generation)
            if not _same(generation, trials[start:end]):
                return place
            start = end
        return len(self.generations)

    def cut(self, count: int) -> None:
        """Forget what came after so many generations."""
        del self.generations[count:]
        self.copies = {place: state for place, state in self.copies.items() if place <= count}

    def add(self, trials: Sequence[Observation], state: State) -> None:
        """Note one more generation, and what it led to."""
        self.generations.append(trials)
        self.copies[len(self.generations)] = state.copied()
        self.copies.pop(len(self.generations) - _COPIES, None)


def _same(some: Sequence[Observation], others: Sequence[Observation]) -> bool:
    # Most are the very objects. Python holds 1, 1.0 and True for equal; their written forms differ.
    pairs = zip(some, others, strict=False)
    return len(some) == len(others) and all(one is other or repr(one) == repr(other) for one, other in pairs)


class Memory:
    """The courses of the studies asked for last. To lose one costs the time of a replay, and changes nothing. Threads may share it."""

    def __init__(self) -> None:
        self._courses: OrderedDict[str, Course] = OrderedDict()
        self._lock = Lock()

    def state(self, request: SuggestRequest, deadline: Deadline) -> tuple[State, str]:
        """The distribution after all whole generations of a request's trials, or after as many as there is time for; then also why."""
        name = repr((request.seed, request.space, request.objectives, request.outcome_constraints))
        with self._lock:
            course = self._courses.pop(name, None) or Course()
        state, left = replayed(request, course, deadline)
        with self._lock:
            self._courses[name] = course
            while len(self._courses) > _COURSES:
                self._courses.popitem(last=False)
        return state, f"the time limit of {request.time_limit:g} s left no time for {left} trials" if left else ""


_MEMORY = Memory()


def replayed(request: SuggestRequest, course: Course, deadline: Deadline) -> tuple[State, int]:
    """The distribution after all whole generations of a request's trials, and how many trials there was no time for.

    What the course has of them is not replayed. It is brought up to date.
    """
    trials = sorted(request.observations, key=lambda trial: trial.number)
    encoder = Encoder.of(request.space)
    shared = course.shared(trials)
    known = max((place for place in course.copies if place <= shared), default=0)
    course.cut(known)
    state = course.copies[known].copied() if known else State(request.seed, encoder.columns)
    start = sum(map(len, course.generations))
    while start + state.population_size <= len(trials):
        if deadline.passed:
            return state, len(trials) - start
        block = trials[start : start + state.population_size]
        rows = encoder.encode([trial.parameters for trial in block])
        state.learn([trial.number for trial in block], rows, encoder.activity(rows), ranks(block, request))
        course.add(block, state)
        start += len(block)
    return state, 0


def _step(column: Column) -> float:
    """The distance between neighbouring codes; 0 for a continuum, and for whole numbers on a log scale, whose distances vary."""
    if column.size is None or isinstance(column, LogIntegers):
        return 0.0
    return 1.0 / (column.size - 1)
