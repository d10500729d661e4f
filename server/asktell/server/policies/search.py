"""The search for an acquisition's maximum over a mixed space."""

from __future__ import annotations

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

    def __init__(self, encoder: Encoder, whole: Encoder, acquisition: Acquisition, deadline: Deadline) -> None:
        self._encoder, self._whole, self._acquisition, self._deadline = encoder, whole, acquisition, deadline
        self._region = Region(encoder)
        several = np.array([codes.size != 1 for codes in encoder.columns])
        self._movable = several & ~encoder.nominal & ~encoder.parents
        self._smooth = self._movable & encoder.continuous
        self._discrete = np.flatnonzero(several & ~encoder.continuous)

    def run(self, ground: Ground) -> Optima:
        """The optima found from where constraints allow one to start, as they allow the optima; the starts follow after them."""
        raw = ground.latent
        if not len(raw):
            return Optima(raw, np.empty(0), early=False)
        values = self._valued(ground.features)
        order = np.argsort(-values, kind="stable")
        rows, early = raw[order[distinct(ground.settled[order[:200]])]], False
        try:
            rows = self._improve(rows)
        except OutOfTimeError:
            early = True
        found = np.concatenate([self.score(rows), values[order]])
        return Optima.ranked(np.concatenate([rows, raw[order]]), found, early=early)

    def score(self, latent: Matrix) -> Vector:
        """The acquisition (`m`) at latent rows, part by part if they are many; minus infinity where time did not suffice."""
        return self._valued(self._whole.features(self._encoder.settle(latent)))

    def _valued(self, features: Matrix) -> Vector:
        size = max(1, _CELLS // features.shape[1])
        if len(features) <= size:
            return self._acquisition(features)
        values = np.full(len(features), -np.inf)
        for start in range(0, len(features), size):
            some = slice(start, start + size)
            values[some] = self._acquisition(features[some])
            if self._deadline.passed:
                break
        return values

    def _improve(self, rows: Matrix) -> Matrix:
        rows = self._rounded(rows, self._ascend(rows, self._movable))
        if not len(self._discrete):
            return rows
        rows = rows[np.argsort(-self.score(rows), kind="stable")[:KEPT]]
        for _ in range(2):
            for index in self._discrete:
                rows = self._sweep(rows, int(index))
            rows = self._ascend(rows, self._smooth)
        return rows

    def _rounded(self, before: Matrix, after: Matrix) -> Matrix:
        """The rows after an ascent, rounded; where that breaks a constraint, moved to where none is, or as they were before."""
        rounded = self._encoder.snap(after)
        if self._region.unbounded:
            return rounded
        repaired, allowed = self._region.repaired(rounded, generator(0, purpose="repair"))
        return np.where(allowed[:, None], repaired, before)

    def _sweep(self, rows: Matrix, index: int) -> Matrix:
        """Each row with the best of a discrete parameter's alternatives."""
        self._check_time()
        codes = self._encoder.columns[index]
        options = [codes.alternatives(row[index]) for row in rows]
        owners = np.repeat(np.arange(len(rows)), [len(option) for option in options])
        varied = rows[owners]
        varied[:, index] = np.concatenate(options)
        scores = np.full(len(varied), -np.inf)
        allowed = self._region.allows(varied)
        scores[allowed] = self.score(varied[allowed])
        best = [np.flatnonzero(owners == row)[np.argmax(scores[owners == row])] for row in range(len(rows))]
        return varied[best]

    def _ascend(self, rows: Matrix, columns: Mask) -> Matrix:
        """Rows after an ascent over some columns, those that are active; a relaxed discrete column is not rounded."""
        if not columns.any():
            return rows
        free = columns & self._encoder.activity(self._encoder.snap(rows))
        layout = self._whole.layout
        numbers = np.flatnonzero(layout.numeric)
        parameters = layout.owners[numbers]
        all_numbers, all_free = len(numbers) == len(free[0]) == len(layout.numeric), bool(free.all())

        def function(points: Matrix, which: Indices) -> tuple[Vector, Matrix]:
            self._check_time()
            values, slopes = self._acquisition.with_gradient(self._whole.features(points))
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
    apart = np.ones(len(settled), dtype=np.bool_)
    while apart.any() and len(chosen) < STARTS:
        place = int(apart.argmax())
        chosen.append(place)
        apart &= np.abs(settled - settled[place]).max(axis=1) > _APART
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
    moved = np.clip(parents + random.normal(size=parents.shape) * steps * chosen, 0.0, 1.0)
    renamed = np.where(random.random(parents.shape) < 0.15, fresh, parents)
    local = np.where(encoder.nominal, renamed, moved)
    absent = ~encoder.activity(encoder.snap(parents))
    return np.where(absent, fresh, local)
