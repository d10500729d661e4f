"""Which configurations an ask may choose from."""

from __future__ import annotations

import inspect
import sys
from itertools import islice

from asktell.server.domain.space import Bool, Categorical, Condition, Float, Int, Ordinal, SearchSpace, key
from asktell.server.policies.scope import Rest, Scope, _Forest

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


def chain(layers, values):
    """Each layer is active whatever value the one before has."""
    first = Ordinal(name="p0", values=values)
    others = [Ordinal(name=f"p{i}", values=values, when=Condition(f"p{i - 1}", values)) for i in range(1, layers)]
    return SearchSpace((first, *others))


def test_a_chain_of_conditions_as_deep_and_wide_as_allowed_is_counted_in_one_pass(monkeypatch):
    asked = []
    active = _Forest.active
    monkeypatch.setattr(_Forest, "active", lambda *arguments: asked.append(1) or active(*arguments))
    space = chain(64, tuple(range(1_000)))
    assert Scope.of(space, {}).count() == 1_000**64
    assert len(asked) == 63 * 1_000


def test_a_condition_is_looked_up_and_not_searched_for(monkeypatch):
    compared = []
    monkeypatch.setattr(Number, "__eq__", lambda self, other: compared.append(1) or int(self) == int(other))
    values = tuple(map(Number, range(1_000)))
    space = chain(2, values)
    assert Scope.of(space, {"p1": values[7]}).count() == 1_000
    assert len(compared) < 10_000


class Number(int):
    """A number that can tell how often it was compared."""

    __hash__ = int.__hash__


def test_as_many_parameters_as_allowed_are_walked_without_recursion():
    space = SearchSpace(tuple(Bool(name=f"b{index}") for index in range(500)))
    depth = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 100)
    try:
        first, second = islice(Scope.of(space, {}).configurations(), 2)
    finally:
        sys.setrecursionlimit(depth)
    assert not any(first.values())
    assert [name for name, value in second.items() if value] == ["b499"]


def test_what_is_left_is_walked_once_however_often_it_is_asked_for(monkeypatch):
    walks = []
    configurations = Scope.configurations
    monkeypatch.setattr(Scope, "configurations", lambda scope: walks.append(1) or configurations(scope))
    scope, seen = Scope.of(TREE, {}), set()
    rest = Rest(scope, limit=5)
    for _ in range(TREE_SIZE):
        fresh = rest.unseen(seen)
        assert fresh == scope_unseen(scope, configurations, seen)[:5]
        seen.add(key(fresh[len(fresh) // 2]))
    assert not rest.unseen(seen)
    assert len(walks) == 1


def scope_unseen(scope, configurations, seen):
    return [values for values in configurations(scope) if key(values) not in seen]
