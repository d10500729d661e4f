"""A learning-rate range test, which proposes the bounds of a learning rate.

Smith (2017), "Cyclical Learning Rates for Training Neural Networks", section 3.3: train for some steps while the learning rate grows, and
see where the loss begins to fall and where it stops falling. It grows by the same factor each step, and ends once the loss diverges,
as in fastai, whose "steepest" is the suggestion.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from torch import Tensor, nn
from torch.optim import Optimizer

from asktell.client import FailedPrecondition, Float, InvalidArgument
from asktell.integrations.random_states import random_states, set_random_states

BatchT = TypeVar("BatchT")

DIVERGED: Final = 4.0
"""The test ends at a loss of so many times the least one (smoothed), as in fastai."""
BEGUN: Final = 0.1
"""The loss begins to fall where it has fallen by this share of what it falls in all."""
LEAST_FALL: Final = 0.01
"""What falls by less than this share of it does not fall."""
LEAST_STEPS: Final = 10


class Point(NamedTuple):
    """One step of the test: the loss of a batch, before the step with this learning rate."""

    learning_rate: float
    loss: float


@dataclass(frozen=True, slots=True)
class LearningRateRange:
    """What a range test found.

    Attributes:
        low: Where the loss begins to fall: a tenth of the way to the least loss.
        high: Where it stops falling: the learning rate of the least loss.
        suggestion: Where the loss falls fastest over the logarithm of the learning rate: fastai's "steepest".
        curve: All steps.
        smoothed: The losses of the curve, each the mean of its neighbourhood.
    """

    low: float
    high: float
    suggestion: float
    curve: tuple[Point, ...]
    smoothed: tuple[float, ...]

    def parameter(self, name: str = "learning_rate", *, margin: float = 10.0) -> Float:
        """The parameter to search: from `low / margin` to `high`, logarithmic, with the suggestion as its default.

        The margin is for trainings much longer than the test, which fare well with smaller steps. InvalidArgument for one below 1.
        """
        if not (math.isfinite(margin) and margin >= 1):
            raise InvalidArgument.at("margin", f"is {margin}, not 1 or more")
        return Float(name, self.low / margin, self.high, log=True, default=self.suggestion)

    def plot(self, path: str | Path) -> None:
        """Draw the curve and what was found into a file (.png, .svg, .pdf). MissingExtra without `asktell[plot]`."""
        from asktell.integrations.range_picture import draw  # noqa: PLC0415 - matplotlib, only for pictures.

        draw(self, Path(path))


def lr_range_test(
    model: nn.Module,
    optimizer: Optimizer,
    loss_fn: Callable[[nn.Module, BatchT], Tensor],
    batches: Iterable[BatchT],
    *,
    start: float = 1e-7,
    end: float = 10.0,
    steps: int = 100,
) -> LearningRateRange:
    """Train for at most `steps` batches with learning rates from `start` to `end`, and put everything back as it was.

    Args:
        model: Trained in training mode; its parameters, buffers and mode are restored, gradients are cleared.
        optimizer: As the training will use it; its state and settings are restored. Several groups keep their proportions.
        loss_fn: The loss of a batch, a scalar: `lambda model, batch: cross_entropy(model(batch[0]), batch[1])`.
        batches: Begun anew when they end before the steps do; a generator that ends ends the test.
        start: Learning rate of the first step, above 0.
        end: Learning rate of the last step, above `start`.
        steps: 10 or more.

    Raises:
        InvalidArgument: An option is out of its range.
        FailedPrecondition: There are too few batches, or the loss did not fall.
    """
    _check(start, end, steps)
    rates = [start * (end / start) ** (step / (steps - 1)) for step in range(steps)]
    with _put_back(model, optimizer):
        curve = _climb(model, optimizer, loss_fn, zip(rates, _again(batches), strict=False))
    return read(curve)


def read(curve: Sequence[Point]) -> LearningRateRange:
    """What a curve shows. FailedPrecondition if it is too short, or does not fall."""
    if len(curve) < LEAST_STEPS:
        raise FailedPrecondition(
            f"the loss diverged, or the batches ended, after {len(curve)} steps: try a smaller start, or more steps",
            reason="NO_RANGE",
        )
    losses = [point.loss for point in curve]
    smoothed = _smooth(losses)
    least = min(range(len(curve)), key=smoothed.__getitem__)
    first = max(smoothed[: least + 1])
    fall = first - smoothed[least]
    if fall <= max(LEAST_FALL * abs(first), 2 * _noise(losses[: least + 1], smoothed)):
        raise FailedPrecondition(
            f"the loss did not fall between the learning rates {curve[0].learning_rate:g} and"
            f" {curve[-1].learning_rate:g}: try others, or more steps",
            reason="NO_RANGE",
        )
    # From the top on: before it, a loss may be low by chance.
    top = smoothed.index(first)
    begun = next(place for place in range(top, least + 1) if smoothed[place] <= first - BEGUN * fall)
    rates = [point.learning_rate for point in curve]
    return LearningRateRange(
        low=rates[begun],
        high=rates[least],
        suggestion=rates[_steepest(smoothed, begun, least)],
        curve=tuple(curve),
        smoothed=tuple(smoothed),
    )


def _noise(losses: Sequence[float], smoothed: Sequence[float]) -> float:
    """The standard deviation of the losses about their means."""
    return math.sqrt(sum((loss - mean) ** 2 for loss, mean in zip(losses, smoothed, strict=False)) / len(losses))


def _check(start: float, end: float, steps: int) -> None:
    if not (math.isfinite(start) and start > 0):
        raise InvalidArgument.at("start", f"is {start}, not above 0")
    if not (math.isfinite(end) and end > start):
        raise InvalidArgument.at("end", f"is {end}, not above start, {start}")
    if steps < LEAST_STEPS:
        raise InvalidArgument.at("steps", f"is {steps}, not {LEAST_STEPS} or more")


def _again(batches: Iterable[BatchT]) -> Iterator[BatchT]:
    """The batches, over and over; each round may shuffle them anew."""
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            return


def _climb(
    model: nn.Module,
    optimizer: Optimizer,
    loss_fn: Callable[[nn.Module, BatchT], Tensor],
    steps: Iterable[tuple[float, BatchT]],
) -> list[Point]:
    """Step with one learning rate after the other until the loss diverges."""
    curve: list[Point] = []
    shares = _shares(optimizer)
    recent = least = math.inf
    for rate, batch in steps:
        optimizer.zero_grad()
        loss = loss_fn(model, batch)
        value = float(loss.detach())
        recent = value if not curve else 0.5 * (recent + value)
        least = min(least, recent)
        # A loss may be negative, which has no multiple: then its rise over the first one counts.
        if not math.isfinite(value) or recent - min(least, 0.0) > DIVERGED * _measure(curve, least):
            break
        curve.append(Point(rate, value))
        loss.backward()  # type: ignore[no-untyped-call]
        for group, share in zip(optimizer.param_groups, shares, strict=True):
            group["lr"] = rate * share
        optimizer.step()
    return curve


def _measure(curve: Sequence[Point], least: float) -> float:
    """What the divergence is measured by: the least loss, or the fall so far where the least is below 0."""
    if least > 0 or not curve:
        return abs(least)
    return curve[0].loss - least


def _shares(optimizer: Optimizer) -> list[float]:
    first = float(optimizer.param_groups[0]["lr"])
    return [float(group["lr"]) / first if first > 0 else 1.0 for group in optimizer.param_groups]


@contextmanager
def _put_back(model: nn.Module, optimizer: Optimizer) -> Iterator[None]:
    """Whatever happens in the body, leave model, optimizer and random numbers as they were."""
    weights, state = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    modes = [(module, module.training) for module in model.modules()]
    randomness = random_states()
    model.train()
    try:
        yield
    finally:
        model.load_state_dict(weights)
        optimizer.load_state_dict(state)
        model.zero_grad()
        set_random_states(randomness)
        for module, training in modes:
            module.training = training


def _smooth(losses: Sequence[float]) -> list[float]:
    """Means over a window about each step, of a twentieth of all: centred, so that nothing moves to larger learning rates."""
    half = len(losses) // 40 + 1
    windows = (losses[max(0, place - half) : place + half + 1] for place in range(len(losses)))
    return [sum(window) / len(window) for window in windows]


def _steepest(losses: Sequence[float], first: int, last: int) -> int:
    """Where the loss falls fastest from the step before to the step after, between two steps."""
    return min(range(first, last), key=lambda place: losses[place + 1] - losses[max(0, place - 1)])
