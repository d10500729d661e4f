"""Trainings that go on side by side, the worst of which take over the state of the best: population based training."""

from __future__ import annotations

from dataclasses import dataclass

from asktell.server.domain.errors import InvalidArgument

POLICY = "pbt"
"""The policy that trains a population."""
MAX_SIZE = 1_000
MAX_FACTOR = 10.0
_SLACK = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """How a population of `size` trainings evolves (Jaderberg et al. 2017).

    A member among the worst `exploit_fraction` goes on from the state of one among the best as many, with other parameters: each is drawn
    anew with `resample_probability`, else it is perturbed by `perturbation_factor`.
    """

    size: int = 8
    exploit_fraction: float = 0.25
    resample_probability: float = 0.25
    perturbation_factor: float = 1.2

    def __str__(self) -> str:
        """The population as its user wrote it."""
        return (
            f"size {self.size}, exploit_fraction {self.exploit_fraction!r}, resample_probability {self.resample_probability!r},"
            f" perturbation_factor {self.perturbation_factor!r}"
        )

    def exploiting(self, members: int) -> int:
        """How many of so many members are among the worst, and among the best."""
        return int(self.exploit_fraction * members + _SLACK)

    def validate(self) -> None:
        """Raise InvalidArgument with a path that starts at `population` if it makes no sense."""
        if not 2 <= self.size <= MAX_SIZE:
            raise InvalidArgument("population.size", f"must be from 2 to {MAX_SIZE:,}, not {self.size:,}")
        if not 0 < self.exploit_fraction <= 0.5:
            raise InvalidArgument(
                "population.exploit_fraction", f"must be above 0 and at most 0.5, not {self.exploit_fraction!r}"
            )
        if not self.exploiting(self.size):
            raise InvalidArgument(
                "population.exploit_fraction",
                f"{self.exploit_fraction!r} of {self.size} members is not one: nobody would take over another's state",
            )
        if not 0 <= self.resample_probability <= 1:
            raise InvalidArgument(
                "population.resample_probability", f"must be from 0 to 1, not {self.resample_probability!r}"
            )
        if not 1 < self.perturbation_factor <= MAX_FACTOR:
            raise InvalidArgument(
                "population.perturbation_factor",
                f"must be above 1 and at most {MAX_FACTOR:g}, not {self.perturbation_factor!r}",
            )
