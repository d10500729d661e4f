"""What `make bench-pbt` compares, and that a population is ahead where the best parameters change."""

from __future__ import annotations

import statistics

import pytest

from benchmarks.populations import losses
from benchmarks.schedules import SCHEDULES


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_population_ends_lower_than_a_random_search_with_as_many_steps(name):
    found = {
        policy: statistics.median(losses(SCHEDULES[name], policy, range(5), size=8, intervals=20, steps=25))
        for policy in ("pbt", "random")
    }
    assert found["pbt"] < 0.7 * found["random"]


def test_a_course_is_the_same_whenever_it_is_run():
    first, second = (losses(SCHEDULES["noisy"], "pbt", [3], size=4, intervals=5, steps=5) for _ in range(2))
    assert first == second
