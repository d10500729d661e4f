"""What the default policy is made of. The benchmarks take ingredients away to show what each one brings."""

from __future__ import annotations

from dataclasses import dataclass

from asktell.server.policies.labels import Shape


@dataclass(frozen=True, slots=True)
class Member:
    """One of the models that the acquisition is averaged over: how its labels are warped, and whether it has a trend."""

    shape: Shape = Shape.HALF
    trend: bool = False


@dataclass(frozen=True, slots=True)
class Recipe:
    """The ingredients of the default policy.

    `front_members` model each of two to four objectives: they have one shape, and so one unit; without `hypervolume` so few are scalarised,
    as more are. `temper`: to which power a member's evidence is its weight, 0 for equal weights. `explores`: every other trial of a
    stagnant search asks for more than the incumbent. `fantasies`: in how many ways pending trials are imagined to end. `classifies`: where
    trials fail is learned. `few_failures`: so many that may be chance are imputed; more get a model, as others do from the first on. With
    one, only those are imputed whose probability to fail, given all other trials, is above the share that fails by `chance` less `trust`
    times the share of the variance that such predictions explain.
    `limit_trend`: models of outcome constraints have a trend. `divergences`: losses far beyond all others are failures to the model of
    these, and nothing to the objective's. `widens`: the objective's deviations are multiplied by how much farther than foretold the later
    half of its results was, where all trials have results of one kind.
    """

    members: tuple[Member, ...] = (Member(Shape.HALF), Member(Shape.FENCE, trend=True))
    front_members: tuple[Member, ...] = (Member(Shape.HALF), Member(Shape.HALF, trend=True))
    temper: float = 0.3
    explores: bool = True
    fantasies: int = 16
    classifies: bool = True
    few_failures: int = 2
    chance: float = 0.1
    trust: float = 0.25
    hypervolume: bool = True
    limit_trend: bool = True
    divergences: bool = True
    widens: bool = True


STANDARD = Recipe()
