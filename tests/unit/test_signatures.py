"""Whether a callable takes what it will be given."""

from __future__ import annotations

import functools

import pytest

from asktell.signatures import misfit


class Model:
    def __init__(self, width=3):
        self.width = width

    def __call__(self, trial):
        return self.width

    def score(self, trial):
        return self.width


def of_worker(parameters, trial):
    return 1.0


def typed(parameters: dict, trial: object, *, fast: bool = False) -> float:
    return 1.0


async def awaited(trial):
    return 1.0


@functools.wraps(of_worker)
def wrapping(trial):
    return 1.0


@pytest.mark.parametrize(
    "function",
    [
        lambda trial: 1.0,
        lambda trial, extra=1: 1.0,
        lambda *everything: 1.0,
        Model,
        Model(),
        Model().score,
        functools.partial(of_worker, {}),
        wrapping,
        awaited,
        max,
        dict,
    ],
)
def test_what_takes_a_trial_fits(function):
    assert misfit(function, None) == ""


@pytest.mark.parametrize(
    ("function", "takes"),
    [
        (of_worker, "(parameters, trial)"),
        (typed, "(parameters, trial, *, fast=False)"),
        (lambda: 1.0, "()"),
        (functools.partial(of_worker, {}, None), "()"),
        (Model.score, "(self, trial)"),
        (lambda *, trial: 1.0, "(*, trial)"),
    ],
)
def test_what_takes_anything_else_is_said_with_what_it_takes(function, takes):
    assert misfit(function, None) == takes
