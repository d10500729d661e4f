"""What every policy that can raise a fidelity promises."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asktell.server.domain.beliefs import Predict
from asktell.server.domain.fidelity import POLICIES, Fidelity
from asktell.server.domain.metric import Goal, MetricValue, Objective, OutcomeConstraint, Relation
from asktell.server.domain.policy import Decision, Observation, Source, SuggestRequest
from asktell.server.domain.space import Categorical, Float, Int, SearchSpace, key
from asktell.server.domain.trial import TrialState
from asktell.server.policies import registry, safety
from asktell.server.policies.beliefs import Beliefs
from asktell.server.policies.promotion import METHOD, prospect, whole

LOSS = Objective("loss", Goal.MINIMIZE)
EPOCHS = Int(name="epochs", low=1, high=27, log=True)
RUNGS = (1, 3, 9, 27)
SPACE = SearchSpace((Float(name="x", low=0.0, high=1.0), Categorical(name="c", choices=("a", "b")), EPOCHS))
FIDELITY = Fidelity(parameter="epochs")


@pytest.fixture(params=POLICIES)
def policy(request):
    return request.param


def request_for(policy, observations=(), pending=(), **changes):
    usual = {"space": SPACE, "objectives": (LOSS,), "seed": 3, "count": 1, "fidelity": FIDELITY}
    number = len(observations) + len(pending) + 1
    given = {"policy": policy, "observations": tuple(observations), "pending": tuple(pending), "next_number": number}
    return SuggestRequest(**{**usual, **given, **changes})


def ask(policy, observations=(), pending=(), **changes):
    return registry.suggest(request_for(policy, observations, pending, **changes)).candidates


def seen(number, loss, *, x=None, epochs=1, state=TrialState.SUCCEEDED, **metrics):
    told = {} if loss is None else {"loss": MetricValue(loss), **{name: MetricValue(v) for name, v in metrics.items()}}
    return Observation(number, state, {"x": number / 100 if x is None else x, "c": "a", "epochs": epochs}, told)


def configuration(parameters):
    return key({name: value for name, value in parameters.items() if name != "epochs"})


def test_a_new_configuration_starts_at_the_lowest_rung(policy):
    first = ask(policy, count=4)
    assert [each.parameters["epochs"] for each in first] == [1] * 4
    assert not any(each.origin.fallback for each in first)
    assert len({key(each.parameters) for each in first}) == 4


def test_the_best_third_go_on_with_their_parameters_the_best_first(policy):
    observations = [seen(number, float(-number)) for number in range(1, 8)]
    found = ask(policy, observations, count=3)
    assert [each.origin.method == METHOD for each in found] == [True, True, False]
    assert [each.parameters for each in found[:2]] == [
        {"x": 0.07, "c": "a", "epochs": 3},
        {"x": 0.06, "c": "a", "epochs": 3},
    ]
    assert [each.parent for each in found] == [7, 6, 0]
    assert found[0].origin.reason == "among the best 2 of 7 at epochs=1"
    assert found[2].parameters["epochs"] == 1


def test_fewer_than_the_factor_promote_nobody(policy):
    (found,) = ask(policy, [seen(1, 0.5), seen(2, 0.1)])
    assert (found.origin.method == METHOD, found.parameters["epochs"]) == (False, 1)


def test_no_more_than_a_third_ever_go_on_though_the_best_third_changes(policy):
    """One of the first three went on; three better ones came, and of six two go on: the better half of the new best third waits no more."""
    low = [seen(number, float(-number)) for number in range(1, 7)]
    went = seen(7, 0.0, x=0.03, epochs=3)
    found = ask(policy, [*low, went], count=2)
    assert [each.parent for each in found] == [6, 0]
    (found,) = ask(policy, [*low, went, seen(8, 0.0, x=0.02, epochs=3)])
    assert found.origin.method != METHOD


def test_the_highest_rung_goes_first(policy):
    low = [seen(number, float(number)) for number in range(1, 10)]
    high = [seen(10 + number, float(number), x=number / 100, epochs=3) for number in range(1, 4)]
    found = ask(policy, [*low, *high], count=2)
    assert found[0].parameters == {"x": 0.01, "c": "a", "epochs": 9}
    assert found[1].origin.method != METHOD


def test_what_is_pending_or_was_tried_higher_up_does_not_go_on_again(policy):
    low = [seen(number, float(number)) for number in range(1, 7)]
    pending = [{"x": 0.01, "c": "a", "epochs": 3}]
    broke = seen(8, None, x=0.02, epochs=3, state=TrialState.FAILED)
    (found,) = ask(policy, [*low, broke], pending)
    assert found.origin.method != METHOD


@pytest.mark.parametrize("state", [TrialState.FAILED, TrialState.INFEASIBLE, TrialState.STOPPED])
def test_what_did_not_succeed_is_among_those_tried_but_does_not_go_on(policy, state):
    lost = [seen(number, -1.0 if state is TrialState.STOPPED else None, state=state) for number in (1, 2)]
    (found,) = ask(policy, [*lost, seen(3, 0.5)])
    assert found.parameters == {"x": 0.03, "c": "a", "epochs": 3}
    (found,) = ask(policy, [*lost, seen(3, math.nan)])
    assert found.origin.method != METHOD


def test_what_is_feasible_goes_on_first(policy):
    bound = OutcomeConstraint("latency", Relation.AT_MOST, 50.0)
    observations = [seen(1, 0.1, latency=90.0), seen(2, 0.2, latency=60.0), seen(3, 0.3, latency=40.0)]
    found = ask(policy, observations, outcome_constraints=(bound,))
    assert found[0].parameters == {"x": 0.03, "c": "a", "epochs": 3}


def test_of_several_objectives_what_none_dominates_goes_on(policy):
    size = Objective("size", Goal.MINIMIZE)
    worse = [seen(number, 0.8 + number / 100, size=0.9) for number in (1, 2, 3, 4)]
    observations = [*worse, seen(5, 0.1, size=0.5), seen(6, 0.5, size=0.1)]
    found = ask(policy, observations, objectives=(LOSS, size), count=3)
    assert {each.parameters["x"] for each in found if each.origin.method == METHOD} == {0.05, 0.06}
    assert not any(each.origin.fallback for each in found)


@pytest.mark.parametrize("changes", [{}, {"fixed": {"c": "a"}}, {"fixed": {"epochs": 27}}, {"max_trials": 62}])
def test_what_is_left_to_a_policy_is_what_promotions_leave(changes):
    study = played("random", steps=120)
    for wanted in (1, 2, 5):
        asked = request_for("random", study.observations[:60], count=wanted, next_number=61, **changes)
        promoted = [each for each in registry.suggest(asked).candidates if each.origin.method == METHOD]
        left = prospect(asked, whole(asked)).left
        assert (left.count if left else 0) == wanted - len(promoted)


def test_trials_between_the_rungs_compete_nowhere(policy):
    (found,) = ask(policy, [seen(number, float(number), epochs=2) for number in range(1, 5)])
    assert found.origin.method != METHOD


def test_the_order_of_observations_and_pending_trials_does_not_matter(policy):
    observations = played("random", steps=40).observations
    pending = [each.parameters for each in ask(policy, observations, count=4)]
    asked = ask(policy, observations, pending, count=3)
    turned = ask(policy, observations[::-1], pending[::-1], count=3)
    assert [(each.parameters, each.origin.reason) for each in asked] == [
        (each.parameters, each.origin.reason) for each in turned
    ]


def test_a_fixed_fidelity_is_where_new_configurations_start_and_nothing_goes_on(policy):
    observations = [seen(number, float(number)) for number in range(1, 10)]
    found = ask(policy, observations, fixed={"epochs": 27}, count=2)
    assert [each.parameters["epochs"] for each in found] == [27, 27]
    assert not any(each.origin.fallback or each.origin.method == METHOD for each in found)
    assert not {configuration(each.parameters) for each in found} & {
        configuration(each.parameters) for each in observations
    }


def test_other_fixed_parameters_let_go_on_what_has_them(policy):
    observations = [seen(number, float(number)) for number in range(1, 10)]
    (found,) = ask(policy, observations, fixed={"x": 0.02})
    assert found.parameters == {"x": 0.02, "c": "a", "epochs": 3}
    (found,) = ask(policy, observations, fixed={"c": "b"})
    assert (found.parameters["c"], found.parameters["epochs"], found.origin.method == METHOD) == ("b", 1, False)


def test_a_finite_space_ends_when_its_best_has_come_to_the_top(policy):
    space = SearchSpace((Categorical(name="c", choices=("a", "b", "d", "e", "f")), EPOCHS))
    study = Study(policy, space=space, loss=lambda parameters: float(ord(parameters["c"])), finite=True)
    while study.begin():
        study.end(0)
    tried = [each.parameters for each in study.observations]
    assert Counter(parameters["epochs"] for parameters in tried)[1] == 5
    assert {"c": "a", "epochs": 27} in tried
    assert len(tried) < 12


@pytest.mark.parametrize("state", [TrialState.FAILED, TrialState.INFEASIBLE, TrialState.SUCCEEDED])
def test_a_finite_space_whose_best_fails_at_the_top_brings_the_next_there(policy, state):
    space = SearchSpace((Categorical(name="c", choices=("a", "b", "d", "e", "f")), EPOCHS))
    low = {"a": 0.1, "b": 0.2, "d": 0.3, "e": 0.4, "f": 0.5}
    results = [(c, 1, loss, TrialState.SUCCEEDED) for c, loss in low.items()]
    results += [("a", 3, 0.1, TrialState.SUCCEEDED), ("a", 9, 0.1, TrialState.SUCCEEDED), ("a", 27, math.nan, state)]
    for epochs in RUNGS[1:]:
        observations = [
            Observation(number, ended, {"c": c, "epochs": at}, {"loss": MetricValue(loss)})
            for number, (c, at, loss, ended) in enumerate(results, 1)
        ]
        (found,) = ask(policy, observations, space=space)
        assert found.parameters == {"c": "b", "epochs": epochs}
        results.append(("b", epochs, 0.2, TrialState.SUCCEEDED))
    last = Observation(len(results), TrialState.SUCCEEDED, {"c": "b", "epochs": 27}, {"loss": MetricValue(0.2)})
    assert ask(policy, [*observations, last], space=space) == ()


def test_the_last_trials_of_a_budget_leave_out_what_failed_higher_up(policy):
    low = [seen(number, float(number)) for number in range(1, 6)]
    broke = seen(6, None, x=0.01, epochs=3, state=TrialState.FAILED)
    (found,) = ask(policy, [*low, broke], max_trials=9)
    assert (found.parameters["x"], found.parameters["epochs"], found.parent) == (0.02, 3, 2)


def test_the_last_trials_of_a_budget_bring_the_best_to_the_top(policy):
    low = [seen(number, float(number)) for number in range(1, 6)]
    went = [seen(6, 0.5, x=0.02, epochs=3), seen(7, 0.1, x=0.02, epochs=9)]
    found = ask(policy, [*low, *went], max_trials=11)
    assert found[0].origin.method != METHOD
    found = ask(policy, [*low, *went], max_trials=10, count=2)
    assert [(each.parameters["x"], each.parameters["epochs"], each.parent) for each in found] == [
        (0.02, 27, 7),
        (0.01, 3, 1),
    ]


def test_whatever_goes_wrong_trials_start_at_the_lowest_rung(policy):
    def broken(request: SuggestRequest) -> Decision:
        raise ArithmeticError("no")

    request = request_for(policy, [seen(number, float(number)) for number in range(1, 4)], count=2)
    promoted, new = registry.raised(broken, name=policy)(request).candidates
    assert (promoted.parameters["epochs"], promoted.origin.fallback) == (3, "")
    assert (new.parameters["epochs"], new.origin.fallback) == (1, "ArithmeticError: no")
    lost = safety.fallback(request, name=policy, reason="lost").candidates
    assert [each.parameters["epochs"] for each in lost] == [1, 1]


@dataclass
class Study:
    """A study whose trials end in any order."""

    policy: str
    space: SearchSpace = SPACE
    loss: object = None
    observations: list = field(default_factory=list)
    running: list = field(default_factory=list)
    number: int = 0
    finite: bool = False

    def begin(self):
        """Whether there was another trial."""
        candidates = registry.suggest(
            request_for(
                self.policy,
                sorted(self.observations, key=lambda each: each.number),
                [parameters for _, parameters in sorted(self.running, key=lambda each: each[0])],
                space=self.space,
                next_number=self.number + 1,
            )
        ).candidates
        for each in candidates:
            self.number += 1
            self.check(each)
            self.running.append((self.number, each.parameters))
        return bool(candidates)

    def end(self, place, loss=None, state=TrialState.SUCCEEDED):
        number, parameters = self.running.pop(place % len(self.running))
        loss = self.loss(parameters) if loss is None else loss
        told = {"loss": MetricValue(loss)} if state is TrialState.SUCCEEDED else {}
        self.observations.append(Observation(number, state, parameters, told))

    def check(self, candidate):
        """It has not been tried at its rung; if it goes on, it was among the best third that came to the rung below."""
        parameters, tried = candidate.parameters, [each.parameters for each in self.observations]
        assert key(parameters) not in {key(each) for each in (*tried, *(each for _, each in self.running))}
        if candidate.origin.method != METHOD:
            assert (parameters["epochs"], candidate.parent) == (1, 0)
            return
        below = RUNGS[RUNGS.index(parameters["epochs"]) - 1]
        ended = [each for each in self.observations if each.parameters["epochs"] == below]
        losses = sorted(each.metrics["loss"].value for each in ended if each.state is TrialState.SUCCEEDED)
        (own,) = [each for each in ended if configuration(each.parameters) == configuration(parameters)]
        assert (own.number, own.state) == (candidate.parent, TrialState.SUCCEEDED)
        higher = [
            configuration(each) for each in (*tried, *(each for _, each in self.running)) if each["epochs"] > below
        ]
        gone = {configuration(each.parameters) for each in ended} & set(higher)
        assert self.finite or len(gone) < len(ended) // 3
        assert own.metrics["loss"].value <= losses[max(len(ended) // 3, int(self.finite)) - 1]


def played(policy, *, steps):
    """A study of four workers whose loss falls with x and with the epochs."""
    study = Study(policy, loss=lambda parameters: (parameters["x"] - 0.3) ** 2 + 1 / parameters["epochs"])
    for step in range(steps):
        if len(study.running) < 4:
            study.begin()
        else:
            study.end(step)
    return study


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 20), st.integers(0, 9)), min_size=40, max_size=100))
def test_nothing_goes_on_too_early_or_twice_however_eight_workers_end(steps):
    study = Study("random")
    for place, loss, luck in steps:
        while len(study.running) < 8:
            study.begin()
        study.end(place, float(loss), TrialState.FAILED if luck == 0 else TrialState.SUCCEEDED)


@pytest.mark.parametrize("policy", ["gp", "gp-botorch"])
def test_a_surrogate_chooses_by_what_it_expects_at_the_highest_fidelity(policy):
    """What is best at the lowest rung, near 0.1, is bad at the highest, where 0.9 is best; all rungs say where either is."""
    space = SearchSpace((Float(name="x", low=0.0, high=1.0), Float(name="epochs", low=1.0, high=27.0, log=True)))

    def loss(x, epochs):
        share = math.log(epochs) / math.log(27)
        return (1 - share) * (x - 0.1) ** 2 + share * (x - 0.9) ** 2

    places = [(x, 1.0) for x in (0.05, 0.2, 0.35, 0.5, 0.65, 0.8)] + [(x, 3.0) for x in (0.05, 0.5, 0.8)]
    places += [(x, 9.0) for x in (0.2, 0.6)] + [(x, 27.0) for x in (0.05, 0.5)]
    observations = [
        Observation(number, TrialState.SUCCEEDED, {"x": x, "epochs": epochs}, {"loss": MetricValue(loss(x, epochs))})
        for number, (x, epochs) in enumerate(places, 1)
    ]
    pending = [{"x": 0.05, "epochs": 9.0}]
    found = [each for each in ask(policy, observations, pending, space=space, count=4) if each.origin.acquisition]
    assert found
    assert found[0].parameters["x"] > 0.7
    assert found[0].parameters["epochs"] == 1.0
    assert found[0].origin.predictions["loss"].mean < 0.3 < loss(found[0].parameters["x"], 1.0)


def test_a_new_configuration_is_none_that_was_tried_at_another_rung(policy):
    study = played("random", steps=60)
    again = replace(request_for(policy, study.observations), next_number=study.number + 1, count=4)
    fresh = [each for each in registry.suggest(again).candidates if each.origin.method != METHOD]
    assert {configuration(each.parameters) for each in fresh}.isdisjoint(
        configuration(each.parameters) for each in study.observations
    )


def test_auto_is_random_in_a_study_that_is_too_large_for_a_surrogate():
    (found,) = ask("auto", [seen(1, 0.5)], max_trials=6_000)
    assert (found.origin.policy, found.origin.fallback, found.parameters["epochs"]) == ("random", "", 1)
    assert "a budget of 6,000 trials" in found.origin.reason


@pytest.mark.parametrize("shared", [{"x", "c", "epochs"}, {"x", "c"}])
def test_a_study_that_starts_from_another_tries_its_best_at_the_lowest_rung_and_learns_from_it(shared):
    earlier = [
        Observation(
            number,
            TrialState.SUCCEEDED,
            {name: value for name, value in {"x": number / 20, "c": "b", "epochs": 27}.items() if name in shared},
            {"loss": MetricValue((number / 20 - 0.4) ** 2)},
        )
        for number in range(1, 20)
    ]
    sources = (Source("earlier", frozenset(shared), tuple(earlier)),)
    first, *_ = ask("gp", sources=sources)
    assert first.parameters == {"x": 0.4, "c": "b", "epochs": 1}
    history = played("random", steps=60).observations
    found = ask("gp", history, sources=sources, next_number=100, count=3)
    assert not any(each.origin.fallback for each in found)
    assert {each.parameters["epochs"] for each in found if each.origin.method != METHOD} == {1}


LINE = SearchSpace((Float(name="x", low=0.0, high=1.0), Float(name="epochs", low=1.0, high=27.0, log=True)))
SURROGATES = ("auto", "gp", "gp-botorch")


def turned(x, epochs):
    """What is best at the lowest rung, near 0.1, is bad at the highest, where 0.9 is best."""
    share = math.log(epochs) / math.log(27)
    return (1 - share) * (x - 0.1) ** 2 + share * (x - 0.9) ** 2


def climbed(*, metric="loss", **metrics):
    """Twelve trials at the lowest rung, of which three went on to the top, the best among them: another one may go on."""
    places = [(x, 1.0) for x in (0.05, 0.13, 0.21, 0.3, 0.38, 0.47, 0.55, 0.64, 0.72, 0.8, 0.88, 0.97)]
    places += [(x, epochs) for x in (0.13, 0.55, 0.8) for epochs in (3.0, 9.0, 27.0)]
    return [
        Observation(
            number,
            TrialState.SUCCEEDED,
            {"x": x, "epochs": epochs},
            {
                metric: MetricValue(turned(x, epochs)),
                **{name: MetricValue(of(x, epochs)) for name, of in metrics.items()},
            },
        )
        for number, (x, epochs) in enumerate(places, 1)
    ]


@pytest.mark.parametrize("policy", SURROGATES)
def test_once_some_came_farther_those_go_on_of_whom_most_is_expected_at_the_top(policy):
    (found,) = ask(policy, climbed(), space=LINE)
    assert (found.origin.method, found.parameters["epochs"]) == (METHOD, 3.0)
    assert found.parameters["x"] > 0.8
    assert (
        found.origin.reason == "among the 4 of 12 at epochs=1 that are best or of which most is expected at epochs=27"
    )


def test_the_best_at_the_rung_and_those_of_which_most_is_expected_go_on_in_turns():
    """With three more configurations than `climbed` has there are two places: the second is that of the best that did not go on yet."""
    more = [
        Observation(30 + number, TrialState.SUCCEEDED, {"x": x, "epochs": 1.0}, {"loss": MetricValue(turned(x, 1.0))})
        for number, x in enumerate((0.45, 0.5, 0.6))
    ]
    found = ask("gp", [*climbed(), *more], space=LINE, count=2)
    assert [each.origin.method for each in found] == [METHOD, METHOD]
    assert found[0].parameters["x"] > 0.8
    assert found[1].parameters["x"] == 0.05


def test_without_a_surrogate_ranks_say_who_goes_on():
    (found,) = ask("random", climbed(), space=LINE)
    assert (found.parameters["x"], found.origin.reason) == (0.05, "among the best 4 of 12 at epochs=1")


def test_without_time_for_a_surrogate_ranks_say_who_goes_on():
    decision = registry.suggest(request_for("gp", climbed(), space=LINE, time_limit=1e-9))
    (found,) = decision.candidates
    assert (found.origin.method, found.parameters["x"], decision.timely) == (METHOD, 0.05, 0)


@pytest.mark.parametrize("policy", ["gp", "random"])
def test_promotions_in_time_are_counted_with_the_new_configurations(policy):
    count = len(climbed())
    decision = registry.suggest(request_for(policy, climbed(), space=LINE, count=count))
    methods = [each.origin.method for each in decision.candidates]
    assert METHOD in methods
    assert set(methods) != {METHOD}
    assert decision.timely == (count if policy == "gp" else None)


def test_what_is_expected_to_miss_a_bound_at_the_top_goes_on_last():
    """At the highest fidelity only what is below 0.7 is small enough, though all are at the lowest."""
    bound = OutcomeConstraint("size", Relation.AT_MOST, 0.7)
    observations = climbed(size=lambda x, epochs: x * math.log(epochs) / math.log(27))
    (found,) = ask("gp", observations, space=LINE, outcome_constraints=(bound,))
    assert found.origin.method == METHOD
    assert 0.5 < found.parameters["x"] < 0.7


def test_a_metric_to_maximise_is_expected_with_its_own_sign():
    observations = [replace(each, metrics={"score": MetricValue(-each.metrics["loss"].value)}) for each in climbed()]
    (found,) = ask("gp", observations, space=LINE, objectives=(Objective("score", Goal.MAXIMIZE),))
    assert found.origin.method == METHOD
    assert found.parameters["x"] > 0.8


def test_of_several_objectives_the_front_that_is_expected_at_the_top_goes_on():
    size = Objective("size", Goal.MINIMIZE)
    observations = climbed(size=lambda x, epochs: (x - 0.6) ** 2)
    (found,) = ask("gp", observations, space=LINE, objectives=(LOSS, size))
    assert found.origin.method == METHOD
    assert 0.55 < found.parameters["x"] < 0.9


@pytest.mark.parametrize("count", [1, 3])
def test_promotions_are_the_same_with_a_hint_and_without_and_leave_one(count):
    request = request_for("gp", climbed(), space=LINE, count=count)
    first = registry.suggest(request)
    assert first.hint
    again = registry.suggest(replace(request, hint=first.hint))
    assert [each.parameters for each in again.candidates] == [each.parameters for each in first.candidates]
    assert again.hint == first.hint


def test_who_is_foreseen_to_go_on_takes_a_model_and_who_ranks_let_go_on_does_not():
    assert registry.outlook(request_for("auto", climbed(), space=LINE)) is registry.Outlook.MODEL
    assert registry.outlook(request_for("random", climbed(), space=LINE)) is registry.Outlook.NO_MODEL
    ranked = [seen(number, float(-number)) for number in range(1, 8)]
    assert registry.outlook(request_for("auto", ranked)) is registry.Outlook.MODEL_LATER


@pytest.mark.parametrize("waves", [0.0, 0.1])
def test_what_waits_where_most_is_expected_is_not_chosen_again_and_again(waves):
    """The lowest rung tells nothing of the highest, and nothing goes on: each result there leaves all as it was but that one more waits."""
    tops = (0.1, 0.3, 0.5, 0.7, 0.9) if waves == 0 else (0.05, 0.4, 0.95)
    places = [(x / 11, 1.0, 0.8 + 0.1 * math.sin(40 * x)) for x in range(12)]
    places += [(x, 27.0, (x - 0.6) ** 2 + waves * math.sin(9 * x)) for x in tops]
    pending = [{"x": x / 11, "epochs": 3.0} for x in (1, 3, 5, 7)]
    chosen = []
    for _ in range(3):
        observations = [
            Observation(number, TrialState.SUCCEEDED, {"x": x, "epochs": epochs}, {"loss": MetricValue(loss)})
            for number, (x, epochs, loss) in enumerate(places, 1)
        ]
        (found,) = ask("gp", observations, pending, space=LINE)
        assert found.origin.method != METHOD
        chosen.append(found.parameters["x"])
        (believed,) = Beliefs(whole(request_for("gp", observations, space=LINE))).answer(Predict((found.parameters,)))
        places.append((chosen[-1], 1.0, believed["loss"].mean))
    assert abs(chosen[2] - chosen[1]) > 0.05
