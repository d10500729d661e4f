"""Where the constraints between parameters are met, and how to get there: for every policy that draws, moves or rounds points.

How a policy uses it: `Region(encoder)` for the encoder of the ask's scope (`Encoder.within(Scope.of(space, fixed))`). `allows` says which
latent rows decode to configurations that are allowed; `draw` gives random rows that are; `nearest` moves rows as little as it takes,
`repaired` a parameter at a time, and both say which are then allowed; `between` steps back from points towards allowed ones. `unbounded` says
that there is no constraint and nothing to do. A single configuration is checked by `SearchSpace.allows`; those of `Scope.configurations`, and
what `RandomDraw` gives, are allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from asktell.server.domain.constraints import ROUNDING, Inequality
from asktell.server.domain.space import number_range
from asktell.server.policies.columns import Vector
from asktell.server.policies.deadline import NEVER, Deadline
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.kernel import Indices, Mask, Matrix

BATCH = 256
"""Rows drawn at a time."""
BATCHES = 16
HOPELESS = 3
"""After so many batches more without an allowed row the search is given up."""
REPAIRED = 128
FEW = 16
"""So many rows of a batch are repaired at most, and at least."""
RARE = 0.02
"""When fewer than this share of the rows are allowed, the others are repaired rather than drawn anew."""
_SWEEPS = 6
_LEVELS = np.linspace(0.0, 1.0, 17)
_SWEEP_CELLS = 4_000_000
"""So many terms are computed in one sweep of repairs: some hundredths of a second."""
_STIRS = 2
_HALVINGS = 30
_STIR_HALVINGS = 4
_STEPS = 12


@dataclass(frozen=True, slots=True)
class Rule:
    """An inequality of columns: the sum of coefficients times the columns' numbers is at most `bound`."""

    places: tuple[int, ...]
    terms: tuple[tuple[float, tuple[int, ...]], ...]
    bound: float
    rounding: float
    """What the sum may be above the bound, as a share of its terms."""
    scale: float
    """The size of the sum over the whole space."""

    def excess(self, numbers: Matrix) -> Vector:
        """How far the sum is above the bound (`m`), in units of its size; at most 0 where the rule is met."""
        total, size = np.zeros(len(numbers)), np.zeros(len(numbers))
        for coefficient, places in self.terms:
            part = _product(coefficient, places, numbers)
            total += part
            size += np.abs(part) if self.rounding else 0.0
        return ((total - self.bound) - self.rounding * (size + abs(self.bound))) / self.scale

    def slope(self, numbers: Matrix, place: int) -> Vector:
        """The derivative of the sum by a column's number (`m`)."""
        total = np.zeros(len(numbers))
        for coefficient, places in self.terms:
            power = places.count(place)
            if power:
                rest = list(places)
                rest.remove(place)
                total = total + power * _product(coefficient, tuple(rest), numbers)
        return total


def _product(coefficient: float, places: Sequence[int], numbers: Matrix) -> Vector:
    if not places:
        return np.full(len(numbers), coefficient)
    product = coefficient * numbers[:, places[0]]
    for place in places[1:]:
        product *= numbers[:, place]
    return product


def _places(rules: Iterable[Rule]) -> list[int]:
    return sorted({place for rule in rules for place in rule.places})


class Region:
    """The rows of an encoder that meet the constraints of its space. After the deadline, draws and repairs make do with what they have, if
    that is a row at least.
    """

    def __init__(self, encoder: Encoder, deadline: Deadline = NEVER) -> None:
        self._encoder, self._deadline = encoder, deadline
        inequalities = [one for constraint in encoder.space.constraints for one in constraint.inequalities]
        self._rules = [self._rule(inequality) for inequality in inequalities]

    @property
    def unbounded(self) -> bool:
        """Whether every row is allowed."""
        return not self._rules

    @cached_property
    def places(self) -> Indices:
        """The columns that constraints mention and that have a choice of values."""
        return np.array(
            [place for place in _places(self._rules) if self._encoder.columns[place].size != 1], dtype=np.intp
        )

    @cached_property
    def _effort(self) -> int:
        """How many terms are computed to repair one row once."""
        rules = {place: self._those(self._about[place]) for place in self.places.tolist()}
        terms = {place: sum(len(rule.terms) for rule in some) for place, some in rules.items()}
        return max(1, sum((len(_LEVELS) + 5 * len(some)) * terms[place] for place, some in rules.items()))

    @cached_property
    def _about(self) -> dict[int, list[int]]:
        """The numbers of the rules that mention each column."""
        found: dict[int, list[int]] = {place: [] for place in self.places.tolist()}
        for number, rule in enumerate(self._rules):
            for place in found.keys() & rule.places:
                found[place].append(number)
        return found

    @cached_property
    def _deciding(self) -> Indices:
        """The columns that decide about others' activity."""
        return np.flatnonzero(self._encoder.parents)

    def allows(self, latent: Matrix) -> Mask:
        """Which latent rows (`m x d`) decode to configurations that meet all constraints (`m`)."""
        return self._met(self._rules, latent)

    def _met(self, rules: Sequence[Rule], latent: Matrix) -> Mask:
        """Which latent rows meet some of the rules (`m`)."""
        met: Mask = np.logical_not(self._broken(rules, latent).any(axis=1))
        return met

    def _broken(self, rules: Sequence[Rule], latent: Matrix) -> Mask:
        """Which of some rules the latent rows break (`m x r`). Only the columns that these look at are rounded."""
        if not rules:
            return np.zeros((len(latent), 0), dtype=np.bool_)
        snapped = latent.copy()
        for place in {*_places(rules), *self._deciding.tolist()}:
            snapped[:, place] = self._encoder.columns[place].snap(latent[:, place])
        kept: Mask = self._excess_of(rules, snapped, self._numbers(rules, snapped)) <= 0.0
        return ~kept

    def _telling(self, place: int) -> Sequence[int]:
        """The numbers of the rules of which another may be broken when a column alone changes."""
        return range(len(self._rules)) if self._encoder.parents[place] else self._about[place]

    def _those(self, numbers: Sequence[int]) -> list[Rule]:
        return [self._rules[number] for number in numbers]

    def draw(self, random: np.random.Generator, count: int) -> Matrix:
        """Up to `count` latent rows that are allowed (`m x d`): as drawn if enough of those are, else also repaired and stirred. Fewer, or
        none, if none is found within a bounded number of steps.
        """
        found: list[Matrix] = []
        for batch in range(BATCHES):
            rows = self._encoder.draw(random.random((max(BATCH, count), len(self._encoder.columns))))
            allowed = self.allows(rows)
            found.append(rows[allowed])
            if batch and allowed.mean() < RARE and sum(map(len, found)) < count:
                some = max(1, min(max(2 * count, FEW), REPAIRED, _SWEEP_CELLS // self._effort))
                found.append(self._stirred(random, *self.repaired(rows[~allowed][:some], random)))
            many = sum(map(len, found))
            if many >= count or (not many and batch == HOPELESS) or (many and self._deadline.passed):
                break
        return np.concatenate(found)[:count]

    def repaired(self, latent: Matrix, random: np.random.Generator) -> tuple[Matrix, Mask]:
        """The rows, rounded, with constrained parameters moved one at a time to where the constraints are met or broken least, the nearest
        such value first; and which of them are then allowed.
        """
        rows = self._encoder.snap(latent)
        broken = self._broken(self._rules, rows)
        bad = int(broken.any(axis=1).sum())
        for _ in range(_SWEEPS if bad * self._effort <= 4 * _SWEEP_CELLS else 1):
            for place in random.permutation(self.places).tolist():
                bad = int(broken.any(axis=1).sum())
                if not bad or (bad < len(rows) and self._deadline.passed):
                    break
                self._repair(rows, broken, place)
        return rows, np.logical_not(broken.any(axis=1))

    def _repair(self, rows: Matrix, broken: Mask, place: int) -> None:
        """Move a column of the rows in which a rule that mentions it is broken (`m x r`): in others its value is the best there is."""
        chosen = np.flatnonzero(broken[:, self._about[place]].any(axis=1))
        if len(chosen):
            rows[chosen] = self._moved(rows[chosen], place)
            telling = self._telling(place)
            broken[chosen[:, None], telling] = self._broken(self._those(telling), rows[chosen])

    def nearest(self, latent: Matrix, random: np.random.Generator) -> tuple[Matrix, Mask]:
        """The rows, rounded, at about the nearest allowed points: led there together in all numbers, then repaired; and which are allowed."""
        movable = np.zeros(latent.shape[1], dtype=np.bool_)
        movable[self.places] = ~self._encoder.nominal[self.places]
        return self.repaired(self.projected(latent, np.broadcast_to(movable, latent.shape)), random)

    def between(self, inner: Matrix, outer: Matrix, *, halvings: int = _HALVINGS) -> Matrix:
        """On the way from each of the rows `inner`, which are allowed, to `outer`, the last that is found allowed by halving. Not rounded."""
        return self._between(self._rules, inner, outer, halvings=halvings)

    def _between(self, rules: Sequence[Rule], inner: Matrix, outer: Matrix, *, halvings: int) -> Matrix:
        """The same where only some of the rules may be broken on the way."""
        rows, length = outer.copy(), np.ones(len(outer))
        bad = np.flatnonzero(~self._met(rules, rows))
        for _ in range(halvings):
            if not len(bad):
                return rows
            length[bad] /= 2.0
            rows[bad] = inner[bad] + length[bad, None] * (outer[bad] - inner[bad])
            bad = bad[~self._met(rules, rows[bad])]
        rows[bad] = inner[bad]
        return rows

    def projected(self, latent: Matrix, free: Mask) -> Matrix:
        """The rows moved in their free coordinates (`m x d`), against the slopes of the constraints that they break, to about the nearest
        point that breaks none; numbers are taken for real ones. They may still break some by a little.
        """
        rows = latent.copy()
        for _ in range(_STEPS):
            bad = np.flatnonzero(~self.allows(rows))
            if not len(bad):
                break
            rows[bad] = self._stepped(rows[bad], free[bad])
        return rows

    def _rule(self, inequality: Inequality) -> Rule:
        place = {spec.name: index for index, spec in enumerate(self._encoder.space)}
        terms = tuple((float(term.coefficient), tuple(place[name] for name in term.names)) for term in inequality.terms)
        places = tuple(sorted({index for _, indices in terms for index in indices}))
        columns = [self._encoder.columns[index] for index in places]
        sizes = [
            abs(coefficient) * float(np.prod([self._largest(index) for index in indices]))
            for coefficient, indices in terms
        ]
        # Of real numbers there are others beside those that break a constraint by rounding.
        rounding = 0.0 if any(column.size is None for column in columns) else ROUNDING
        return Rule(places, terms, float(inequality.bound), rounding, max(sum(sizes), abs(inequality.bound)) or 1.0)

    def _largest(self, place: int) -> float:
        low, high = number_range(list(self._encoder.space)[place]) or (0.0, 0.0)
        return float(max(abs(low), abs(high)))

    def _numbers(self, rules: Sequence[Rule], snapped: Matrix) -> Matrix:
        """The numbers of the columns that rules mention (`m x d`), and 0 of the others."""
        numbers = np.zeros_like(snapped)
        for place in _places(rules):
            numbers[:, place] = self._encoder.columns[place].numbers(snapped[:, place])
        return numbers

    def _excess_of(self, rules: Sequence[Rule], snapped: Matrix, numbers: Matrix) -> Matrix:
        """How much each rule is broken (`m x r`); one that mentions what is inactive is not."""
        excess = np.stack([rule.excess(numbers) for rule in rules], axis=1)
        if self._encoder.conditional:
            active = self._encoder.activity(snapped)
            for index, rule in enumerate(rules):
                excess[~active[:, list(rule.places)].all(axis=1), index] = 0.0
        return excess

    def _moved(self, rows: Matrix, place: int) -> Matrix:
        """The rows, each with the column's value by which constraints are broken least: of several the nearest."""
        rules, codes = self._those(self._about[place]), self._encoder.columns[place]
        numbers = self._numbers(rules, rows)
        options = self._options(rows, numbers, rules, place)
        many = options.shape[1]
        varied, numbers = np.repeat(rows, many, axis=0), np.repeat(numbers, many, axis=0)
        varied[:, place] = options.ravel()
        numbers[:, place] = codes.numbers(varied[:, place])
        excess = self._excess_of(rules, varied, numbers)
        broken = np.maximum(np.where(np.isnan(excess), np.inf, excess), 0.0).sum(axis=1).reshape(options.shape)
        least = broken == broken.min(axis=1, keepdims=True)
        chosen = np.where(least, np.abs(options - rows[:, [place]]), np.inf).argmin(axis=1)
        moved = rows.copy()
        moved[:, place] = options[np.arange(len(rows)), chosen]
        return moved

    def _options(self, rows: Matrix, numbers: Matrix, rules: Sequence[Rule], place: int) -> Matrix:
        """Codes worth trying for a column (`m x k`): where each rule would just be met, and an even spread."""
        codes = self._encoder.columns[place]
        found = [rows[:, [place]], np.tile(_LEVELS, (len(rows), 1))]
        for rule in rules:
            # Of a real number a little more than to the boundary, where the order of the sum would decide.
            spare = 0.0 if codes.size else ROUNDING
            slope, over = rule.slope(numbers, place), (rule.excess(numbers) + spare) * rule.scale
            steps = np.divide(over, slope, out=np.zeros_like(over), where=np.abs(slope) > 0.0)
            found.append(codes.codes_near(numbers[:, place] - np.where(np.isfinite(steps), steps, 0.0)))
        options = np.concatenate(found, axis=1)
        return codes.snap(options.ravel()).reshape(options.shape)

    def _stirred(self, random: np.random.Generator, rows: Matrix, allowed: Mask) -> Matrix:
        """The allowed rows, moved at random: each constrained column in turn, then along the differences of others (ter Braak 2006), which lie
        in the set of allowed points however thin it is.
        """
        rows = rows[allowed]
        for _ in range(_STIRS if len(rows) else 0):
            for place in random.permutation(self.places):
                if self._deadline.passed:
                    return rows
                tried = rows.copy()
                tried[:, place] = self._encoder.columns[place].draw(random.random(len(rows)))
                rows = self._between(self._those(self._telling(int(place))), rows, tried, halvings=_STIR_HALVINGS)
                rows[:, place] = self._encoder.columns[place].snap(rows[:, place])
            one, other = random.integers(len(rows), size=(2, len(rows)))
            difference = (rows[one] - rows[other]) * random.uniform(-1.0, 1.0, (len(rows), 1))
            moved = np.clip(rows + difference, 0.0, 1.0)
            tried = rows.copy()
            tried[:, self.places] = moved[:, self.places]
            rows = self._encoder.snap(self.between(rows, tried, halvings=_STIR_HALVINGS))
        return rows

    def _stepped(self, rows: Matrix, free: Mask) -> Matrix:
        """The rows after a Newton step towards the boundary of the constraint that each breaks most."""
        snapped = self._encoder.snap(rows)
        numbers = self._numbers(self._rules, snapped)
        excess = self._excess_of(self._rules, snapped, numbers)
        worst = excess.argmax(axis=1)
        slopes = np.zeros_like(rows)
        for index, rule in enumerate(self._rules):
            chosen = np.flatnonzero(worst == index)
            for place in rule.places if len(chosen) else ():
                slopes[chosen, place] = rule.slope(numbers[chosen], place) * self._stretch(rows[chosen], place)
        slopes = np.where(free, slopes, 0.0)
        steep = (slopes**2).sum(axis=1)
        over = excess.max(axis=1) * np.array([rule.scale for rule in self._rules])[worst]
        # A little more than to the boundary, where rounding would decide.
        length = np.divide(over * (1.0 + 1e-9), steep, out=np.zeros_like(over), where=steep > 0.0)
        moved: Matrix = np.where(slopes == 0.0, rows, np.clip(rows - length[:, None] * slopes, 0.0, 1.0))
        return moved

    def _stretch(self, rows: Matrix, place: int) -> Vector:
        """How fast a column's numbers change with its codes (`m`)."""
        codes = self._encoder.columns[place]
        low, high = np.maximum(rows[:, place] - 0.01, 0.0), np.minimum(rows[:, place] + 0.01, 1.0)
        gap = codes.numbers(codes.snap(high)) - codes.numbers(codes.snap(low))
        whole = float(np.ptp(codes.numbers(codes.snap(np.array([0.0, 1.0])))))
        return np.where(gap > 0.0, gap / np.maximum(high - low, 1e-12), whole)
