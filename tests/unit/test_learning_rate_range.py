"""The learning-rate range test finds the limits that theory gives, and leaves no trace."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from asktell.client import FailedPrecondition, Float, InvalidArgument
from asktell.integrations.learning_rate import Point, read
from asktell.integrations.pytorch import LearningRateRange, lr_range_test


def quadratic(curvatures: list[float], **options) -> LearningRateRange:
    """The range of gradient descent on half the sum of `curvature * weight ** 2`, which diverges above 2 over the largest curvature."""
    model = nn.Linear(len(curvatures), 1, bias=False, dtype=torch.float64)
    nn.init.ones_(model.weight)
    steep = torch.tensor(curvatures, dtype=torch.float64)

    def loss(model: nn.Module, _: None) -> Tensor:
        return 0.5 * (steep * model.weight[0] ** 2).sum()

    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    limits = {"start": 1e-6 / max(curvatures), "end": 1e3 / max(curvatures), "steps": 200}
    return lr_range_test(model, optimizer, loss, [None], **limits | options)


@settings(max_examples=20)
@given(st.floats(1e-3, 1e3), st.lists(st.floats(0.01, 1), max_size=3))
def test_the_range_of_a_quadratic_ends_about_where_gradient_descent_diverges(
    steepest: float, others: list[float]
) -> None:
    limit = 2 / steepest
    found = quadratic([steepest, *(steepest * other for other in others)])
    # The losses grow from next to nothing above the limit, which takes some steps to be seen.
    assert 0.9 * limit < found.high < 8 * limit
    assert found.low < found.suggestion < limit
    assert found.low < 0.1 * limit


def test_a_problem_ten_times_as_steep_has_a_range_ten_times_as_low() -> None:
    flat, steep = quadratic([1, 0.3]), quadratic([10, 3])
    for name in ("low", "high", "suggestion"):
        assert getattr(flat, name) == pytest.approx(10 * getattr(steep, name))


class Noisy:
    """A classifier with all that a test could leave traces in, on batches that are shuffled by torch's generator."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))
        self.optimizer = torch.optim.Adam(
            [{"params": self.model[0].parameters(), "lr": 1e-3}, {"params": self.model[4].parameters(), "lr": 1e-2}]
        )
        inputs = torch.randn(256, 8)
        labels = inputs[:, :3].argmax(1)
        data = torch.utils.data.TensorDataset(inputs, labels)
        self.batches = torch.utils.data.DataLoader(data, batch_size=32, shuffle=True)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    def find(self, **options) -> LearningRateRange:
        return lr_range_test(self.model, self.optimizer, self.loss, self.batches, **options)


def test_nothing_is_left_of_the_test_but_its_result() -> None:
    tried, untouched = Noisy(), Noisy()
    tried.model[3].eval()
    weights, state = copy.deepcopy(tried.model.state_dict()), copy.deepcopy(tried.optimizer.state_dict())
    torch.manual_seed(1)
    tried.find()
    assert torch.equal(torch.rand(3), torch.manual_seed(1) and torch.rand(3))
    assert all(map(torch.equal, tried.model.state_dict().values(), weights.values()))
    assert tried.optimizer.state_dict() == state == untouched.optimizer.state_dict()
    assert tried.model[1].training
    assert not tried.model[3].training
    assert all(parameter.grad is None for parameter in tried.model.parameters())


def test_an_error_in_the_loss_leaves_everything_as_it_was() -> None:
    tried = Noisy()
    weights = copy.deepcopy(tried.model.state_dict())
    calls = iter(range(100))

    def fail(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        if next(calls) == 50:
            raise RuntimeError("out of memory")
        return tried.loss(model, batch)

    with pytest.raises(RuntimeError, match="out of memory"):
        lr_range_test(tried.model, tried.optimizer, fail, tried.batches)
    assert all(map(torch.equal, tried.model.state_dict().values(), weights.values()))


def test_groups_keep_their_proportions_and_short_data_is_gone_through_again() -> None:
    tried = Noisy()
    seen = []
    step = tried.optimizer.step

    def watch(*arguments) -> None:
        seen.append([group["lr"] for group in tried.optimizer.param_groups])
        step(*arguments)

    tried.optimizer.step = watch
    found = tried.find(steps=50)
    assert len(seen) == len(found.curve) > len(tried.batches)
    assert [first for first, _ in seen] == [point.learning_rate for point in found.curve]
    assert all(second == pytest.approx(10 * first) for first, second in seen)


def test_the_suggestion_trains_better_than_the_ends_of_what_was_tried() -> None:
    found = Noisy().find()

    def trained(rate: float) -> float:
        training = Noisy()
        for group in training.optimizer.param_groups:
            group["lr"] *= rate / 1e-3
        for _ in range(3):
            for batch in training.batches:
                training.optimizer.zero_grad()
                loss = training.loss(training.model, batch)
                loss.backward()
                training.optimizer.step()
        return loss.item()

    ends = (found.curve[0].learning_rate, found.curve[-1].learning_rate)
    assert trained(found.suggestion) < min(map(trained, ends))


def test_the_parameter_is_logarithmic_with_room_for_long_trainings() -> None:
    found = quadratic([1])
    wanted = Float("lr", found.low / 10, found.high, log=True, default=found.suggestion)
    assert found.parameter("lr") == wanted
    assert found.parameter(margin=1).low == found.low
    with pytest.raises(InvalidArgument, match="margin"):
        found.parameter(margin=0.5)


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    quadratic([1, 0.1]).plot(tmp_path / "range.png")
    assert (tmp_path / "range.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"start": 0.0}, "start: is 0.0, not above 0"),
        ({"start": 1.0, "end": 1.0}, "end: is 1.0, not above start"),
        ({"end": float("inf")}, "end: is inf"),
        ({"steps": 9}, "steps: is 9, not 10 or more"),
    ],
)
def test_bad_options_are_named(options: dict, complaint: str) -> None:
    with pytest.raises(InvalidArgument, match=complaint):
        quadratic([1], **options)


def test_a_loss_that_does_not_fall_has_no_range() -> None:
    with pytest.raises(FailedPrecondition, match="did not fall between the learning rates 1e-12 and"):
        quadratic([1], start=1e-12, end=1e-11)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(100, generator=generator).tolist()
    with pytest.raises(FailedPrecondition, match="did not fall"):
        read([Point(1e-6 * 1.1**step, 2 + value) for step, value in enumerate(noise)])


def test_too_few_batches_and_a_loss_that_diverges_at_once_are_said() -> None:
    tried = Noisy()

    def few() -> Iterator[tuple[Tensor, Tensor]]:
        yield from list(tried.batches)[:5]

    with pytest.raises(FailedPrecondition, match="after 5 steps"):
        lr_range_test(tried.model, tried.optimizer, tried.loss, few())
    with pytest.raises(FailedPrecondition, match="diverged"):
        quadratic([1], start=1e3, end=1e9)


def test_a_loss_below_zero_has_a_range_too() -> None:
    curve = [Point(10**exponent, -1 + min(0, -exponent - 3)) for exponent in range(-7, 3)]
    falling = read([*curve, Point(1e3, 5), Point(1e4, 50)])
    assert falling.low < falling.high <= 1e2
