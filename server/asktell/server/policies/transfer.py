"""What earlier studies know: a model of each, and a Gaussian process of what they leave unexplained in a study of its own.

The sources' posterior means together are the prior mean of one more model, which the acquisition is averaged over. Each counts as far as
it explains this study's own labels: weights are not negative and shrunk (stacked regressions, Breiman 1996; of Gaussian processes of
earlier tuning runs as in Wistuba et al. 2016 and Feurer et al. 2018). A source that is unlike gets none, and the model is the usual one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress

import numpy as np
from scipy.optimize import nnls

from asktell.server.domain.metric import Objective
from asktell.server.domain.policy import Source
from asktell.server.policies.columns import Vector
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.gp import MIN_LEARNED
from asktell.server.policies.hints import Fits, digest_of
from asktell.server.policies.kernel import Indices, Layout, Mask, Matrix
from asktell.server.policies.labels import Labels, Noise, make_labels, measured
from asktell.server.policies.likelihood import fit, unpack
from asktell.server.policies.posterior import Belief, Posterior

_RIDGE = 1.0
"""As of how many observations, of labels with variance 1, the belief is that a source says nothing."""
_DOUBT = 2.0
"""As of how many observations the belief is that the sources explain nothing, when it comes to what they leave unexplained."""
_LEAST_SCALE = 0.05


@dataclass(frozen=True, slots=True)
class Expert:
    """A source's posterior of its own standardised labels, and at which of this study's features (`D`) it looks."""

    name: str
    posterior: Posterior
    columns: Indices

    def moments(self, rows: Matrix) -> tuple[Vector, Vector]:
        """Means and standard deviations (`m` each) at this study's feature rows (`m x D`)."""
        mean, deviation = self.posterior.moments(rows[:, self.columns])
        return mean[:, 0], deviation

    def believe(self, rows: Matrix) -> tuple[Vector, Vector, Matrix, Matrix]:
        """The same, and their gradients (`m x D` each)."""
        belief = self.posterior.believe(rows[:, self.columns])
        none, one = np.zeros(len(rows)), np.ones(len(rows))
        slope, steepness = np.zeros_like(rows), np.zeros_like(rows)
        slope[:, self.columns] = belief.gradient(one[:, None], none)
        steepness[:, self.columns] = belief.gradient(none[:, None], one)
        return belief.mean[:, 0], belief.deviation, slope, steepness


def experts(
    sources: Iterable[Source], objectives: Sequence[Objective], encoder: Encoder, *, fits: Fits, deadline: Deadline
) -> Iterator[Expert]:
    """Those sources from which there is something to learn, and time to. The encoder is that of this study's whole space."""
    for source in sources:
        useful = measured(source.observations, objectives)
        told = sorted(compress(source.observations, useful), key=lambda seen: seen.number)
        if len(told) < MIN_LEARNED or deadline.passed:
            continue
        columns, layout = _common(encoder, source)
        rows = encoder.features(encoder.encode([seen.parameters for seen in told]))[:, columns]
        labels = make_labels(told, objectives)

        def compute(rows: Matrix = rows, labels: Labels = labels, layout: Layout = layout) -> Vector:
            return fit(rows, labels.values, layout, deadline=deadline, noise=labels.noise)

        digest = digest_of(rows, labels.values, layout, noise=labels.noise, trend=False)
        point = fits.recall(digest, compute, keep=lambda: not deadline.passed)
        posterior = Posterior(
            layout, unpack(point, layout), inputs=rows, labels=labels.values, variances=labels.noise.variances
        )
        yield Expert(source.name, posterior, columns)


def _common(encoder: Encoder, source: Source) -> tuple[Indices, Layout]:
    """The features of the parameters that the source has, and what they are as a space of their own."""
    common = [index for index, spec in enumerate(encoder.space) if spec.name in source.parameters]
    places = {owner: place for place, owner in enumerate(common)}
    whole = encoder.layout
    columns = np.flatnonzero(np.isin(whole.owners, common))
    owners = np.array([places[int(owner)] for owner in whole.owners[columns]])
    return columns, Layout(owners, whole.numeric[columns], len(common))


@dataclass(frozen=True, slots=True)
class Opinion:
    """What experts say at some rows: their weighted mean, and the amplitude of what they may be wrong by (`m` each), with gradients."""

    mean: Vector
    amplitude: Vector
    slope: Matrix
    steepness: Matrix


@dataclass(frozen=True, slots=True)
class Prior:
    """A weighted sum of the experts' means, and how far a study may be from it.

    The amplitude is `scale` where the experts are sure of themselves, and more where they are not: squares add up.
    """

    experts: tuple[Expert, ...]
    weights: Vector
    scale: float

    def moments(self, rows: Matrix) -> tuple[Vector, Vector]:
        """Mean and amplitude (`m` each) at feature rows (`m x D`)."""
        mean, variance = np.zeros(len(rows)), np.full(len(rows), self.scale**2)
        for expert, weight in self._heard():
            own, deviation = expert.moments(rows)
            mean += weight * own
            variance += (weight * deviation) ** 2
        return mean, np.sqrt(variance)

    def opinion(self, rows: Matrix) -> Opinion:
        """The same, with gradients."""
        mean, variance = np.zeros(len(rows)), np.full(len(rows), self.scale**2)
        slope, half = np.zeros_like(rows), np.zeros_like(rows)
        for expert, weight in self._heard():
            own, deviation, own_slope, own_steepness = expert.believe(rows)
            mean += weight * own
            variance += (weight * deviation) ** 2
            slope += weight * own_slope
            half += weight**2 * deviation[:, None] * own_steepness
        amplitude = np.sqrt(variance)
        return Opinion(mean, amplitude, slope, half / amplitude[:, None])

    def _heard(self) -> Iterator[tuple[Expert, float]]:
        return ((each, weight) for each, weight in zip(self.experts, self.weights, strict=True) if weight > 0.0)


@dataclass(frozen=True, slots=True)
class Rest:
    """What experts leave of labels, in units of the prior's amplitude, as labels (`n`); the experts' weights, and the scale."""

    values: Vector
    noise: Noise
    weights: Vector
    scale: float


@dataclass(frozen=True, slots=True)
class Accounts:
    """What each of the experts says at a study's observations: means and standard deviations (`n x s` each)."""

    means: Matrix
    deviations: Matrix

    @classmethod
    def of(cls, experts: Sequence[Expert], rows: Matrix) -> Accounts:
        """What they say at feature rows (`n x D`)."""
        means, deviations = zip(*(expert.moments(rows) for expert in experts), strict=True)
        return cls(np.stack(means, axis=1), np.stack(deviations, axis=1))

    def at(self, places: Sequence[int]) -> Accounts:
        """What they say at some of the observations."""
        return Accounts(self.means[places], self.deviations[places])

    def weigh(self, labels: Vector, useful: Mask) -> tuple[Vector, float]:
        """The weights that leave least of the useful labels (`n`), and the scale of what they leave where the experts are sure."""
        weights = _stacked(labels[useful], self.means[useful])
        rest = (labels - self.means @ weights)[useful]
        spread = rest - rest.mean()
        variance = (spread @ spread + _DOUBT) / (len(rest) + _DOUBT)
        unsure = float((self.deviations[useful] ** 2 @ weights**2).mean())
        return weights, float(np.sqrt(max(variance - unsure, _LEAST_SCALE**2)))

    def rest(self, labels: Labels) -> Rest:
        """What weighted experts leave of labels."""
        weights, scale = self.weigh(labels.values, labels.measured)
        variance = scale**2 + self.deviations**2 @ weights**2
        noise = Noise(labels.noise.variances / variance, labels.noise.complete)
        return Rest((labels.values - self.means @ weights) / np.sqrt(variance), noise, weights, scale)


def _stacked(labels: Vector, expected: Matrix) -> Vector:
    """Weights of non-negative ridge regression with a free intercept."""
    centred = expected - expected.mean(axis=0)
    ridge = np.sqrt(_RIDGE) * np.eye(expected.shape[1])
    target = np.concatenate([labels - labels.mean(), np.zeros(expected.shape[1])])
    weights: Vector = nnls(np.vstack([centred, ridge]), target)[0]
    return weights


@dataclass(frozen=True, slots=True)
class TransferredBelief:
    """As `Belief`."""

    mean: Matrix
    deviation: Vector
    _rest: Belief
    _opinion: Opinion

    def gradient(self, by_mean: Matrix, by_deviation: Vector) -> Matrix:
        """The gradients of a function of each row that has these derivatives."""
        opinion, rest = self._opinion, self._rest
        own = rest.gradient(opinion.amplitude[:, None] * by_mean, opinion.amplitude * by_deviation)
        by_amplitude = (by_mean * rest.mean).sum(axis=1) + by_deviation * rest.deviation
        return own + by_mean.sum(axis=1)[:, None] * opinion.slope + by_amplitude[:, None] * opinion.steepness


class Transferred:
    """A posterior of labels with a prior, as `Posterior`: a Gaussian process of what is left, in units of the prior's amplitude."""

    def __init__(self, prior: Prior, rest: Posterior) -> None:
        self.prior, self.rest, self.inputs = prior, rest, rest.inputs
        self._mean, self._amplitude = prior.moments(rest.inputs)
        # In the labels' unit, the learned noise is another for each: it counts as known.
        self.variances = self._amplitude**2 * (rest.hyper.noise + rest.variances)
        self.hyper = replace(rest.hyper, noise=0.0)

    @property
    def means(self) -> Matrix:
        """The means at the inputs themselves (`n x s`)."""
        return self._mean[:, None] + self._amplitude[:, None] * self.rest.means

    def moments(self, rows: Matrix) -> tuple[Matrix, Vector]:
        """Means (`m x s`) and standard deviations (`m`) of the noise-free label at feature rows (`m x D`)."""
        prior, amplitude = self.prior.moments(rows)
        mean, deviation = self.rest.moments(rows)
        return prior[:, None] + amplitude[:, None] * mean, amplitude * deviation

    def believe(self, rows: Matrix) -> TransferredBelief:
        """The same, ready for gradients."""
        opinion, rest = self.prior.opinion(rows), self.rest.believe(rows)
        mean = opinion.mean[:, None] + opinion.amplitude[:, None] * rest.mean
        return TransferredBelief(mean, opinion.amplitude * rest.deviation, rest, opinion)

    def expect(self, rows: Matrix) -> Matrix:
        """The means alone."""
        return self.moments(rows)[0]

    def sample(self, rows: Matrix, normals: Matrix) -> Matrix:
        """Joint draws of the noise-free labels at rows (`m x t`) for standard normal numbers of that shape."""
        prior, amplitude = self.prior.moments(rows)
        return prior[:, None] + amplitude[:, None] * self.rest.sample(rows, normals)

    def given(self, rows: Matrix, labels: Matrix) -> Transferred:
        """The posterior had labels (`m x s`) been observed at more rows."""
        prior, amplitude = self.prior.moments(rows)
        return Transferred(self.prior, self.rest.given(rows, (labels - prior[:, None]) / amplitude[:, None]))

    @property
    def innovations(self) -> Vector:
        """How far each label (`n`) is from what those before it and the prior foretell, in standard deviations, noise included."""
        return self.rest.innovations

    def leave_one_out(self) -> Vector:
        """Log densities (`n`) of the labels, each given all others and the prior."""
        densities: Vector = self.rest.leave_one_out() - np.log(self._amplitude)
        return densities

    def left_out(self) -> tuple[Vector, Vector]:
        """Means and standard deviations (`n`) of the labels, noise included, each given all others and the prior."""
        mean, deviation = self.rest.left_out()
        return self._mean + self._amplitude * mean, self._amplitude * deviation
