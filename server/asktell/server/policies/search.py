"""The search for an acquisition's maximum over a mixed space."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from asktell.server.policies.acquisition import Acquisition
from asktell.server.policies.ascent import ascend
from asktell.server.policies.columns import Vector
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.draws import generator, spread
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.kernel import Indices, Mask, Matrix
from asktell.server.policies.region import Region

SPREAD_POINTS = 384
LOCAL_POINTS = 384
REPLACED_POINTS = 128
"""So many at most of the points that constraints forbid are replaced by others: each takes longer than to score ten."""
STARTS = 8
KEPT = 5
_CELLS = 500_000
"""So many features are scored at a time."""
_APART = 0.02
_CALLS = 30


Asked = Callable[[Vector], Acquisition]
"""The acquisition of rows of which each asks for its own ambition (`m`)."""


class OutOfTimeError(Exception):
    """The time limit was reached within a computation."""


@dataclass(frozen=True, slots=True)
class Optima:
    """Latent rows, best first, with their acquisition; `early` if the deadline ended the search."""

    rows: Matrix
    values: Vector
    early: bool

    @classmethod
    def ranked(cls, rows: Matrix, values: Vector, *, early: bool) -> Optima:
        """The rows in the order of their values."""
        order = np.argsort(-values, kind="stable")
        return cls(rows[order], values[order], early)


@dataclass(frozen=True, slots=True)
class Ground:
    """Where searches of one trial start from: latent rows (`m x d`) rounded to values, the same settled, and their features (`m x D`).

    Nothing of it changes, so that what is believed of it may be kept from one search to the next.
    """

    latent: Matrix
    settled: Matrix
    features: Matrix

    @classmethod
    def of(cls, raw: Matrix, encoder: Encoder, whole: Encoder) -> Ground:
        """The ground of raw latent rows; encoders as `Search` takes them."""
        latent = encoder.snap(raw)
        settled = encoder.settle(latent)
        features = whole.features(settled)
        features.flags.writeable = False
        return cls(latent, settled, features)


class Search:
    """Maximises an acquisition: raw points, ascents from the best, sweeps over discrete parameters, ascents over the continuous rest.

    `encoder` says what may be chosen; `whole` is that of the whole space, which the surrogate's features are made by.
    """

    def __init__(self, encoder: Encoder, whole: Encoder, acquisition: Asked, deadline: Deadline) -> None:
        self._encoder, self._whole, self._acquisition, self._deadline = encoder, whole, acquisition, deadline
        self._region = Region(encoder)
        several = np.array([codes.size != 1 for codes in encoder.columns])
        self._movable = several & ~encoder.nominal & ~encoder.parents
        self._smooth = self._movable & encoder.continuous
        self._discrete = np.flatnonzero(several & ~encoder.continuous)

    def run(self, ground: Ground) -> Optima:
        """The optima found from where constraints allow one to start, as they allow the optima; the starts follow after them."""
        (optima,) = self._run(ground, {0.0: self._scored(ground, 0.0)})
        return optima

    def run_both(self, ground: Ground, *, ambition: float, bar: float) -> tuple[Optima, Optima | None]:
        """The optima, and those with an ambition unless one of the starts reaches the bar without it.

        Both are climbed at once: a few rows more in each call cost little.
        """
        scores = {0.0: self._scored(ground, 0.0)}
        if not (scores[0.0] >= bar).any():
            scores[ambition] = self._scored(ground, ambition)
        usual, *bold = self._run(ground, scores)
        return usual, bold[0] if bold else None

    def _run(self, ground: Ground, scores: Mapping[float, Vector]) -> list[Optima]:
        """The optima for each of the ambitions, given the scores of the ground's rows (`m`)."""
        raw = ground.latent
        if not len(raw):
            return [Optima(raw, np.empty(0), early=False) for _ in scores]
        orders = [np.argsort(-each, kind="stable") for each in scores.values()]
        starts = [raw[order[distinct(ground.settled[order[:200]])]] for order in orders]
        rows, asked, early = np.concatenate(starts), np.repeat(list(scores), [len(each) for each in starts]), False
        try:
            rows, asked = self._improve(rows, asked)
        except OutOfTimeError:
            early = True
        found = self.score(rows, asked)
        return [
            Optima.ranked(
                np.concatenate([rows[asked == ambition], raw[order]]),
                np.concatenate([found[asked == ambition], values[order]]),
                early=early,
            )
            for (ambition, values), order in zip(scores.items(), orders, strict=True)
        ]

    def _scored(self, ground: Ground, ambition: float) -> Vector:
        return self._valued(ground.features, np.full(len(ground.features), ambition))

    def score(self, latent: Matrix, asked: Vector) -> Vector:
        """The acquisition (`m`) at latent rows, each with its ambition (`m`), part by part if they are many; minus infinity where time did
        not suffice.
        """
        return self._valued(self._whole.features(self._encoder.settle(latent)), asked)

    def _valued(self, features: Matrix, asked: Vector) -> Vector:
        size = max(1, _CELLS // features.shape[1])
        if len(features) <= size:
            return self._acquisition(asked)(features)
        values = np.full(len(features), -np.inf)
        for start in range(0, len(features), size):
            some = slice(start, start + size)
            values[some] = self._acquisition(asked[some])(features[some])
            if self._deadline.passed:
                break
        return values

    def _improve(self, rows: Matrix, asked: Vector) -> tuple[Matrix, Vector]:
        rows = self._rounded(rows, self._ascend(rows, asked, self._movable))
        if not len(self._discrete):
            return rows, asked
        kept = self._best(rows, asked)
        rows, asked = rows[kept], asked[kept]
        for _ in range(2):
            for index in self._discrete:
                rows = self._sweep(rows, asked, int(index))
            rows = self._ascend(rows, asked, self._smooth)
        return rows, asked

    def _best(self, rows: Matrix, asked: Vector) -> Indices:
        """Which of the rows go on: the best of each ambition."""
        order = np.argsort(-self.score(rows, asked), kind="stable")
        return np.concatenate([order[asked[order] == each][:KEPT] for each in dict.fromkeys(asked.tolist())])

    def _rounded(self, before: Matrix, after: Matrix) -> Matrix:
        """The rows after an ascent, rounded; where that breaks a constraint, moved to where none is, or as they were before."""
        rounded = self._encoder.snap(after)
        if self._region.unbounded:
            return rounded
        repaired, allowed = self._region.repaired(rounded, generator(0, purpose="repair"))
        return np.where(allowed[:, None], repaired, before)

    def _sweep(self, rows: Matrix, asked: Vector, index: int) -> Matrix:
        """Each row with the best of a discrete parameter's alternatives."""
        self._check_time()
        codes = self._encoder.columns[index]
        options = [codes.alternatives(row[index]) for row in rows]
        owners = np.repeat(np.arange(len(rows)), [len(option) for option in options])
        varied = rows[owners]
        varied[:, index] = np.concatenate(options)
        scores = np.full(len(varied), -np.inf)
        allowed = self._region.allows(varied)
        scores[allowed] = self.score(varied[allowed], asked[owners][allowed])
        best = [np.flatnonzero(owners == row)[np.argmax(scores[owners == row])] for row in range(len(rows))]
        return varied[best]

    def _ascend(self, rows: Matrix, asked: Vector, columns: Mask) -> Matrix:
        """Rows after an ascent over some columns, those that are active; a relaxed discrete column is not rounded."""
        if not columns.any():
            return rows
        free = columns & self._encoder.activity(self._encoder.snap(rows))
        layout = self._whole.layout
        numbers = np.flatnonzero(layout.numeric)
        parameters = layout.owners[numbers]
        all_numbers, all_free = len(numbers) == len(free[0]) == len(layout.numeric), bool(free.all())
        every = self._acquisition(asked)

        def function(points: Matrix, which: Indices) -> tuple[Vector, Matrix]:
            self._check_time()
            # Most often all climbs still go on.
            acquisition = every if len(which) == len(asked) else self._acquisition(asked[which])
            values, slopes = acquisition.with_gradient(self._whole.features(points))
            gradients = slopes
            if not all_numbers:
                gradients = np.zeros_like(points)
                gradients[:, parameters] = slopes[:, numbers]
            return values, gradients if all_free else gradients * free[which]

        def within(before: Matrix, after: Matrix, which: Indices) -> Matrix:
            self._check_time()
            return self._region.between(before, self._region.projected(after, free[which]))

        limited = None if self._region.unbounded else within
        found = ascend(function, self._encoder.settle(rows), calls=_CALLS, within=limited)
        return np.where(free, found, rows)

    def _check_time(self) -> None:
        if self._deadline.passed:
            raise OutOfTimeError("the time limit ended the search")


def distinct(settled: Matrix) -> list[int]:
    """The first rows that are apart from one another, as many as a search starts from."""
    chosen: list[int] = []
    columns, apart = np.ascontiguousarray(settled.T), np.ones(len(settled), dtype=np.bool_)
    while apart.any() and len(chosen) < STARTS:
        place = int(apart.argmax())
        chosen.append(place)
        apart &= np.maximum.reduce(np.abs(columns - columns[:, place, None]), axis=0) > _APART
    return chosen


def raw_points(encoder: Encoder, *, leaders: Matrix, lengthscales: Vector, seed: int, number: int) -> Matrix:
    """Latent rows to start a search from: points spread over the whole space, and perturbations of the leaders (settled rows).

    Under constraints those that break any are replaced, the former by random rows, the latter by allowed ones near them; there may be none.
    """
    random = generator(seed, purpose="acquisition", number=number)
    unit = spread(random, count=SPREAD_POINTS, dimensions=len(encoder.columns))
    everywhere, local = encoder.draw(unit), _around(encoder, leaders, lengthscales, random)
    region = Region(encoder)
    if not region.unbounded:
        everywhere = everywhere[region.allows(everywhere)]
        missing = min(SPREAD_POINTS - len(everywhere), REPLACED_POINTS)
        everywhere = np.concatenate([everywhere, region.draw(random, missing)])
        local, allowed = region.repaired(local, random)
        local = local[allowed]
    return np.concatenate([everywhere, local])


def _around(encoder: Encoder, leaders: Matrix, lengthscales: Vector, random: np.random.Generator) -> Matrix:
    parents = leaders[random.integers(len(leaders), size=LOCAL_POINTS)]
    fresh = encoder.draw(random.random(parents.shape))
    steps = np.exp(random.uniform(np.log(0.01), np.log(0.3), (LOCAL_POINTS, 1))) * np.minimum(lengthscales, 1.0)
    chosen = random.random(parents.shape) < np.maximum(0.2, random.random((LOCAL_POINTS, 1)))
    moved = np.minimum(np.maximum(parents + random.normal(size=parents.shape) * steps * chosen, 0.0), 1.0)
    if encoder.unit:
        return moved
    renamed = np.where(random.random(parents.shape) < 0.15, fresh, parents)
    local = np.where(encoder.nominal, renamed, moved)
    absent = ~encoder.activity(encoder.snap(parents))
    return np.where(absent, fresh, local)
