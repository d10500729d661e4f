"""Questions to a study's surrogate, and what it answers. An answer is a pure function of the request and the question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from asktell.server.domain.space import Parameters
from asktell.server.domain.trial import Prediction

T = TypeVar("T")

Predictions = Mapping[str, Prediction]
"""What is expected of each objective, and of each metric with an outcome constraint that was told twice or more, by its name."""


class Question(Generic[T]):
    """Something to ask the surrogate, whose answer is a T."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Predict(Question[tuple[Predictions, ...]]):
    """What metrics are expected to be at points that were checked against the space; the noise-free values, in the points' order."""

    points: tuple[Parameters, ...]


class ImportanceMethod(Enum):
    """How importance is measured."""

    SOBOL = "sobol"
    """Total Sobol indices of the surrogate's mean over the search space."""
    PED_ANOVA = "ped-anova"
    """From the observations alone (Watanabe, Bansal and Hutter 2023)."""


@dataclass(frozen=True, slots=True)
class Importance:
    """Which share of an objective's variance, 0 to 1, is due to a parameter."""

    metric: str
    parameter: str
    share: float


@dataclass(frozen=True, slots=True)
class RankParameters(Question[tuple[Importance, ...]]):
    """How much each parameter matters: by objective in the study's order, the most important first."""

    method: ImportanceMethod


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What is expected of a trial's result by the model that learned from all others, measurement noise included."""

    number: int
    metric: str
    observed: float
    predicted: Prediction


@dataclass(frozen=True, slots=True)
class CrossValidate(Question[tuple[LeftOut, ...]]):
    """How each result is predicted from the others: by trial number, then in the order of objectives."""
