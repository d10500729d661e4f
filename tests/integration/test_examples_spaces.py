"""The example of docs/spaces.md does what it says."""

from __future__ import annotations

import re


def test_conditions_constraints_and_a_wider_range_lead_to_what_the_example_promises(example) -> None:
    conditional, constrained, first, widened = example("spaces", "24")
    assert "optimizer=sgd, momentum=0." in conditional
    web, books, width, depth = (
        float(re.findall(rf"{name}=([\d.]+)", constrained)[0]) for name in ("web", "books", "width", "depth")
    )
    assert books <= web
    assert web + books <= 1.001
    assert 1024 <= width * depth <= 2048
    assert "rate=0.001" in first
    assert "schedule=linear" in widened
    assert float(re.findall(r"rate=([\d.]+)", widened)[0]) > 0.01
