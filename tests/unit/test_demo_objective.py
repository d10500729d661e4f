"""The demo's objective, its space and the record of random search."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import torch

from examples.digits import objective
from examples.digits.random_search import RECORD, configurations, recorded
from examples.digits.record_random import SEEDS, TRIALS, accuracy
from examples.digits.space import DEFAULTS, PARAMETERS

SMALL = {
    "learning_rate": 0.01,
    "weight_decay": 1e-5,
    "dropout": 0.2,
    "batch_size": 128,
    "layers": 1,
    "width": 32,
    "activation": "relu",
    "optimizer": "adam",
}


@dataclass
class Verdict:
    should_stop: bool


@dataclass
class Trial:
    """Keeps the reports; asks to stop after `patience` of them."""

    patience: int = 99
    reports: list[tuple[int, float]] = field(default_factory=list)

    def report(self, *, step: int, accuracy: float) -> Verdict:
        self.reports.append((step, accuracy))
        return Verdict(should_stop=len(self.reports) >= self.patience)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_configuration_has_one_value_whatever_was_drawn_before():
    torch.manual_seed(1)
    first = objective.train(SMALL, Trial())
    torch.manual_seed(2)
    assert objective.train(SMALL, Trial()) == first


def test_training_leaves_the_random_numbers_of_its_process_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    objective.train(SMALL, Trial(patience=1))
    assert torch.equal(torch.rand(3), expected)


def test_a_sensible_network_reads_most_digits_and_its_error_is_small():
    mean, standard_error = objective.train(SMALL, Trial())["accuracy"]
    assert 0.85 < mean <= 1.0
    assert 0.0 < standard_error < 0.05


def test_each_fold_is_reported_as_the_running_mean_and_the_last_report_is_the_result():
    trial = Trial()
    result = objective.train(SMALL, trial)
    assert [step for step, _ in trial.reports] == [1, 2, 3]
    assert trial.reports[-1][1] == result["accuracy"][0]


def test_a_trial_told_to_stop_trains_no_further_fold_and_claims_no_error_of_its_mean():
    trial = Trial(patience=1)
    result = objective.train(SMALL, trial)
    assert trial.reports == [(1, result["accuracy"])]


def test_a_network_that_diverges_guesses_instead_of_failing():
    diverging = SMALL | {"optimizer": "sgd", "momentum": 0.99, "learning_rate": 1e12}
    mean, _ = objective.train(diverging, Trial())["accuracy"]
    assert 0.0 < mean < 0.3


def test_momentum_acts_on_sgd_and_on_nothing_else():
    assert accuracy(SMALL | {"momentum": 0.9}) == accuracy(SMALL)
    sgd = SMALL | {"optimizer": "sgd"}
    assert accuracy(sgd | {"momentum": 0.9}) > accuracy(sgd | {"momentum": 0.0})


def test_an_unknown_optimizer_is_refused_by_name():
    with pytest.raises(ValueError, match="'lbfgs' is unknown"):
        objective.train(SMALL | {"optimizer": "lbfgs"}, Trial())


def test_each_fold_is_standardised_by_its_training_part_alone():
    for fold in objective._folds():
        means, deviations = fold.inputs.mean(dim=0), fold.inputs.std(dim=0)
        assert torch.allclose(means, torch.zeros(64), atol=1e-4)
        assert all(abs(deviation - 1.0) < 1e-3 or deviation == 0.0 for deviation in deviations.tolist())
        assert not torch.allclose(fold.held_out_inputs.mean(dim=0), torch.zeros(64), atol=1e-3)


def test_the_folds_share_out_all_images():
    assert sum(len(fold.held_out_labels) for fold in objective._folds()) == 1797
    assert all(len(fold.labels) + len(fold.held_out_labels) == 1797 for fold in objective._folds())


def test_random_configurations_lie_in_the_space_and_have_momentum_only_under_sgd():
    names = {spec.name for spec in PARAMETERS}
    for drawn in configurations(seed=7, count=200):
        assert set(drawn) == (names if drawn["optimizer"] == "sgd" else names - {"momentum"})
        assert 1e-5 <= drawn["learning_rate"] <= 1e-1
        assert drawn["batch_size"] in {16, 32, 64, 128, 256}
        assert drawn["layers"] in {1, 2, 3, 4}


def test_random_configurations_are_those_of_their_seed():
    first = list(configurations(seed=3, count=5))
    assert first == list(configurations(seed=3, count=5))
    assert first == list(configurations(seed=3, count=40))[:5]
    assert first != list(configurations(seed=4, count=5))


def test_the_record_has_all_runs_at_the_demo_s_budget_by_this_objective():
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert record["objective"] == {"folds": objective.FOLDS, "epochs": objective.EPOCHS}
    assert record["defaults"]["parameters"] == DEFAULTS
    assert [run["seed"] for run in record["runs"]] == list(SEEDS)
    assert all(len(run["accuracies"]) == TRIALS for run in record["runs"])
    assert all(0.0 < value <= 1.0 for run in record["runs"] for value in run["accuracies"])


def test_the_recorded_values_are_what_the_objective_says():
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    first = next(configurations(seed=0, count=1))
    # Another version of torch may round or draw otherwise.
    assert accuracy(first) == pytest.approx(record["runs"][0]["accuracies"][0], abs=0.02)
    assert accuracy(DEFAULTS) == pytest.approx(record["defaults"]["accuracy"], abs=0.02)


def test_the_course_of_random_search_never_falls_and_ends_at_the_bests():
    random_search = recorded()
    course = list(random_search.course())
    assert len(course) == TRIALS
    assert all(later[place] >= earlier[place] for earlier, later in pairwise(course) for place in range(3))
    bests = random_search.bests(TRIALS)
    assert (course[-1][0], course[-1][2]) == (min(bests), max(bests))
