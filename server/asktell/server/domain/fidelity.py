"""The parameter that makes a trial cheaper, such as a number of epochs, and the rungs on which it rises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from asktell.server.domain.errors import InvalidArgument
from asktell.server.domain.space import Float, Int, Parameters, ParameterSpec, ParameterValue, SearchSpace
from asktell.server.domain.text import excerpt

DEFAULT_REDUCTION = 3
MAX_REDUCTION = 1_000
MAX_RUNGS = 64
POLICIES = ("auto", "gp", "gp-botorch", "random", "sobol")
"""The policies that can start configurations at the lowest rung: for others a result there would be as good as one at the highest."""

_SLACK = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """New configurations start at the lowest rung of `parameter`; of those that came to a rung, the best `1 / reduction_factor` go on.

    The rungs are the parameter's highest value and that divided by the factor again and again, down to its lowest.
    """

    parameter: str
    reduction_factor: int = DEFAULT_REDUCTION

    def __str__(self) -> str:
        """The fidelity as its user wrote it."""
        return f"{self.parameter}, reduction_factor {self.reduction_factor}"

    def rungs(self, space: SearchSpace) -> tuple[float | int, ...]:
        """The rungs, at least two, the lowest first: `high / reduction_factor ** k`, on the parameter's grid, whole numbers rounded."""
        spec = self._spec(space)
        rungs = dict.fromkeys(_nearest(spec, rung) for rung in _quotients(spec, self.reduction_factor))
        return tuple(reversed(rungs))

    def level(self, parameters: Parameters) -> float | int:
        """The value of the parameter in a configuration."""
        value = parameters[self.parameter]
        if not isinstance(value, float | int):
            raise TypeError(f"{self.parameter} is {value!r}, not a number")
        return value

    def at(self, parameters: Parameters, value: ParameterValue) -> dict[str, ParameterValue]:
        """The same configuration at another fidelity."""
        return {**parameters, self.parameter: value}

    def validate(self, space: SearchSpace) -> None:
        """Raise InvalidArgument with a path that starts at `fidelity` if it makes no sense in the space."""
        if not 2 <= self.reduction_factor <= MAX_REDUCTION:
            raise InvalidArgument(
                "fidelity.reduction_factor", f"must be from 2 to {MAX_REDUCTION:,}, not {self.reduction_factor:,}"
            )
        spec = self._spec(space)
        count = sum(1 for _ in _quotients(spec, self.reduction_factor))
        if count > MAX_RUNGS:
            raise InvalidArgument("fidelity.parameter", f"{excerpt(self.parameter)} has more than {MAX_RUNGS} rungs")
        if len(self.rungs(space)) < 2:
            raise InvalidArgument(
                "fidelity.reduction_factor",
                f"leaves one rung: {self.parameter} is at most {spec.high!r}, and a {self.reduction_factor}th of that is below"
                f" its lowest value, {spec.low!r}",
            )

    def _spec(self, space: SearchSpace) -> Float | Int:
        """The parameter's spec, or InvalidArgument for one that cannot be raised by rungs."""
        spec = next((each for each in space if each.name == self.parameter), None)
        if spec is None:
            raise InvalidArgument("fidelity.parameter", f"{excerpt(self.parameter)} is not a parameter of the study")
        if not isinstance(spec, Float | Int):
            raise InvalidArgument("fidelity.parameter", f"{self.parameter!r} is neither a float nor an int")
        if spec.low <= 0:
            raise InvalidArgument(
                "fidelity.parameter",
                f"{self.parameter!r} must be above 0, not from {spec.low!r}: there is no lowest rung",
            )
        reason = _entangled(spec, space)
        if reason:
            raise InvalidArgument(
                "fidelity.parameter", f"{self.parameter!r} {reason}: every trial has to have any rung"
            )
        return spec

    def check_kept(self, before: SearchSpace, parameters: Sequence[ParameterSpec]) -> None:
        """Raise InvalidArgument, with a path that starts at `parameters`, if a wider space has another range of the fidelity: earlier trials
        would stand between its rungs.
        """
        old = before[self.parameter]
        for index, new in enumerate(parameters):
            if new.name != self.parameter or not isinstance(new, Float | Int) or not isinstance(old, Float | Int):
                continue
            for bound in ("low", "high"):
                if getattr(new, bound) != getattr(old, bound):
                    kind = type(old).__name__.lower()
                    raise InvalidArgument(
                        f"parameters[{index}].{kind}_spec.{bound}",
                        f"{self.parameter!r} is the study's fidelity, and keeps its range",
                    )


def _entangled(spec: ParameterSpec, space: SearchSpace) -> str:
    """Which part of the space ties the parameter to others; empty if none does."""
    if spec.when is not None:
        return f"is active only under some values of {spec.when.parent!r}"
    if any(spec.name in constraint.names for constraint in space.constraints):
        return "is in an input constraint"
    child = next((each.name for each in space if each.when is not None and each.when.parent == spec.name), None)
    return "" if child is None else f"decides whether {child!r} is active"


def _quotients(spec: Float | Int, factor: int) -> list[float]:
    """`high / factor ** k` down to the lowest value; one more than MAX_RUNGS at most."""
    found: list[float] = []
    while len(found) <= MAX_RUNGS and (rung := spec.high / factor ** len(found)) >= spec.low * (1 - _SLACK):
        found.append(rung)
    return found


def _nearest(spec: Float | Int, value: float) -> float | int:
    """The value on the parameter's grid that is nearest, within its range."""
    step = spec.step if spec.step is not None else 1 if isinstance(spec, Int) else None
    if step is None:
        return min(max(value, spec.low), spec.high)
    most = int((spec.high - spec.low) / step + _SLACK)
    near = spec.low + min(max(round((value - spec.low) / step), 0), most) * step
    return spec.check(min(near, spec.high))
