"""Optuna's distributions as asktell's parameters, and values of one as values of the other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from asktell.client import Bool, Categorical, Float, Int, Ordinal, ParameterSpec, ParameterValue
from asktell.integrations.choices import MOST_CHOICES, are_plain, position, wire_name

MAX_RANGES: Final = 4
"""How many ranges a parameter may have had. One whose range depends on others would make a study of each."""

_LARGEST_INTEGER = 2**53


@dataclass(frozen=True, slots=True)
class Dial:
    """A parameter of Optuna's, and the one of asktell's that stands for it."""

    name: str
    distribution: BaseDistribution
    spec: ParameterSpec

    def sent(self, value: Any) -> ParameterValue:
        """Optuna's value as asktell's. ValueError outside of the range."""
        internal = self.distribution.to_internal_repr(value)
        if not self.distribution._contains(internal):  # noqa: SLF001 - what Optuna's own samplers ask.
            raise ValueError(f"{value!r} is outside {self.distribution}")
        match self.distribution:
            case FloatDistribution():
                return float(value)
            case IntDistribution():
                return int(value)
        return self._offered()[position(value, self._choices(), otherwise=int(internal))]

    def received(self, value: ParameterValue) -> Any:
        """asktell's value as Optuna's: of a choice the very object that the user gave."""
        match self.distribution:
            case FloatDistribution(low=low, high=high) if isinstance(value, float | int):
                return min(max(float(value), low), high)
            case CategoricalDistribution():
                return self._choices()[position(value, self._offered(), otherwise=0)]
        return value

    def agrees(self, value: ParameterValue, used: Any) -> bool:
        """Whether what Optuna keeps of asktell's value is what was used. Of choices it keeps the first that is equal: of 1 and True, 1."""
        return self.distribution.to_internal_repr(self.received(value)) == self.distribution.to_internal_repr(used)

    def _choices(self) -> Sequence[Any]:
        return self.distribution.choices if isinstance(self.distribution, CategoricalDistribution) else ()

    def _offered(self) -> Sequence[ParameterValue]:
        """What asktell has in the place of each of Optuna's choices."""
        match self.spec:
            case Categorical(choices=values) | Ordinal(values=values):
                return values
        return (False, True)


@dataclass(frozen=True, slots=True)
class Space:
    """The parameters that asktell chooses together."""

    dials: tuple[Dial, ...]

    @classmethod
    def of(cls, distributions: Mapping[str, BaseDistribution]) -> Space:
        """The space of those distributions that leave a choice and that asktell can hold."""
        dials = (make_dial(name, distribution) for name, distribution in sorted(distributions.items()))
        return cls(tuple(dial for dial in dials if dial is not None))

    @classmethod
    def declared(cls, parameters: Iterable[ParameterSpec]) -> Space:
        """The space of asktell's own parameters, which may exist only under conditions."""
        return cls(tuple(Dial(spec.name, distribution_of(spec), spec) for spec in parameters))

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """By Optuna's names."""
        return {dial.name: dial.distribution for dial in self.dials}

    @property
    def parameters(self) -> list[ParameterSpec]:
        """What asktell's study is made of."""
        return [dial.spec for dial in self.dials]

    def only(self, names: Iterable[str]) -> Space:
        """The space without the other parameters, and without what exists only under one of those."""
        kept = set(names)
        while (fewer := self._supported(kept)) != kept:
            kept = fewer
        return Space(tuple(dial for dial in self.dials if dial.name in kept))

    def _supported(self, names: set[str]) -> set[str]:
        return {
            dial.name
            for dial in self.dials
            if dial.name in names and (dial.spec.when is None or dial.spec.when[0] in names)
        }

    def sent(self, values: Mapping[str, Any]) -> dict[str, ParameterValue]:
        """A whole configuration as asktell takes it: the active parameters. ValueError if it lies outside or lacks one."""
        found: dict[str, ParameterValue] = {}
        for dial in self._parents_first():
            if dial.spec.when is None or _holds(dial.spec.when, found):
                if dial.name not in values:
                    raise ValueError(f"{dial.name!r} is missing")
                found[dial.spec.name] = dial.sent(values[dial.name])
        return found

    def fixed(self, values: Mapping[str, Any]) -> dict[str, ParameterValue]:
        """Those of some values that the space has, in its range."""
        found: dict[str, ParameterValue] = {}
        for dial in self.dials:
            if dial.name in values:
                try:
                    found[dial.spec.name] = dial.sent(values[dial.name])
                except ValueError:
                    continue
        return found

    def received(self, parameters: Mapping[str, ParameterValue]) -> dict[str, Any]:
        """asktell's configuration by Optuna's names."""
        return {
            dial.name: dial.received(parameters[dial.spec.name]) for dial in self.dials if dial.spec.name in parameters
        }

    def agrees(self, parameters: Mapping[str, ParameterValue], used: Mapping[str, Any]) -> bool:
        """Whether a trial used what asktell chose, where it used a parameter at all."""
        return all(
            dial.agrees(parameters[dial.spec.name], used[dial.name])
            for dial in self.dials
            if dial.spec.name in parameters and dial.name in used
        )

    def _parents_first(self) -> list[Dial]:
        ordered: dict[str, Dial] = {}
        waiting = list(self.dials)
        while waiting:
            ready = [dial for dial in waiting if dial.spec.when is None or dial.spec.when[0] in ordered]
            if not ready:
                return list(ordered.values())
            ordered |= {dial.spec.name: dial for dial in ready}
            waiting = [dial for dial in waiting if dial.spec.name not in ordered]
        return list(ordered.values())


def common_space(trials: Sequence[FrozenTrial]) -> Space:
    """The parameters of all complete trials, each with its latest range; without those that had more than `MAX_RANGES` ranges.

    Optuna's intersection search space has no parameter whose range ever changed.
    """
    ranges: dict[str, list[BaseDistribution]] | None = None
    for trial in reversed(trials):
        if trial.state is not TrialState.COMPLETE:
            continue
        if ranges is None:
            ranges = {name: [distribution] for name, distribution in trial.distributions.items()}
        ranges = {name: seen for name, seen in ranges.items() if name in trial.distributions}
        for name, seen in ranges.items():
            if len(seen) <= MAX_RANGES and trial.distributions[name] not in seen:
                seen.append(trial.distributions[name])
    return Space.of({name: seen[0] for name, seen in (ranges or {}).items() if len(seen) <= MAX_RANGES})


def make_dial(name: str, distribution: BaseDistribution) -> Dial | None:
    """A distribution as a parameter; None if it has one value only, or is one that asktell cannot hold."""
    if distribution.single():
        return None
    spec = _spec(wire_name(name), distribution)
    return None if spec is None else Dial(name, distribution, spec)


def distribution_of(spec: ParameterSpec) -> BaseDistribution:
    """asktell's parameter as the distribution that a trial suggests it by."""
    match spec:
        case Float():
            return FloatDistribution(spec.low, spec.high, log=spec.log, step=spec.step)
        case Int():
            return IntDistribution(spec.low, spec.high, log=spec.log, step=spec.step or 1)
        case Categorical():
            return CategoricalDistribution(spec.choices)
        case Bool():
            return CategoricalDistribution((False, True))
        case Ordinal():
            return CategoricalDistribution(spec.values)


def _spec(name: str, distribution: BaseDistribution) -> ParameterSpec | None:
    match distribution:
        case FloatDistribution(low=low, high=high, log=log, step=step):
            return Float(name, low, high, log=log, step=step) if math.isfinite(high - low) else None
        case IntDistribution(low=low, high=high, log=log, step=step):
            small = max(abs(low), abs(high)) <= _LARGEST_INTEGER
            return Int(name, low, high, log=log, step=None if step == 1 else step) if small else None
        case CategoricalDistribution(choices=choices) if len(choices) <= MOST_CHOICES:
            return Categorical(name, choices if are_plain(choices) else range(len(choices)))
    return None


def _holds(when: tuple[str, Sequence[ParameterValue]], parameters: Mapping[str, ParameterValue]) -> bool:
    parent, values = when
    return parent in parameters and any(
        type(each) is type(parameters[parent]) and each == parameters[parent] for each in values
    )
