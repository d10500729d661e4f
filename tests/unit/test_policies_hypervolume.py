"""Boxes beyond a Pareto front, and expected hypervolume improvement, held to BoTorch on random problems."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from botorch.acquisition.multi_objective.analytic import ExpectedHypervolumeImprovement
from botorch.models import ModelListGP
from botorch.utils.multi_objective.box_decompositions.dominated import DominatedPartitioning
from botorch.utils.multi_objective.box_decompositions.non_dominated import FastNondominatedPartitioning
from hypothesis import given
from hypothesis import strategies as st

from asktell.server.domain.ranking import Standing
from asktell.server.domain.space import Categorical, Float, SearchSpace
from asktell.server.policies.botorch_model import exact, make_model, place
from asktell.server.policies.boxes import boxes, non_dominated
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.front import infer_reference, thinned
from asktell.server.policies.hypervolume import Boxes, HypervolumeImprovement, Mixture
from asktell.server.policies.likelihood import unpack
from asktell.server.policies.posterior import Posterior
from asktell.server.policies.volumes import hypervolumes

ENCODER = Encoder.of(
    SearchSpace(
        (Float(name="a", low=0.0, high=1.0), Float(name="b", low=0.0, high=1.0), Categorical(name="c", choices=(1, 2)))
    )
)


@pytest.fixture(autouse=True)
def single_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with exact(), np.errstate(all="ignore"):
        yield
    torch.set_num_threads(threads)


@st.composite
def fronts(draw):
    """Points better than a reference of ones, none of which dominates another; often with coordinates in common."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    points = random.random((draw(st.integers(0, 12)), draw(st.integers(2, 4))))
    points /= np.linalg.norm(points, axis=1, keepdims=True) + 0.1
    if draw(st.booleans()):
        points = np.round(points * 4) / 5
    points = points[(points < 1).all(axis=1)]
    return points[non_dominated(points)]


@given(fronts(), st.integers(0, 2**32))
def test_a_point_lies_in_a_box_exactly_if_nothing_dominates_it_and_then_in_one(front, seed):
    lower, upper = boxes(front, np.ones(front.shape[1]))
    points = np.random.default_rng(seed).uniform(-0.5, 1.2, (300, front.shape[1]))
    inside = ((lower < points[:, None]) & (points[:, None] <= upper)).all(axis=2).sum(axis=1)
    dominated = (front <= points[:, None]).all(axis=2).any(axis=1) if len(front) else np.zeros(300, dtype=bool)
    np.testing.assert_array_equal(inside, ~dominated & (points <= 1).all(axis=1))


@given(fronts())
def test_boxes_leave_out_the_hypervolume_that_botorch_finds(front):
    floor = min(0.0, float(front.min(initial=0.0)))
    lower, upper = boxes(front, np.ones(front.shape[1]))
    left = np.prod(upper - np.maximum(lower, floor), axis=1).sum()
    won = DominatedPartitioning(ref_point=-torch.ones(front.shape[1]).double(), Y=torch.tensor(-front))
    hypervolume = float(won.compute_hypervolume()) if len(front) else 0.0
    assert left + hypervolume == pytest.approx((1.0 - floor) ** front.shape[1], rel=1e-9)


def arrived(*losses):
    """A trial after another, each at a place of its own."""
    return [Standing(number, number, each) for number, each in enumerate(losses, 1)]


def test_hypervolume_grows_with_what_joins_the_front():
    found = hypervolumes(arrived((2.0, 2.0), None, (2.0, 2.5), (0.0, 2.5), (1.0, 1.0)), (3.0, 3.0), most=9)
    assert found == [(1, pytest.approx(1.0)), (4, pytest.approx(2.0)), (5, pytest.approx(4.5))]
    assert [number for number, _ in hypervolumes(arrived(*((-x, 0.0) for x in range(9))), (3.0, 3.0), most=3)] == [
        3,
        6,
        9,
    ]


def test_a_place_whose_losses_change_may_cost_hypervolume():
    standings = [
        Standing(1, 1, (1.0, 1.0)),
        Standing(2, 2, (2.0, 2.0)),
        Standing(3, 1, (9.0, 9.0)),
        Standing(4, 2, None),
    ]
    assert [value for _, value in hypervolumes(standings, (3.0, 3.0), most=9)] == pytest.approx([4, 4, 1, 0])


@pytest.mark.parametrize(
    ("losses", "reference", "expected"),
    [
        ((-1e308, 0.0), (1e308, 1e-3), 2e305),
        ((-1e308, -1e308), (1e308, 1e308), np.finfo(np.float64).max),
        ((1.0, 2.0, 3.0, 4.0), (2.0, 4.0, 6.0, 8.0), 24),
        ((5.0, 5.0), (3.0, 3.0), 0),
        ((0.0, 0.0), (0.0, 0.0), 0),
    ],
)
def test_hypervolumes_are_exact_whatever_the_losses_are(losses, reference, expected):
    assert hypervolumes(arrived(losses), reference, most=9) == [(1, pytest.approx(expected))]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=30))
def test_the_last_hypervolume_is_botorchs(points):
    *_, (_, volume) = hypervolumes(arrived(*(tuple(map(float, point)) for point in points)), (5.0, 5.0, 5.0), most=9)
    theirs = DominatedPartitioning(ref_point=torch.full((3,), -5.0).double(), Y=-torch.tensor(points).double())
    assert volume == pytest.approx(float(theirs.compute_hypervolume()), rel=1e-9)


def test_of_equal_points_the_first_is_not_dominated():
    points = np.array([[1.0, 2.0], [0.0, 3.0], [1.0, 2.0], [1.0, 3.0]])
    assert non_dominated(points).tolist() == [True, True, False, False]


class Problem:
    """Some objectives' models of one set of rows: ours, and BoTorch's of the same hyper-parameters."""

    def __init__(self, seed, *, objectives, members, count):
        random = np.random.default_rng(seed)
        self.rows = ENCODER.draw(random.random((count, 3)))
        self.others = ENCODER.draw(random.random((5, 3)))
        self.mixtures, self.models = [], []
        for _ in range(objectives):
            labels = np.sin(3.0 * self.rows @ random.normal(size=3)) + 0.3 * random.normal(size=count)
            points = [
                np.concatenate([random.uniform(-1.5, 1.0, 3), random.uniform([-6.0, -1.0], [-1.0, 1.0])])
                for _ in range(members)
            ]
            weights = random.random(members)
            log_weights = np.log(weights / weights.mean())
            self.mixtures.append(Mixture(tuple(self.posterior(point, labels) for point in points), log_weights))
            self.models.append([self.model(point, labels) for point in points])
        self.reference = random.uniform(0.0, 2.0, objectives)
        front = random.normal(size=(random.integers(0, 8), objectives))
        front = front[(front < self.reference).all(axis=1)]
        self.front = front[non_dominated(front)]

    def posterior(self, point, labels):
        hyper = unpack(point, ENCODER.layout)
        return Posterior(ENCODER.layout, hyper, inputs=ENCODER.features(self.rows), labels=labels)

    def model(self, point, labels):
        """BoTorch maximises."""
        model = make_model(torch.tensor(self.rows), torch.tensor(-labels), ENCODER)
        place(model, np.append(point[:-1], -point[-1]))
        return model.eval()

    @property
    def ours(self):
        return HypervolumeImprovement(tuple(self.mixtures), Boxes.beyond([self.front], self.reference))

    def theirs(self, rows):
        """The mean over all choices of one model for each objective: objectives are independent."""
        partitioning = FastNondominatedPartitioning(
            ref_point=torch.tensor(-self.reference), Y=torch.tensor(-self.front)
        )
        total = 0.0
        for chosen in product(*(range(len(models)) for models in self.models)):
            model = ModelListGP(*(models[index] for models, index in zip(self.models, chosen, strict=True)))
            share = np.prod([mixture.shares[index] for mixture, index in zip(self.mixtures, chosen, strict=True)])
            improvement = ExpectedHypervolumeImprovement(model, (-self.reference).tolist(), partitioning)
            total = total + share * improvement(rows.unsqueeze(1))
        return total


problems = st.builds(
    Problem,
    st.integers(0, 2**32),
    objectives=st.integers(2, 4),
    members=st.integers(1, 2),
    count=st.integers(2, 12),
)


@given(problems)
def test_expected_hypervolume_improvement_and_its_gradient_are_botorchs(problem):
    rows = torch.tensor(problem.others, requires_grad=True)
    theirs = problem.theirs(rows)
    (slopes,) = torch.autograd.grad(theirs.sum(), rows)
    features = ENCODER.features(problem.others)
    values, gradients = problem.ours.with_gradient(features)
    np.testing.assert_allclose(problem.ours(features), values, rtol=1e-9)
    assert_equal(np.exp(values), theirs.detach().numpy())
    numbers = (np.exp(values)[:, None] * gradients)[:, ENCODER.layout.numeric]
    assert_equal(numbers, slopes.numpy()[:, ~ENCODER.nominal])


def assert_equal(ours, theirs):
    """Up to a millionth of the largest."""
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6 * np.abs(theirs).max(initial=1e-3))


@given(problems, st.integers(0, 2**32))
def test_improvement_over_sets_of_imagined_labels_is_the_mean_set_by_set(problem, seed):
    random = np.random.default_rng(seed)
    pending = ENCODER.features(ENCODER.draw(random.random((2, 3))))
    labels = random.normal(size=(2, 3))
    fronts = [problem.front, problem.front[:1], problem.front[:0]]

    def improvement(sets):
        mixtures = tuple(
            Mixture(tuple(each.given(pending, labels[:, sets]) for each in mixture.posteriors), mixture.log_weights)
            for mixture in problem.mixtures
        )
        return HypervolumeImprovement(mixtures, Boxes.beyond([fronts[index] for index in sets], problem.reference))

    rows = ENCODER.features(problem.others)
    values, gradients = improvement([0, 1, 2]).with_gradient(rows)
    each, slopes = zip(*(improvement([index]).with_gradient(rows) for index in range(3)), strict=True)
    np.testing.assert_allclose(np.exp(values), np.exp(each).mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(
        np.exp(values)[:, None] * gradients, (np.exp(each)[:, :, None] * slopes).mean(axis=0), rtol=1e-7, atol=1e-12
    )


def test_far_from_the_front_the_logarithm_neither_underflows_nor_is_flat():
    problem = Problem(1, objectives=2, members=1, count=12)
    problem.reference = np.array([-60.0, -80.0])
    problem.front = problem.reference - np.array([[1.0, 2.0], [2.0, 1.0]])
    values, gradients = problem.ours.with_gradient(ENCODER.features(problem.others))
    assert np.isfinite(values).all()
    assert (values < -1000).all()
    assert (np.abs(gradients).max(axis=1) > 1e-3).all()


def test_an_inferred_reference_is_the_worst_measured_where_none_is_given():
    points = np.array([[0.0, 2.0], [1.0, 0.0], [9.0, 5.0]])
    assert infer_reference(points, np.array([np.nan, np.nan])).tolist() == [9.0, 5.0]
    assert infer_reference(points, np.array([np.nan, 1.0])).tolist() == [9.0, 1.0]


def test_a_large_front_is_thinned_to_its_ends_and_what_is_far_apart():
    front = np.stack([np.linspace(0, 1, 101) ** 2, 1 - np.linspace(0, 1, 101)], axis=1)
    kept = thinned(front, 5)
    assert kept.tolist() == sorted(kept.tolist())
    assert kept[[0, -1]].tolist() == front[[0, -1]].tolist()
    assert len(kept) == 5
    assert np.linalg.norm(np.diff(kept, axis=0), axis=1).min() > 0.2
    assert thinned(front[:5], 5).tolist() == front[:5].tolist()
