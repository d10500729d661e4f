"""Where constraints are met: drawing there, repairing, stepping back, walking through finite spaces."""

from __future__ import annotations

import numpy as np
import pytest

from asktell.server.domain.constraints import InputConstraint
from asktell.server.domain.space import Bool, Condition, Float, Int, Ordinal, SearchSpace, key
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.region import Region
from asktell.server.policies.scope import Scope

UNIT = [Float(name=f"x{index}", low=0.0, high=1.0) for index in range(3)]


def space(*specs, where):
    return SearchSpace(specs, tuple(map(InputConstraint.parse, where)))


def region(of):
    return Region(Encoder.of(of))


def random(seed=0):
    return np.random.default_rng(seed)


def test_without_constraints_every_row_is_allowed():
    free = region(space(*UNIT, where=[]))
    assert free.unbounded
    assert free.allows(random().random((5, 3))).all()


@pytest.mark.parametrize(
    "of",
    [
        space(*UNIT, where=["x0 <= x1 <= x2", "x0 + x1 + x2 <= 1"]),
        space(Float(name="a", low=1e-9, high=1.0, log=True), UNIT[0], where=["a <= 1e-3 * x0"]),
        space(
            Float(name="a", low=0.0, high=1.0, step=0.1), Ordinal(name="b", values=(3, 0.5, 1)), where=["a * b <= 0.3"]
        ),
        space(
            Int(name="a", low=1, high=10**9, log=True), Int(name="b", low=-5, high=99, step=4), where=["a * b <= 1000"]
        ),
    ],
)
def test_rows_are_allowed_exactly_where_their_configurations_are(of):
    encoder = Encoder.of(of)
    rows = encoder.draw(random().random((400, len(of))))
    allowed = Region(encoder).allows(rows)
    assert 0 < allowed.sum() < 400
    assert allowed.tolist() == [of.allows(encoder.decode(row)) for row in rows]


def test_a_row_is_repaired_by_the_least_change_of_one_parameter_at_a_time():
    rows, allowed = region(space(*UNIT, where=["x0 + x1 <= 1"])).repaired(
        np.array([[0.9, 0.3, 0.5], [0.2, 0.3, 0.5]]), random()
    )
    assert allowed.all()
    assert rows[1].tolist() == [0.2, 0.3, 0.5]
    assert rows[0, 2] == 0.5
    assert rows[0, :2].sum() == pytest.approx(1.0)
    assert (rows[0, :2] == [0.9, 0.3]).sum() == 1


def test_rows_that_cannot_be_repaired_are_said_not_to_be_allowed():
    _, allowed = region(space(*UNIT, where=["x0 + x1 <= 0.5", "x1 + x2 >= 1.8", "x0 >= x2"])).repaired(
        np.full((3, 3), 0.5), random()
    )
    assert not allowed.any()


def test_stepping_back_ends_at_the_boundary():
    ball = region(space(*UNIT, where=["x0**2 + x1**2 + x2**2 <= 0.25"]))
    found = ball.between(np.zeros((1, 3)), np.array([[0.9, 0.0, 0.0]]))
    assert 0.44 < found[0, 0] <= 0.5
    assert ball.allows(found).all()


def test_a_projection_goes_to_the_nearest_point_of_the_boundary_and_moves_only_what_is_free():
    plane = region(space(*UNIT, where=["x0 + x1 + x2 <= 1"]))
    outside = np.array([[0.8, 0.6, 0.5], [0.8, 0.6, 0.5]])
    free = np.array([[True, True, True], [True, False, False]])
    found = plane.projected(outside, free)
    assert found[0] == pytest.approx([0.5, 0.3, 0.2], abs=1e-6)
    assert found[1, 1:].tolist() == [0.6, 0.5]
    assert found[1, 0] == pytest.approx(0.0, abs=1e-6)


def test_the_nearest_allowed_row_moves_all_numbers_a_little_and_is_rounded():
    of = space(*(Int(name=f"i{index}", low=0, high=10) for index in range(3)), where=["i0 + i1 + i2 <= 10"])
    rows, allowed = region(of).nearest(np.array([[0.8, 0.6, 0.1], [0.1, 0.1, 0.1]]), random())
    assert allowed.all()
    assert rows[1] == pytest.approx([0.1, 0.1, 0.1])
    assert np.abs(rows[0] - [0.8, 0.6, 0.1]).max() <= 0.3 + 1e-9


def test_draws_from_a_thin_set_differ_and_reach_far_apart():
    thin = space(*(Int(name=f"i{index}", low=0, high=100) for index in range(3)), where=["100 <= i0 + i1 + i2 <= 100"])
    rows = region(thin).draw(random(), 64)
    configurations = [Encoder.of(thin).decode(row) for row in rows]
    assert len({key(each) for each in configurations}) > 40
    assert all(sum(each.values()) == 100 for each in configurations)
    assert np.ptp(rows, axis=0).min() > 0.5


def test_after_the_deadline_a_draw_is_content_with_fewer_rows():
    thin = space(*UNIT, where=["x0 + x1 + x2 <= 0.01"])
    encoder = Encoder.of(thin)
    whole, hasty = Region(encoder).draw(random(), 200), Region(encoder, Deadline.after(0.0)).draw(random(), 200)
    assert len(whole) == 200
    assert 1 <= len(hasty) < 200
    assert Region(encoder).allows(hasty).all()


def test_an_inactive_parameter_breaks_nothing():
    conditional = space(
        Bool(name="on"), Float(name="x", low=0.0, high=1.0, when=Condition("on", (True,))), where=["x <= 0.5"]
    )
    assert region(conditional).allows(np.array([[0.0, 0.9], [1.0, 0.9], [1.0, 0.4]])).tolist() == [True, False, True]


def test_a_finite_space_is_counted_and_walked_as_its_constraints_leave_it():
    of = space(
        *(Int(name=name, low=0, high=9) for name in "abc"),
        Bool(name="on"),
        Int(name="d", low=0, high=9, when=Condition("on", (True,))),
        where=["a + b + c <= 4", "d <= a"],
    )
    brute = [each for each in Scope.of(SearchSpace(of.parameters), {}).configurations() if of.allows(each)]
    scope = Scope.of(of, {})
    assert list(scope.configurations()) == brute
    assert scope.count() == len(brute)
    assert Scope.of(of, {"a": 3}).count() == sum(each["a"] == 3 for each in brute)
    assert Scope.of(of, {"a": 0, "d": 1}).count() == 0


def test_a_walk_skips_what_cannot_be_completed():
    """Of a trillion configurations the few allowed ones are found at once, and the walk through none ends."""
    names = [f"i{index}" for index in range(4)]
    of = space(*(Int(name=name, low=0, high=999) for name in names), where=[f"{' + '.join(names)} <= 1"])
    assert len(list(Scope.of(of, {}).configurations())) == 5
    none = space(
        *(Int(name=name, low=0, high=999) for name in names),
        where=["i0 + i1 <= 3", "i1 + i2 >= 1200", "i0 - i2 >= -900"],
    )
    assert not list(Scope.of(none, {}).configurations())
