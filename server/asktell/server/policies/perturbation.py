"""How a member of a population explores: parameters near those of the member whose state it takes over."""

from __future__ import annotations

import math

import numpy as np

from asktell.server.domain.population import Population
from asktell.server.domain.space import Float, Int, Ordinal, Parameters, ParameterSpec, ParameterValue
from asktell.server.policies.columns import Column, Vector
from asktell.server.policies.deadline import NEVER, Deadline
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.region import Region
from asktell.server.policies.scope import Scope

_ANY = 1e-12


class Explorer:
    """Perturbs and resamples configurations within a scope (Jaderberg et al. 2017, section 4)."""

    def __init__(self, scope: Scope, population: Population, deadline: Deadline = NEVER) -> None:
        self._population = population
        self._space = scope.space
        self._whole, self._encoder = Encoder.of(scope.space), Encoder.within(scope)
        self._region = Region(self._encoder, deadline)

    def explored(self, parameters: Parameters, random: np.random.Generator) -> dict[str, ParameterValue] | None:
        """A configuration near the given one that meets the constraints; None if none was found."""
        return self._settled(self._moved(self._latent(parameters, random), random), random)

    def placed(self, parameters: Parameters, random: np.random.Generator) -> dict[str, ParameterValue] | None:
        """The configuration itself, as far as the scope and the constraints allow it; None if nothing allowed was found."""
        return self._settled(self._latent(parameters, random), random)

    def _settled(self, latent: Vector, random: np.random.Generator) -> dict[str, ParameterValue] | None:
        row = latent[None]
        if not self._region.unbounded:
            row, _ = self._region.repaired(row, random)
        found = self._encoder.decode(self._encoder.settle(row)[0])
        return found if self._space.allows(found) else None

    def _latent(self, parameters: Parameters, random: np.random.Generator) -> Vector:
        """The configuration as a latent row (`d`): what is inactive has a value that was drawn."""
        settled = self._whole.encode([parameters])
        drawn = self._encoder.draw(random.random(settled.shape))
        latent: Vector = np.where(self._whole.activity(settled), settled, drawn)[0]
        return latent

    def _moved(self, latent: Vector, random: np.random.Generator) -> Vector:
        drawn = self._encoder.draw(random.random((1, len(latent))))[0]
        anew = random.random(len(latent)) < self._population.resample_probability
        up = random.random(len(latent)) < 0.5
        moved = [
            perturbed(spec, column, float(code), factor=self._population.perturbation_factor, up=bool(way))
            for spec, column, code, way in zip(self._space, self._encoder.columns, latent, up, strict=True)
        ]
        return np.where(anew, drawn, moved)


def perturbed(spec: ParameterSpec, column: Column, code: float, *, factor: float, up: bool) -> float:
    """The code of the value a step above or below the one of `code`, or on the other side at the end of the range.

    The step is the factor on a log scale, `(factor - 1) / 2` of the range on any other, and at least one level. A choice stays.
    """
    if column.nominal or spec.size == 1:
        return code
    step = _step(spec, factor)
    ways = (step, -step) if up else (-step, step)
    return next((moved for way in ways if (moved := _towards(column, code, way)) != code), code)


def _step(spec: ParameterSpec, factor: float) -> float:
    """How far a perturbation goes, in units of the range."""
    match spec:
        case Float(log=True) | Int(log=True):
            return math.log(factor) / (math.log(spec.high) - math.log(spec.low))
        case Ordinal():
            return 1.0 / (len(spec.values) - 1)
        case _:
            return (factor - 1.0) / 2.0


def _towards(column: Column, code: float, step: float) -> float:
    """The code of the value that is `step` away, or of the nearest value in that direction; the same code at the end of the range."""
    moved = float(column.snap(np.array([min(max(code + step, 0.0), 1.0)]))[0])
    if (moved - code) * step > 0:
        return moved
    others = column.alternatives(code)
    beyond = others[(others - code) * math.copysign(1.0, step) > _ANY]
    return float(beyond[np.argmin(np.abs(beyond - code))]) if len(beyond) else code
