"""Trainings whose best parameters change while they train, for population based training.

`quadratic` is the toy of Jaderberg et al. 2017 (figure 2): ascent on a surrogate of `1.2 - |theta|^2` whose two weights are the
hyper-parameters, which here share one budget. `noisy` is descent by momentum on a noisy quadratic (Schaul et al. 2013; Zhang et al. 2019):
a high learning rate gains ground, a low one loses less of it to noise, so that the best rate falls as training goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from asktell.server.domain.constraints import InputConstraint
from asktell.server.domain.space import Float, Parameters, SearchSpace

Vector = npt.NDArray[np.float64]

START = 0.9
ASCENT = 0.02
DIMENSIONS = 20
NOISE = 1.0
CURVATURES: Vector = np.geomspace(0.02, 1.0, DIMENSIONS)


@dataclass(frozen=True, slots=True)
class State:
    """What a checkpoint holds: the weights (`d`), their momentum (`d`), and how many steps they were trained for."""

    weights: Vector
    momentum: Vector
    steps: int = 0


@dataclass(frozen=True, slots=True)
class Schedule:
    """A training: its hyper-parameters, where it starts, one step of it, and its loss, at least 0, of which less is better."""

    name: str
    space: SearchSpace
    start: Callable[[], State]
    step: Callable[[State, Parameters, np.random.Generator], State]
    loss: Callable[[State], float]

    def trained(self, state: State, parameters: Parameters, random: np.random.Generator, *, steps: int) -> State:
        """The state after so many more steps."""
        for _ in range(steps):
            state = self.step(state, parameters, random)
        return state


def _ascended(state: State, parameters: Parameters, _: np.random.Generator) -> State:
    shares = np.array([_number(parameters, "h0"), _number(parameters, "h1")])
    return replace(state, weights=state.weights * (1 - 2 * ASCENT * shares), steps=state.steps + 1)


def _descended(state: State, parameters: Parameters, random: np.random.Generator) -> State:
    gradient = CURVATURES * state.weights + NOISE * np.sqrt(CURVATURES) * random.normal(size=DIMENSIONS)
    momentum = _number(parameters, "momentum") * state.momentum + gradient
    weights = np.clip(state.weights - _number(parameters, "rate") * momentum, -1e6, 1e6)
    return State(weights, np.clip(momentum, -1e6, 1e6), state.steps + 1)


def _number(parameters: Parameters, name: str) -> float:
    found = parameters[name]
    if not isinstance(found, float):
        raise TypeError(f"{name} is {found!r}, not a real number")
    return found


QUADRATIC = Schedule(
    "quadratic",
    SearchSpace(
        (Float(name="h0", low=0.0, high=1.0), Float(name="h1", low=0.0, high=1.0)),
        (InputConstraint.parse("h0 + h1 <= 1"),),
    ),
    lambda: State(np.full(2, START), np.zeros(2)),
    _ascended,
    lambda state: float((state.weights**2).sum()),
)
NOISY = Schedule(
    "noisy",
    SearchSpace((Float(name="rate", low=1e-4, high=1.0, log=True), Float(name="momentum", low=0.0, high=0.95))),
    lambda: State(np.full(DIMENSIONS, 10.0), np.zeros(DIMENSIONS)),
    _descended,
    lambda state: float((CURVATURES * state.weights**2).mean() / 2),
)
SCHEDULES: Mapping[str, Schedule] = {schedule.name: schedule for schedule in (QUADRATIC, NOISY)}
