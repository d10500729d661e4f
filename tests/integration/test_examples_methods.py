"""The example of docs/methods.md does what it says."""

from __future__ import annotations

import re


def test_every_method_searches_in_its_way_and_auto_says_why(example) -> None:
    grid, sobol, evolution, cma, large, finite = example("methods")
    assert "the last by grid of 48" in grid
    assert "the last by sobol" in sobol
    assert "the last by crossover" in evolution
    assert "a budget of 50,000 trials" in large
    assert "the last by enumeration; why: the budget of 8 trials is enough for every configuration" in finite
    best = {line.split(":")[0]: float(re.findall(r"\d\.\d+", line)[0]) for line in (grid, sobol, evolution, cma)}
    assert max(best["evolution"], best["cma-es"]) < min(best["grid"], best["sobol"])
