"""Whether a trial stops, by what was measured of it and of the others."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asktell.server.domain.curve import Curve, Ending
from asktell.server.domain.errors import InvalidArgument
from asktell.server.domain.metric import Goal, Objective
from asktell.server.domain.stopping import (
    Extrapolation,
    Folds,
    Hyperband,
    Median,
    Patience,
    Percentile,
    StoppingKind,
    StoppingRule,
    StopRequest,
    SuccessiveHalving,
    Threshold,
    make_kind,
)
from asktell.server.stopping.extrapolation import forecast
from asktell.server.stopping.folds import chance
from asktell.server.stopping.foresight import foresee
from asktell.server.stopping.judge import judge, leads
from asktell.server.stopping.peers import quantile
from asktell.server.stopping.rungs import bracket, brackets

LOSS = Objective("loss", Goal.MINIMIZE)
ACCURACY = Objective("accuracy", Goal.MAXIMIZE)


def request(
    kind: StoppingKind,
    losses: Mapping[int, Sequence[float]],
    number: int,
    *,
    step: int | None = None,
    metric: Objective = LOSS,
    **rule: int,
) -> StopRequest:
    """A trial of some whose losses at steps 1, 2, 3 and so on are given, as of its last step."""
    curves = {trial: Curve.of(dict(enumerate(values, start=1))) for trial, values in losses.items()}
    at = len(losses[number]) if step is None else step
    return StopRequest(
        rule=StoppingRule(kind=kind, **rule), metric=metric, curves=curves, number=number, first=at, step=at
    )


def flat(*losses: float, steps: int = 1) -> dict[int, list[float]]:
    """Trials 1, 2, 3 and so on with one loss each at all of their steps."""
    return {number: [loss] * steps for number, loss in enumerate(losses, start=1)}


def test_a_trial_worse_than_the_median_of_the_others_at_its_step_stops_and_hears_why() -> None:
    judged = request(Median(), {**flat(0.4, 0.5, 0.6, 0.7, 0.8, steps=3), 6: [0.9, 0.61]}, 6)
    assert judge(judged) == "the median of 5 trials at step 2 is 0.6, this trial's best is 0.61"


def test_a_trial_at_the_median_goes_on() -> None:
    assert judge(request(Median(), {**flat(0.4, 0.5, 0.6, 0.7, 0.8), 6: [0.6]}, 6)) is None


def test_the_median_of_an_even_number_lies_between_the_two_in_the_middle() -> None:
    others = flat(0.2, 0.4, 0.6, 0.8)
    assert judge(request(Median(min_trials=4), {**others, 5: [0.49]}, 5)) is None
    assert judge(request(Median(min_trials=4), {**others, 5: [0.51]}, 5)) is not None


def test_too_few_others_at_the_step_judge_nobody() -> None:
    others = {**flat(0.1, 0.1, 0.1, 0.1, steps=2), 5: [0.1]}
    assert judge(request(Median(), {**others, 6: [0.9, 0.9]}, 6)) is None


def test_the_best_value_so_far_counts_not_the_last() -> None:
    assert judge(request(Median(), {**flat(0.1, 0.5, 0.5, 0.6, 0.7, steps=3), 6: [0.9, 0.45, 0.9]}, 6)) is None


def test_running_averages_of_the_others_are_compared_with_where_that_is_wanted() -> None:
    curves = {**{number: [0.9, 0.3] for number in range(1, 6)}, 6: [0.5, 0.4], 7: [0.2, 0.2]}
    assert judge(request(Median(), curves, 6)) is not None
    assert judge(request(Median(averages=True), curves, 6)) is None


def test_of_a_metric_to_maximise_the_larger_values_are_better() -> None:
    losses = {**flat(-0.9, -0.8, -0.7, -0.6, -0.5), 6: [-0.65]}
    why = judge(request(Median(), losses, 6, metric=ACCURACY))
    assert why == "the median of 5 trials at step 1 is 0.7, this trial's best is 0.65"


def test_a_percentile_keeps_that_share_of_the_best() -> None:
    others = flat(*range(1, 102))
    assert judge(request(Percentile(percentile=25), {**others, 200: [26.0]}, 200)) is None
    assert judge(request(Percentile(percentile=25), {**others, 200: [26.5]}, 200)) is not None
    assert judge(request(Percentile(percentile=90), {**others, 200: [90.0]}, 200)) is None


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9), st.floats(0.01, 0.99))
def test_a_quantile_lies_among_the_values_and_rises_with_its_level(values: list[float], level: float) -> None:
    ascending = sorted(values)
    assert ascending[0] <= quantile(ascending, level) <= ascending[-1]
    assert quantile(ascending, level / 2) <= quantile(ascending, level) + 1e-9


def test_of_those_that_came_to_a_rung_the_best_third_go_on() -> None:
    others = flat(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, steps=3)
    assert judge(request(SuccessiveHalving(), {**others, 9: [0.9, 0.9, 0.25]}, 9)) is None
    why = judge(request(SuccessiveHalving(), {**others, 9: [0.9, 0.9, 0.35]}, 9))
    assert why == "of 9 trials at rung 3 the best 3 go on, and 3 are better than this trial, whose best there is 0.35"


def test_a_rung_of_few_trials_is_told_of_in_the_singular() -> None:
    why = judge(request(SuccessiveHalving(), {**flat(0.1, 0.2, steps=3), 9: [0.9, 0.9, 0.15]}, 9))
    assert why == "of 3 trials at rung 3 the best goes on, and 1 is better than this trial, whose best there is 0.15"


def test_no_more_than_half_of_a_rung_go_on_but_for_the_leader_however_good_the_later_ones_are() -> None:
    went_on = {number: [0.8 - number / 100] * 9 for number in range(1, 5)}
    stopped = {number: [0.9] * 3 for number in range(5, 9)}
    second = {9: [0.9, 0.9, 0.765]}
    why = judge(request(SuccessiveHalving(), {**went_on, **stopped, **second}, 9))
    assert why == "of 9 trials at rung 3, 4 came to step 9, and no more than half go on but for one that leads"
    assert judge(request(SuccessiveHalving(), {**went_on, **stopped, 9: [0.9, 0.9, 0.75]}, 9)) is None
    assert judge(request(SuccessiveHalving(), {**went_on, **stopped, 10: [0.9] * 3, **second}, 9)) is None


def test_who_is_stopped_with_steps_beyond_the_rung_in_its_report_did_not_go_on() -> None:
    curves = {number: [0.8] * 3 + [0.8] * 2 for number in range(1, 9)} | {9: [0.7] * 5, 10: [0.75] * 5}
    assert judge(replace(request(SuccessiveHalving(), curves, 10), first=1)) is None


def test_at_the_last_rung_those_that_are_complete_went_on() -> None:
    curves = {**flat(0.1, 0.5, 0.5, steps=12), 4: [0.9] * 9, 5: [0.9] * 9, 6: [0.3] * 9}
    assert "3 came to step 12" in (judge(request(SuccessiveHalving(), curves, 6, max_step=12)) or "")
    assert judge(request(SuccessiveHalving(), {**curves, 3: [0.5] * 11}, 6, max_step=12)) is None


def test_nobody_is_judged_below_the_first_rung() -> None:
    curves = {**flat(0.1, 0.1, 0.1, steps=9), 4: [0.9, 0.9]}
    assert judge(request(SuccessiveHalving(min_step=3), curves, 4)) is None
    assert judge(request(SuccessiveHalving(min_step=2), curves, 4)) is not None


def test_a_trial_is_judged_at_a_rung_once_when_it_comes_there() -> None:
    curves = {**flat(0.1, 0.1, 0.1, steps=9), 4: [0.9] * 9}
    stops = [judge(request(SuccessiveHalving(), curves, 4, step=step)) is not None for step in range(1, 10)]
    assert [step for step, stop in enumerate(stops, start=1) if stop] == [1, 3, 9]


def test_a_rung_that_lies_among_the_steps_of_one_report_counts() -> None:
    curves = {**flat(0.1, 0.1, 0.1, steps=9), 4: [0.9] * 5}
    together = replace(request(SuccessiveHalving(), curves, 4), first=2)
    assert "at rung 3" in (judge(together) or "")
    assert judge(replace(together, first=4)) is None


def test_a_trial_that_passes_a_rung_between_two_reports_is_judged_by_the_first_beyond_it() -> None:
    curves = {number: Curve.of({5: 0.1}) for number in range(1, 4)} | {4: Curve.of({5: 0.9})}
    rule = StoppingRule(kind=SuccessiveHalving())
    judged = StopRequest(rule=rule, metric=LOSS, curves=curves, number=4, first=5, step=5)
    assert "at rung 3" in (judge(judged) or "")


def test_brackets_have_hyperbands_shares_of_the_trials_all_along() -> None:
    assert brackets(Hyperband(), 81) == 4
    taken = [bracket(number, count=4, factor=3) for number in range(1, 1001)]
    shares = [taken.count(index) / 1000 for index in range(4)]
    weights = [27 * 4 / 4, 9 * 4 / 3, 3 * 4 / 2, 4.0]
    assert shares == pytest.approx([weight / sum(weights) for weight in weights], abs=0.01)
    assert set(taken[:16]) == {0, 1, 2, 3}


def test_only_trials_of_a_bracket_are_compared() -> None:
    late = next(number for number in range(1, 50) if bracket(number, count=4, factor=3) == 3)
    early = [number for number in range(1, 50) if bracket(number, count=4, factor=3) == 0]
    curves = {late: [0.9] * 40, **{number: [0.1] * 40 for number in early}}
    assert judge(request(Hyperband(), curves, late, max_step=81)) is None
    curves[early[0]] = [0.9] * 3
    assert "in bracket 1 of 4" in (judge(request(Hyperband(), curves, early[0], max_step=81)) or "")


def test_a_value_beyond_a_bound_stops_unless_the_trial_leads() -> None:
    high = request(Threshold(at_most=1.0), {1: [0.5, 0.4], 2: [0.5, 1.5]}, 2)
    assert judge(high) == "loss at step 2 is 1.5, above 1"
    low = request(Threshold(at_least=0.5), {1: [-0.9], 2: [-0.4]}, 2, metric=ACCURACY)
    assert judge(low) == "accuracy at step 1 is 0.4, below 0.5"
    assert judge(request(Threshold(at_most=1.0), {1: [3.0], 2: [2.0]}, 2)) is None


def test_a_value_that_is_not_finite_stops_even_the_best() -> None:
    assert judge(request(Threshold(), {1: [0.5, 0.4], 2: [0.1, math.nan]}, 2)) == "loss at step 2 is not finite"
    assert judge(request(Threshold(), {1: [0.5, 0.4], 2: [0.9, 0.8]}, 2)) is None


def test_a_trial_that_has_not_improved_for_long_stops() -> None:
    curves = {1: [0.1] * 9, 2: [0.9, 0.8, 0.79, 0.79]}
    assert judge(request(Patience(steps=2), curves, 2)) is None
    assert judge(request(Patience(steps=2, min_delta=0.02), curves, 2)) is not None
    assert judge(request(Patience(steps=1), curves, 2)) is not None
    assert judge(request(Patience(steps=4), curves, 2)) is None


def test_the_leader_is_not_stopped_for_want_of_progress() -> None:
    assert judge(request(Patience(steps=1), {1: [0.1] * 9, 2: [0.2] * 9}, 1)) is None


def test_a_trial_whose_forecast_misses_the_best_stops() -> None:
    finished = {number: [0.5 + 0.1 * number, 0.3 + 0.1 * number + 0.01 * (number % 2)] for number in range(1, 8)}
    judged = request(Extrapolation(), {**finished, 9: [1.15]}, 9, max_step=2)
    assert "as 7 trials went from step 1 to 2" in (judge(judged) or "")
    assert judge(request(Extrapolation(), {**finished, 9: [0.605]}, 9, max_step=2)) is None


def test_values_that_say_nothing_of_the_end_stop_nobody() -> None:
    finished = {number: [1.0 + number, 0.1 * (number * 5 % 7)] for number in range(1, 8)}
    assert judge(request(Extrapolation(), {**finished, 9: [4.0]}, 9, max_step=2)) is None


@pytest.mark.parametrize("noise", [0.05, 1.0])
def test_forecasts_are_as_sure_as_they_should_be(noise: float) -> None:
    generator = random.Random(1)
    hits, draws = 0, 2000
    for _ in range(draws):
        pairs = [(now, 0.5 * now + generator.gauss(0, noise)) for now in (generator.gauss(0, 1) for _ in range(8))]
        *known, (now, last) = pairs
        hits += forecast(known, now).probability_below(last) < 0.1
    # A slope that is taken for chance costs a little.
    assert 0.07 < hits / draws < 0.15


def test_a_trial_clearly_worse_on_the_same_folds_stops_early() -> None:
    incumbent = [0.30, 0.35, 0.28, 0.33, 0.31]
    curves = {1: incumbent, 2: [0.50, 0.56, 0.47]}
    assert "trial 1" in (judge(request(Folds(folds=5), curves, 2)) or "")
    curves = {1: incumbent, 2: [0.31, 0.34, 0.30]}
    assert judge(request(Folds(folds=5), curves, 2)) is None


def test_without_an_incumbent_on_all_folds_nobody_is_judged() -> None:
    assert judge(request(Folds(folds=5), {1: [0.1] * 4, 2: [0.5] * 3}, 2)) is None


def test_a_trial_with_all_its_folds_is_complete() -> None:
    assert judge(request(Folds(folds=5), {1: [0.1] * 5, 2: [0.5] * 5}, 2)) is None


def test_the_corrected_test_finds_a_difference_that_is_not_there_less_often_than_its_level() -> None:
    generator = random.Random(3)
    found = sum(chance([generator.gauss(0, 1) for _ in range(4)], folds=5) < 0.05 for _ in range(2000)) / 2000
    assert 0.005 < found < 0.05


def test_below_the_warm_up_and_from_the_last_step_on_nobody_is_judged() -> None:
    curves = {**flat(0.1, 0.1, 0.1, 0.1, 0.1, steps=9), 6: [0.9] * 4}
    assert judge(request(Median(), curves, 6, warmup_steps=4)) is not None
    assert judge(request(Median(), curves, 6, warmup_steps=5)) is None
    assert judge(request(Median(), curves, 6, max_step=5)) is not None
    assert judge(request(Median(), curves, 6, max_step=4)) is None


def test_what_an_earlier_attempt_measured_of_later_steps_does_not_count() -> None:
    curves = {**flat(0.4, 0.4, 0.4, 0.4, 0.4, steps=9), 6: [0.9, 0.9, 0.1]}
    assert judge(request(Median(), curves, 6, step=2)) is not None
    assert judge(request(Median(), curves, 6, step=3)) is None


kinds = st.one_of(
    st.builds(Median, min_trials=st.integers(1, 3), averages=st.booleans()),
    st.builds(Percentile, percentile=st.sampled_from([1.0, 50.0, 99.0]), min_trials=st.just(1)),
    st.builds(SuccessiveHalving, reduction_factor=st.integers(2, 4)),
    st.builds(Hyperband, reduction_factor=st.integers(2, 4)),
    st.builds(Threshold, at_most=st.none() | st.just(0.0), at_least=st.none() | st.just(-1.0)),
    st.builds(Patience, steps=st.integers(1, 3)),
    st.builds(Extrapolation, probability=st.just(0.5), min_trials=st.just(4)),
    st.builds(Folds, folds=st.integers(3, 6)),
)
values = st.floats(allow_nan=True, allow_infinity=True) | st.floats(-1, 1) | st.sampled_from([0.0, 0.5, -1e308])
studies = st.dictionaries(
    st.integers(1, 30), st.dictionaries(st.integers(0, 12), values, min_size=1, max_size=9), min_size=1, max_size=9
)


@settings(max_examples=600, deadline=None)
@given(kinds, studies, st.randoms(use_true_random=False))
def test_whatever_was_measured_the_leader_goes_on_and_the_answer_does_not_depend_on_the_order(
    kind: StoppingKind, measured: dict[int, dict[int, float]], shuffle: random.Random
) -> None:
    curves = {number: Curve.of(points) for number, points in measured.items()}
    shuffled = list(curves.items())
    shuffle.shuffle(shuffled)
    rule = StoppingRule(kind=kind, max_step=12)
    best = min(curves, key=lambda number: curves[number].lowest[-1])
    for number, curve in curves.items():
        judged = StopRequest(
            rule=rule, metric=LOSS, curves=curves, number=number, first=curve.steps[-1], step=curve.steps[-1]
        )
        again = StopRequest(
            rule=rule, metric=LOSS, curves=dict(shuffled), number=number, first=curve.steps[-1], step=curve.steps[-1]
        )
        assert judge(judged) == judge(again)
        if leads(judged):
            assert judge(judged) is None
        if number == best and math.isfinite(curve.losses[-1]) and not isinstance(kind, Folds):
            assert leads(judged)


ONE = (LOSS,)
TWO = (LOSS, Objective("latency", Goal.MINIMIZE))


@pytest.mark.parametrize(
    ("rule", "objectives", "field"),
    [
        (StoppingRule(kind=Median()), TWO, "stopping_rule.metric"),
        (StoppingRule(kind=Median(), metric="no name"), ONE, "stopping_rule.metric"),
        (StoppingRule(kind=Median(), metric="validation"), ONE, "stopping_rule.goal"),
        (StoppingRule(kind=Median(), goal=Goal.MINIMIZE), ONE, "stopping_rule.goal"),
        (StoppingRule(kind=Median(), metric="loss", goal=Goal.MAXIMIZE), ONE, "stopping_rule.goal"),
        (StoppingRule(kind=Median(), warmup_steps=-1), ONE, "stopping_rule.warmup_steps"),
        (StoppingRule(kind=Median(), warmup_steps=3, max_step=3), ONE, "stopping_rule.max_step"),
        (StoppingRule(kind=Hyperband()), ONE, "stopping_rule.max_step"),
        (StoppingRule(kind=Extrapolation()), ONE, "stopping_rule.max_step"),
        (StoppingRule(kind=Hyperband(min_step=9), max_step=9), ONE, "stopping_rule.hyperband.min_step"),
        (StoppingRule(kind=Median(min_trials=0)), ONE, "stopping_rule.median.min_trials"),
        (StoppingRule(kind=Percentile(percentile=100.0)), ONE, "stopping_rule.percentile.percentile"),
        (StoppingRule(kind=Percentile(percentile=math.nan)), ONE, "stopping_rule.percentile.percentile"),
        (StoppingRule(kind=SuccessiveHalving(min_step=0)), ONE, "stopping_rule.successive_halving.min_step"),
        (
            StoppingRule(kind=SuccessiveHalving(reduction_factor=1)),
            ONE,
            "stopping_rule.successive_halving.reduction_factor",
        ),
        (StoppingRule(kind=Threshold(at_most=math.inf)), ONE, "stopping_rule.threshold.at_most"),
        (StoppingRule(kind=Threshold(at_most=1.0, at_least=2.0)), ONE, "stopping_rule.threshold.at_least"),
        (StoppingRule(kind=Patience(steps=0)), ONE, "stopping_rule.patience.steps"),
        (StoppingRule(kind=Patience(steps=1, min_delta=-1.0)), ONE, "stopping_rule.patience.min_delta"),
        (StoppingRule(kind=Extrapolation(probability=0.0), max_step=9), ONE, "stopping_rule.extrapolation.probability"),
        (StoppingRule(kind=Extrapolation(min_trials=3), max_step=9), ONE, "stopping_rule.extrapolation.min_trials"),
        (StoppingRule(kind=Folds(folds=2)), ONE, "stopping_rule.folds.folds"),
        (StoppingRule(kind=Folds(folds=5, min_folds=5)), ONE, "stopping_rule.folds.min_folds"),
        (StoppingRule(kind=Folds(folds=5, significance=0.6)), ONE, "stopping_rule.folds.significance"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_by_its_field(
    rule: StoppingRule, objectives: tuple[Objective, ...], field: str
) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        rule.validate(objectives)
    assert refusal.value.field == field


@pytest.mark.parametrize(
    ("rule", "objectives", "metric"),
    [
        (StoppingRule(kind=Median()), ONE, LOSS),
        (StoppingRule(kind=Median(), metric="latency"), TWO, TWO[1]),
        (StoppingRule(kind=Median(), metric="accuracy", goal=Goal.MAXIMIZE), TWO, ACCURACY),
        (StoppingRule(kind=Median(), metric="loss", goal=Goal.MINIMIZE), ONE, LOSS),
    ],
)
def test_a_rule_looks_at_the_metric_that_it_names_else_at_the_only_objective(
    rule: StoppingRule, objectives: tuple[Objective, ...], metric: Objective
) -> None:
    rule.validate(objectives)
    assert rule.looked_at(objectives) == metric


def test_a_required_field_that_is_missing_is_named() -> None:
    with pytest.raises(InvalidArgument, match=r"percentile\.percentile: is required"):
        make_kind("percentile", {})


def ended(curves: Mapping[int, Sequence[float]]) -> dict[int, Curve]:
    return {number: Curve.of(dict(enumerate(losses, start=1))) for number, losses in curves.items()}


ANY = StoppingRule(kind=Median())


def test_where_a_stopped_trial_would_have_ended_follows_from_those_that_went_on() -> None:
    went_on = {number: [0.9, 0.5 + 0.02 * number, 0.1 + 0.06 * number] for number in range(1, 7)}
    assert losses(foresee(ANY, ended({**went_on, 9: [0.9, 0.7]}), [9])) == {9: pytest.approx(0.7)}
    assert losses(foresee(ANY, ended({**went_on, 9: [0.9, 0.58]}), [9])) == {9: pytest.approx(0.34)}


def test_what_few_came_to_is_foreseen_by_way_of_what_more_came_to() -> None:
    halfway = {number: [1.0 + number, 0.5 * number + 0.5] for number in range(1, 7)}
    to_the_end = {20: [2.0, 1.0, 0.8], 21: [3.0, 1.5, 1.3]}
    found = foresee(ANY, ended({**halfway, **to_the_end, 9: [5.0]}), [9])
    assert losses(found) == {9: pytest.approx(2.5 - 0.2)}


def test_nobody_is_foreseen_to_end_better_than_the_best_that_ended_nor_worse_than_it_stood() -> None:
    went_on = {number: [0.5 + 0.02 * number, 0.1 + 0.06 * number] for number in range(1, 7)}
    assert losses(foresee(ANY, ended({**went_on, 9: [0.3]}), [9])) == {9: pytest.approx(0.16)}
    assert losses(foresee(ANY, ended({**went_on, 9: [9.0]}), [9])) == {9: pytest.approx(9.0)}


def test_without_others_to_learn_from_a_stopped_trial_ends_as_it_stood() -> None:
    assert foresee(ANY, ended({1: [0.5, 0.4]}), [1]) == {1: Ending(0.4)}
    assert foresee(ANY, ended({1: [0.5, math.nan]}), [1, 2]) == {}


def test_of_folds_the_mean_is_expected() -> None:
    rule = StoppingRule(kind=Folds(folds=5))
    assert foresee(rule, ended({1: [0.1] * 5, 2: [0.5, 0.7]}), [2]) == {2: Ending(pytest.approx(0.6))}


@settings(max_examples=200, deadline=None)
@given(studies, st.randoms(use_true_random=False))
def test_foresight_is_finite_and_does_not_depend_on_the_order(
    measured: dict[int, dict[int, float]], shuffle: random.Random
) -> None:
    curves = {number: Curve.of(points) for number, points in measured.items()}
    shuffled = list(curves.items())
    shuffle.shuffle(shuffled)
    stopped = [number for number in curves if number % 2]
    found = foresee(ANY, curves, stopped)
    assert found == foresee(ANY, dict(shuffled), stopped[::-1])
    assert all(math.isfinite(loss) for loss in losses(found).values())
    errors = [ending.standard_error for ending in found.values() if ending.standard_error is not None]
    assert all(math.isfinite(error) and error >= 0 for error in errors)


def test_the_standard_error_of_what_is_foreseen_is_how_far_off_it_is() -> None:
    noise = random.Random(5)
    off = []
    for _ in range(300):
        starts = [noise.uniform(0.5, 0.9) for _ in range(9)]
        ends = [2 * start + noise.gauss(0, 0.05) for start in starts]
        went_on = {number: [start, end] for number, (start, end) in enumerate(zip(starts[1:], ends[1:], strict=True))}
        # Bounds would bias what is looked at here: it stands above all, and somebody ends below all.
        curves = ended({**went_on, 20: [0.4, 0.0], 21: [0.4, 0.0], 99: [starts[0]]})
        curves = {**curves, 20: Curve.of({2: -9.0}), 21: Curve.of({2: -9.0})}
        standing = {
            number: Curve.of(
                {step: loss - 3 * (step == 2) for step, loss in zip(curve.steps, curve.losses, strict=True)}
            )
            for number, curve in curves.items()
        }
        ending = foresee(ANY, standing, [99])[99]
        assert ending.standard_error is not None
        off.append((ends[0] - 3 - ending.loss) / ending.standard_error)
    assert 0.7 < statistics.pstdev(off) < 1.3


def test_early_losses_that_say_nothing_of_late_ones_leave_the_whole_spread_as_the_error() -> None:
    lasts = [0.1, 0.5, 0.2, 0.4, 0.3, 0.15]
    curves = ended({number: [0.8, last] for number, last in enumerate(lasts)} | {9: [0.8]})
    ending = foresee(ANY, curves, [9])[9]
    assert ending.loss == pytest.approx(sum(lasts) / 6)
    assert ending.standard_error is not None
    assert ending.standard_error > statistics.stdev(lasts)


def losses(endings: Mapping[int, Ending]) -> dict[int, float]:
    return {number: ending.loss for number, ending in endings.items()}
