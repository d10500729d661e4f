"""Which configurations an ask may choose from."""

from __future__ import annotations

from itertools import islice

from asktell.server.domain.space import Bool, Categorical, Condition, Float, Int, SearchSpace, key
from asktell.server.policies.scope import Scope

TREE = SearchSpace(
    (
        Categorical(name="optimizer", choices=("sgd", "adam", "lbfgs")),
        Int(name="momentum", low=0, high=4, when=Condition("optimizer", ("sgd",))),
        Bool(name="nesterov", when=Condition("momentum", (3, 4))),
        Bool(name="shuffle"),
    )
)
# sgd: 3 momenta without nesterov and 2 with; adam and lbfgs one each; all twice for shuffle.
TREE_SIZE = (3 + 2 * 2 + 1 + 1) * 2


def test_conditional_configurations_are_counted_as_they_are_walked():
    scope = Scope.of(TREE, {})
    configurations = list(scope.configurations())
    assert scope.count() == len(configurations) == len({key(values) for values in configurations}) == TREE_SIZE
    assert all(TREE.check(values) == values for values in configurations)


def test_fixing_a_child_keeps_only_parents_under_which_it_is_active():
    scope = Scope.of(TREE, {"nesterov": True})
    assert [dict(values) for values in scope.configurations()] == [
        {"optimizer": "sgd", "momentum": momentum, "nesterov": True, "shuffle": shuffle}
        for momentum in (3, 4)
        for shuffle in (False, True)
    ]
    assert scope.count() == 4


def test_contradicting_fixed_parameters_leave_nothing():
    scope = Scope.of(TREE, {"optimizer": "adam", "momentum": 1})
    assert scope.empty
    assert scope.count() == 0
    assert list(scope.configurations()) == []


def test_a_continuum_in_any_branch_makes_a_scope_infinite_unless_that_branch_is_closed():
    space = SearchSpace((Bool(name="a"), Float(name="x", low=0.0, high=1.0, when=Condition("a", (True,)))))
    assert Scope.of(space, {}).count() is None
    assert Scope.of(space, {"a": False}).count() == 1


def test_a_huge_finite_space_is_counted_and_walked_without_listing_it():
    ints = [Int(name=f"i{index}", low=0, high=10**9) for index in range(5)]
    space = SearchSpace((*ints, Bool(name="b", when=Condition("i0", (3,)))))
    scope = Scope.of(space, {})
    assert scope.count() == (10**9 + 2) * (10**9 + 1) ** 4
    first = list(islice(scope.configurations(), 3))
    assert scope.unseen({key(first[0])}, limit=2) == first[1:]
