"""The model of where trials fail is expectation propagation: held to exact probabilities, to a reference implementation and to differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.special import ndtr
from scipy.stats import multivariate_normal, norm

from asktell.server.policies import probit
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.kernel import Hyperparameters, Kernel, Layout
from asktell.server.policies.probit import Classifier, Sites, _Approximation, _Objective, signs_of

NEVER = Deadline(None)


def layout(dimensions: int, names: int = 0) -> Layout:
    """Of numbers, and of one parameter more if there are names."""
    owners = np.array([*range(dimensions), *[dimensions] * names])
    return Layout(owners, np.array([True] * dimensions + [False] * names), dimensions + bool(names))


def covariance_of(rows: np.ndarray, lengthscale: float = 0.5) -> np.ndarray:
    size = rows.shape[1]
    kernel = Kernel(layout(size), Hyperparameters(np.full(size, lengthscale), 1e-6, 0.0))
    placed = kernel.place(rows)
    return kernel.covariance(placed, placed)


def settled(covariance: np.ndarray, signs: np.ndarray, *, mean: float, chance: float) -> tuple[_Approximation, Sites]:
    approximation = _Approximation(covariance, signs, mean=mean, chance=chance)
    return approximation, approximation.run(Sites.none(len(signs)), sweeps=1000, settled=1e-12)


def one_by_one(covariance: np.ndarray, signs: np.ndarray, *, mean: float, chance: float) -> tuple[np.ndarray, ...]:
    """The posterior's means and variances by algorithm 3.5 of Rasmussen and Williams (2006): one site after another, with dense algebra."""
    count = len(signs)
    precisions, shifts = np.zeros(count), np.zeros(count)
    prior = np.linalg.inv(covariance)
    sigma, mu = covariance.copy(), np.full(count, mean)
    for _ in range(200):
        for i in range(count):
            cavity = 1.0 / sigma[i, i] - precisions[i]
            variance, centre = 1.0 / cavity, (mu[i] / sigma[i, i] - shifts[i]) / cavity
            spread = math.sqrt(chance + variance)
            unit = signs[i] * centre / spread
            ratio = norm.pdf(unit) / norm.cdf(unit)
            matched = variance - variance**2 * ratio * (unit + ratio) / spread**2
            better = centre + signs[i] * variance * ratio / spread
            precisions[i] = 1.0 / matched - cavity
            shifts[i] = better / matched - centre * cavity
            sigma = np.linalg.inv(prior + np.diag(precisions))
            mu = sigma @ (prior @ np.full(count, mean) + shifts)
    return mu, sigma.diagonal()


@pytest.mark.parametrize("seed", range(6))
def test_all_sites_at_once_come_to_what_one_after_another_do(seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows = generator.random((12, 3))
    signs = signs_of(rows[:, 0] + 0.2 * generator.normal(size=12) > 0.6)
    given = {"mean": -0.8, "chance": (0.02, 0.5)[seed % 2]}
    covariance = covariance_of(rows) + 1e-6 * np.eye(12)
    _, sites = settled(covariance, signs, **given)
    means, variances = one_by_one(covariance, signs, **given)
    sigma = np.linalg.inv(np.linalg.inv(covariance) + np.diag(sites.precisions))
    assert sigma.diagonal() == pytest.approx(variances, rel=1e-6)
    assert sigma @ (np.linalg.solve(covariance, np.full(12, -0.8)) + sites.shifts) == pytest.approx(means, rel=1e-6)


@pytest.mark.parametrize(("failed", "mean"), [([True], -1.0), ([False], -1.0), ([True], 0.5)])
def test_the_evidence_of_one_trial_is_exact(failed: list[bool], mean: float) -> None:
    signs = signs_of(np.array(failed))
    approximation, sites = settled(np.eye(1), signs, mean=mean, chance=0.1)
    assert approximation.evidence(sites)[0] == pytest.approx(norm.logcdf(signs[0] * mean / math.sqrt(1.1)), rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_the_evidence_of_a_few_is_nearly_exact(seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows, signs = generator.random((3, 2)), signs_of(generator.random(3) < 0.5)
    covariance = covariance_of(rows)
    approximation, sites = settled(covariance, signs, mean=-0.5, chance=0.1)
    flipped = (covariance + 0.1 * np.eye(3)) * np.outer(signs, signs)
    exact = multivariate_normal.cdf(-0.5 * signs, mean=np.zeros(3), cov=flipped, abseps=1e-9, releps=1e-9)
    assert approximation.evidence(sites)[0] == pytest.approx(math.log(exact), abs=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_is_that_of_the_value(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probit, "_SWEEPS", 500)
    monkeypatch.setattr(probit, "_SETTLED", 1e-10)
    generator = np.random.default_rng(seed)
    rows = np.hstack([generator.random((20, 2)), math.sqrt(0.5) * np.eye(3)[generator.integers(0, 3, 20)]])
    objective = _Objective(rows, rows[:, 0] + 0.1 * generator.normal(size=20) > 0.7, layout(2, names=3))
    point = objective.start + 0.3 * generator.normal(size=5)
    _, gradient = objective(point)
    assert gradient == pytest.approx(approx_fprime(point, lambda other: objective(other)[0], 1e-5), abs=1e-5)


def learned(rows: np.ndarray, failed: np.ndarray, where: Layout, *, chance: bool = True) -> Classifier:
    return Classifier.of(probit.fit(rows, failed, where, chance=chance, deadline=NEVER), rows, failed, where)


def test_an_edge_is_sharp_though_lengthscales_are_not_short() -> None:
    """A least-squares classifier has to choose: it has an edge as wide as its lengthscale."""
    rows = np.random.default_rng(1).random((60, 3))
    found = learned(rows, rows[:, 0] > 0.7, layout(3))
    places = np.column_stack([[0.5, 0.62, 0.78, 0.9], np.full((4, 2), 0.5)])
    chances = found.failing(places)
    assert chances[:2].max() < 0.1
    assert chances[2:].min() > 0.9
    assert found.posterior.hyper.lengthscales[0] > 0.3


def test_parameters_that_do_not_matter_get_long_lengthscales() -> None:
    rows = np.random.default_rng(2).random((60, 4))
    lengthscales = learned(rows, rows[:, 1] > 0.8, layout(4)).posterior.hyper.lengthscales
    assert lengthscales[[0, 2, 3]].min() > 1.5 * lengthscales[1]


def test_a_name_that_never_works_is_known() -> None:
    generator = np.random.default_rng(3)
    names = generator.integers(0, 3, 30)
    rows = np.hstack([generator.random((30, 2)), math.sqrt(0.5) * np.eye(3)[names]])
    found = learned(rows, names == 1, layout(2, names=3))
    elsewhere = np.hstack([generator.random((30, 2)), math.sqrt(0.5) * np.eye(3)[generator.integers(0, 3, 30)]])
    chances, bad = found.failing(elsewhere), elsewhere[:, 3] > 0.0
    assert chances[bad].min() > 0.6
    assert chances[~bad].max() < 0.3


def test_failures_by_chance_are_taken_for_chance() -> None:
    generator = np.random.default_rng(4)
    rows = generator.random((120, 3))
    found = learned(rows, generator.random(120) < 0.2, layout(3))
    chances = found.failing(generator.random((200, 3)))
    assert found.chance > 1.0
    assert abs(chances.mean() - 0.2) < 0.08
    assert chances.std() < 0.1


@pytest.mark.parametrize("seed", range(3))
def test_what_is_no_chance_is_sure_to_come_again(seed: int) -> None:
    """That few of many fail, and these anywhere, looks like chance: nobody would mind to try such a place again."""
    generator = np.random.default_rng(seed)
    rows = generator.random((40, 3))
    failed = np.arange(40) % 8 == 0
    maybe, sure = (learned(rows, failed, layout(3), chance=chance) for chance in (True, False))
    assert sure.chance == pytest.approx(1e-3)
    assert sure.failing(rows[failed]).min() > 0.5
    assert sure.failing(rows[~failed]).max() < 0.2
    assert maybe.failing(rows[failed]).max() < 0.5


@pytest.mark.parametrize("chance", [True, False])
def test_trials_that_contradict_each_other_leave_it_open(chance: bool) -> None:
    rows = np.repeat(np.random.default_rng(5).random((6, 2)), 2, axis=0)
    found = learned(rows, np.arange(12) % 2 == 0, layout(2), chance=chance)
    assert found.failing(rows) == pytest.approx(0.5, abs=0.15)


def test_the_order_of_trials_does_not_matter() -> None:
    generator = np.random.default_rng(6)
    rows, order = generator.random((25, 3)), generator.permutation(25)
    failed = rows.sum(axis=1) > 1.8
    point = probit.fit(rows, failed, layout(3), chance=True, deadline=NEVER)
    places = generator.random((50, 3))
    one, other = (
        Classifier.of(point, rows[which], failed[which], layout(3)).failing(places) for which in (np.arange(25), order)
    )
    assert one == pytest.approx(other, abs=1e-4)


def test_what_is_left_out_is_what_a_model_without_the_trial_says() -> None:
    """To the approximation's own accuracy: the others' sites are not propagated anew."""
    generator = np.random.default_rng(7)
    rows = generator.random((30, 2))
    failed = rows[:, 0] > 0.6
    point = probit.fit(rows, failed, layout(2), chance=True, deadline=NEVER)
    found = Classifier.of(point, rows, failed, layout(2))
    without = [
        Classifier.of(point, np.delete(rows, place, 0), np.delete(failed, place), layout(2)).failing(rows[[place]])[0]
        for place in range(30)
    ]
    assert found.left_out == pytest.approx(without, abs=0.1)


@pytest.mark.parametrize("chance", [True, False])
@pytest.mark.parametrize("outcome", [True, False])
@pytest.mark.parametrize("count", [1, 2, 40])
def test_all_alike_is_learned_as_well(outcome: bool, count: int, chance: bool) -> None:
    rows = np.random.default_rng(8).random((count, 3))
    chances = learned(rows, np.full(count, outcome), layout(3), chance=chance).failing(rows)
    assert np.isfinite(chances).all()
    assert (chances > ndtr(-1.3)).all() if outcome else (chances < ndtr(-1.0)).all()


def test_time_ends_a_fit() -> None:
    generator = np.random.default_rng(9)
    rows = generator.random((40, 4))
    over = Deadline.after(1e-9)
    point = probit.fit(rows, rows[:, 0] > 0.5, layout(4), chance=True, deadline=over)
    assert np.isfinite(point).all()
    assert point.tolist() != probit.fit(rows, rows[:, 0] > 0.5, layout(4), chance=True, deadline=NEVER).tolist()
