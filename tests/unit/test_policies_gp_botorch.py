"""The policy that runs wholly on BoTorch: it agrees with the project's own numerics, and leaves the process as it found it."""

from __future__ import annotations

import ast
import os
import pickle
import random
import subprocess
import sys
import time
import warnings
import zlib
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from asktell.server import bootstrap
from asktell.server.domain.metric import Goal, MetricValue, Objective, OutcomeConstraint, Relation
from asktell.server.domain.policy import Candidate, Decision, Observation, SuggestRequest
from asktell.server.domain.space import Bool, Categorical, Condition, Float, Int, Ordinal, SearchSpace, key
from asktell.server.domain.trial import Origin, TrialState
from asktell.server.policies import gp_botorch, registry, torch_device
from asktell.server.policies.acquisition import ExpectedImprovement, Feasibility, Product
from asktell.server.policies.botorch_model import fit as fit_botorch
from asktell.server.policies.botorch_model import innovations, log_posterior, make_model, point_of, tensor
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.draws import fantasy_normals
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.engine import ProcessPoolEngine
from asktell.server.policies.failures import CAUTION, Failures, may_be_chance
from asktell.server.policies.gp_botorch import BotorchChooser, BotorchFrontChooser
from asktell.server.policies.hints import Fits
from asktell.server.policies.labels import make_labels, measured
from asktell.server.policies.learning import Lesson
from asktell.server.policies.likelihood import Likelihood, fit, unpack
from asktell.server.policies.models import Model, widening
from asktell.server.policies.posterior import Posterior
from asktell.server.policies.random_search import seen_keys
from asktell.server.policies.recipe import STANDARD
from asktell.server.policies.scope import Scope
from asktell.server.policies.search import Ground, Search, raw_points
from asktell.server.settings import Settings, StartError
from tests.contract.test_policy import check_any_request, requests

ROOT = Path(__file__).parents[2]
COST = Objective("cost", Goal.MINIMIZE)
SPACES = {
    "numbers": SearchSpace(tuple(Float(name=f"x{index}", low=0.0, high=1.0) for index in range(4))),
    "mixed": SearchSpace(
        (
            Float(name="x0", low=1e-4, high=1.0, log=True),
            Int(name="i", low=1, high=1_000),
            Ordinal(name="batch", values=(16, 32, 64)),
            Categorical(name="name", choices=("a", "b", "c", "d")),
        )
    ),
    "conditional": SearchSpace(
        (
            Categorical(name="name", choices=("a", "b")),
            Float(name="x0", low=0.0, high=1.0, when=Condition("name", ("a",))),
            Bool(name="flag", when=Condition("name", ("a",))),
            Float(name="x1", low=0.0, high=1.0),
            Int(name="i", low=0, high=4, when=Condition("name", ("b",))),
        )
    ),
}


def cost(encoder, parameters, seed):
    """A smooth function of a configuration's codes, with a little noise of its own."""
    row = encoder.encode([parameters])[0]
    slopes = np.random.default_rng(seed).normal(size=len(row))
    noise = np.random.default_rng(zlib.crc32(row.tobytes())).normal()
    return float(np.sin(3.0 * row @ slopes) + 0.5 * ((row - 0.3) ** 2).sum() + 0.05 * noise)


def study(space, *, count=14, pending=0, seed=0, policy="gp-botorch", **changes):
    """A request in the midst of a study."""
    encoder = Encoder.of(space)
    blank = SuggestRequest(
        space=space, objectives=(COST,), policy="random", seed=seed, count=count + pending, next_number=1
    )
    drawn = [candidate.parameters for candidate in registry.suggest(blank).candidates]
    observations = tuple(
        Observation(number, TrialState.SUCCEEDED, parameters, {"cost": MetricValue(cost(encoder, parameters, seed))})
        for number, parameters in enumerate(drawn[:count], 1)
    )
    usual = {"policy": policy, "count": 1, "next_number": count + pending + 1}
    return replace(blank, observations=observations, pending=tuple(drawn[count:]), **{**usual, **changes})


@pytest.fixture(autouse=True, params=["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])
def device(request):
    """Where the policy computes; what it is compared with is computed by NumPy on the CPU."""
    torch_device.use(request.param)
    yield request.param
    torch_device.use(torch_device.CPU)


@pytest.fixture(autouse=True)
def calm():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("count", [6, 20, 45])
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_both_fits_reach_the_same_log_posterior(space, count, seed, device):
    request, encoder = study(space, count=count, seed=seed), Encoder.of(space)
    rows = encoder.encode([seen.parameters for seen in request.observations])
    labels = make_labels(request.observations, request.objectives).values
    model = make_model(tensor(rows, torch.device(device)), tensor(labels, torch.device(device)), encoder)
    fit_botorch(model, Deadline(None))
    likelihood = Likelihood(encoder.features(rows), labels, encoder.layout)
    theirs, _ = likelihood(point_of(model))
    ours, _ = likelihood(fit(encoder.features(rows), labels, encoder.layout, deadline=Deadline(None)))
    assert theirs == pytest.approx(-log_posterior(model), rel=1e-6)
    assert ours < theirs + 1e-3
    assert theirs < ours + 1e-3


def chosen(request):
    """BoTorch's choice, and the chooser that made it."""
    chooser = BotorchChooser(request, Deadline(None), STANDARD)
    choice = chooser.choose(request.next_number, pending=request.pending, seen=seen_keys(request))
    return choice, chooser


def our_model(request, chooser):
    """Our posterior with BoTorch's hyper-parameters, after the pending trials were imagined to end."""
    encoder, known = Encoder.of(request.space), chooser._known
    rows = encoder.features(encoder.encode([seen.parameters for seen in request.observations]))
    hyper = unpack(point_of(known.model), encoder.layout)
    posterior = Posterior(encoder.layout, hyper, inputs=rows, labels=known.labels.values)
    model = modelled(known.labels, posterior)
    if not request.pending:
        return model
    pending = sorted(request.pending, key=lambda parameters: repr(key(parameters)))
    normals = fantasy_normals(request.seed, points=len(pending), fantasies=STANDARD.fantasies)
    return model.imagining(encoder.features(encoder.encode(pending)), normals, np.ones(normals.shape, dtype=bool))


def modelled(labels, posterior):
    """Our model of labels by a posterior."""
    useful = labels.measured
    wide = widening(posterior.innovations[useful])
    return Model(labels, posterior, useful, useful[:, None], range(len(useful)), widening=wide)


def limited(request, bound):
    """The request with a second metric, the sum of a trial's latent coordinates, that has a bound."""
    encoder = Encoder.of(request.space)
    observations = tuple(
        replace(seen, metrics={**seen.metrics, "sum": MetricValue(float(encoder.encode([seen.parameters]).sum()))})
        for seen in request.observations
    )
    return replace(
        request, observations=observations, outcome_constraints=(OutcomeConstraint("sum", Relation.AT_MOST, bound),)
    )


@pytest.mark.parametrize("bound", [1.5, -1.0], ids=["some are feasible", "nothing is"])
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_both_agree_on_the_acquisition_under_an_outcome_constraint(space, bound):
    request = limited(study(space, next_number=15), bound)
    choice, chooser = chosen(request)
    (limit,) = chooser._known.limits
    whole, model = Encoder.of(space), our_model(request, chooser)
    met = np.array([seen.metrics["sum"].value <= bound for seen in request.observations])
    model = replace(model, eligible=met[:, None])
    posterior = Posterior(
        whole.layout,
        unpack(point_of(limit.model), whole.layout),
        inputs=model.posterior.inputs,
        labels=limit.excesses.values,
    )
    ours = Product(
        ExpectedImprovement(model.posterior, model.incumbents), Feasibility(posterior, limit.excesses.threshold)
    )
    row = whole.features(whole.encode([choice.parameters]))
    assert choice.acquisition == pytest.approx(float(ours(row)[0]), rel=1e-6)
    assert choice.predictions.keys() == {"cost", "sum"}
    assert (choice.incumbent is None) == (not met.any())


KINDS = {
    "failures": (TrialState.FAILED, TrialState.FAILED),
    "infeasible": (TrialState.INFEASIBLE, TrialState.INFEASIBLE),
    "both": (TrialState.INFEASIBLE, TrialState.FAILED),
}
"""How trials end in a region, and how one does elsewhere, or three, if it takes as many for a model of their own."""


def failing(request, seed, kind="failures"):
    """The request with failures where the first coordinate is high, and one or three where it is not."""
    encoder = Encoder.of(request.space)
    codes = [float(encoder.encode([seen.parameters])[0, 0]) for seen in request.observations]
    lucky = [place for place, code in enumerate(codes) if code < 0.5]
    region, elsewhere = KINDS[kind]
    failed = dict.fromkeys([place for place, code in enumerate(codes) if code > 0.7], region)
    for other in range(1 if region is elsewhere else 3):
        failed[lucky[(seed + other) % len(lucky)]] = elsewhere
    return replace(
        request,
        observations=tuple(
            replace(seen, state=failed[place], metrics={}) if place in failed else seen
            for place, seen in enumerate(request.observations)
        ),
    )


def our_failures(request):
    """What our own numerics make of a study's failures."""
    encoder = Encoder.of(request.space)
    rows = encoder.features(encoder.encode([seen.parameters for seen in request.observations]))
    failed = ~measured(request.observations, request.objectives)
    return Failures.learned(
        rows,
        failed,
        encoder.layout,
        fickle=may_be_chance(request.observations),
        early=range(len(rows)),
        recipe=STANDARD,
        fits=Fits(),
        deadline=Deadline(None),
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_both_leave_the_same_failures_to_chance(space, seed, kind):
    request = failing(study(space, count=16, seed=seed), seed, kind)
    works = BotorchChooser(request, Deadline(None), STANDARD)._works()
    lesson = Lesson.of(request, Encoder.of(space), recipe=STANDARD, fits=Fits(b""), deadline=Deadline(None))
    ours, _ = lesson._works()
    assert works.telling.tolist() == ours.telling.tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_botorch_believes_the_same_of_where_trials_fail(space, seed, kind):
    request = failing(study(space, count=16, seed=seed), seed, kind)
    works = BotorchChooser(request, Deadline(None), STANDARD)._works()
    encoder = Encoder.of(space)
    settled = encoder.settle(np.random.default_rng(seed).random((40, len(space))))
    ours = our_failures(request).risks
    assert len(works.latents) == len(ours) == 1 + (kind == "both")
    for latent, risk in zip(works.latents, ours, strict=True):
        with torch.no_grad():
            theirs = latent.model.posterior(torch.as_tensor(settled).to(latent.model.train_targets))
        posterior = risk.classifier.posterior
        means, deviations = posterior.moments(encoder.features(settled))
        size = float(np.abs(posterior.labels).max())
        assert latent.chance == risk.classifier.chance
        assert theirs.mean.squeeze(-1).cpu().numpy() == pytest.approx(means[:, 0], rel=1e-6, abs=1e-7 * size)
        assert theirs.variance.squeeze(-1).cpu().numpy() == pytest.approx(deviations**2, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_both_agree_on_the_acquisition_where_trials_fail(space, seed, kind):
    request = failing(study(space, count=16, seed=seed), seed, kind)
    choice, chooser = chosen(request)
    known, whole = chooser._known, Encoder.of(space)
    told = [request.observations[place] for place in chooser._works().telling]
    rows = whole.features(whole.encode([seen.parameters for seen in told]))
    labels = make_labels(told, request.objectives)
    hyper = unpack(point_of(known.model), whole.layout)
    posterior = Posterior(whole.layout, hyper, inputs=rows, labels=labels.values)
    model = modelled(labels, posterior)
    explores = choice.method == "exploration"
    ours = Product(
        ExpectedImprovement(posterior, model.incumbents - (0.5 if explores else 0.0)),
        our_failures(request).feasibility,
        power=CAUTION if explores else 1.0,
    )
    row = whole.features(whole.encode([choice.parameters]))
    assert choice.acquisition == pytest.approx(float(ours(row)[0]), rel=1e-6)


def test_two_failures_are_imputed_by_both():
    request = study(SPACES["numbers"])
    few = replace(
        request,
        observations=tuple(
            replace(seen, state=TrialState.FAILED, metrics={}) if seen.number <= 2 else seen
            for seen in request.observations
        ),
    )
    chooser = BotorchChooser(few, Deadline(None), STANDARD)
    works = chooser._works()
    assert not works.latents
    assert works.telling.tolist() == list(range(len(few.observations)))
    assert not chooser._fit(None).labels.measured[:2].any()


def test_a_front_is_looked_for_where_trials_work():
    """All that is beyond a plane crashes: the choice's chance to work, by our own posterior, is good."""
    request = failing(study(SPACES["numbers"], count=24), 0)
    gain = Objective("gain", Goal.MAXIMIZE)
    both = replace(
        request,
        objectives=(COST, gain),
        observations=tuple(
            replace(seen, metrics={**seen.metrics, "gain": MetricValue(seen.parameters["x0"])})
            if seen.metrics
            else seen
            for seen in request.observations
        ),
    )
    chooser = BotorchFrontChooser(both, Deadline(None), STANDARD)
    choice = chooser.choose(25, pending=(), seen=seen_keys(both))
    whole = Encoder.of(both.space)
    row = whole.features(whole.encode([choice.parameters]))
    chance = our_failures(request).feasibility
    assert float(chance(row)[0]) > np.log(0.4)
    assert choice.parameters["x0"] < 0.8


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("pending", [0, 3])
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_both_agree_on_the_candidates_acquisition_and_ours_finds_as_high_a_one(space, pending, seed):
    request = study(space, pending=pending, seed=seed, next_number=15 + 2 * seed)
    choice, chooser = chosen(request)
    assert not choice.fallback
    whole, within = Encoder.of(space), Encoder.within(Scope.of(space, {}))
    model = our_model(request, chooser)
    ours = ExpectedImprovement(model.posterior, model.incumbents, widening=model.widening)
    row = whole.encode([choice.parameters])
    (value,) = ours(whole.features(row))
    bold = ExpectedImprovement(model.posterior, model.incumbents - 0.5, widening=model.widening)
    ambitious = bold(whole.features(row))[0]
    explored = choice.method == "exploration"
    assert choice.acquisition == pytest.approx(ambitious if explored else value, rel=1e-6)
    raw = raw_points(
        within,
        leaders=whole.settled(model.posterior.inputs[:5]),
        lengthscales=model.posterior.hyper.lengthscales,
        seed=seed,
        number=1,
    )
    assert (
        Search(within, whole, lambda _: ours, Deadline(None)).run(Ground.of(raw, within, whole)).values[0]
        > value - 1e-3
    )


def test_its_prediction_and_incumbent_are_those_of_our_posterior():
    request = study(SPACES["mixed"])
    choice, chooser = chosen(request)
    model, encoder = our_model(request, chooser), Encoder.of(request.space)
    mean, deviation = model.posterior.moments(encoder.features(encoder.encode([choice.parameters])))
    expected = model.labels.prediction(float(mean[0, 0]), float(deviation[0]) * model.widening)
    assert choice.predictions["cost"].mean == pytest.approx(expected.mean, rel=1e-6)
    assert choice.predictions["cost"].standard_deviation == pytest.approx(expected.standard_deviation, rel=1e-6)
    assert choice.incumbent == pytest.approx(model.labels.value(float(model.incumbents[0])), rel=1e-6)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_both_are_surprised_alike(space):
    request = study(space, count=20)
    # What comes late is rough, and nothing before it was.
    rough = tuple(
        replace(seen, metrics={"cost": MetricValue(seen.metrics["cost"].value + 3.0 * (-1.0) ** seen.number)})
        if seen.number > 14
        else seen
        for seen in request.observations
    )
    _, chooser = chosen(replace(request, observations=rough))
    known = chooser._known
    model = our_model(replace(request, observations=rough), chooser)
    assert innovations(known.model) == pytest.approx(model.posterior.innovations, rel=1e-6, abs=1e-6)
    assert known.widening == pytest.approx(model.widening, rel=1e-6)
    assert known.widening > 1.2


def test_more_observations_than_the_fit_takes_are_all_in_the_posterior():
    request = study(SPACES["numbers"], count=300)
    choice, chooser = chosen(request)
    assert len(chooser._known.labels.values) == 300
    model, encoder = our_model(request, chooser), Encoder.of(request.space)
    row = encoder.features(encoder.encode([choice.parameters]))
    (value,) = ExpectedImprovement(model.posterior, model.incumbents, widening=model.widening)(row)
    assert choice.acquisition == pytest.approx(value, rel=1e-5)


def test_a_numeric_parent_decides_what_is_active():
    space = SearchSpace(
        (
            Int(name="layers", low=1, high=50),
            Float(name="x", low=0.0, high=1.0),
            Float(name="skip", low=0.0, high=1.0, when=Condition("layers", tuple(range(2, 51)))),
        )
    )
    request = study(space, count=12)
    for candidate in registry.suggest(replace(request, count=2)).candidates:
        assert candidate.origin.fallback == ""
        assert space.check(candidate.parameters) == candidate.parameters
        assert ("skip" in candidate.parameters) == (candidate.parameters["layers"] > 1)


def test_all_but_one_parameter_can_be_fixed():
    fixed = {"x0": 0.25, "batch": 32, "name": "c"}
    (candidate,) = registry.suggest(study(SPACES["mixed"], fixed=fixed)).candidates
    assert {name: candidate.parameters[name] for name in fixed} == fixed
    assert candidate.origin.fallback == ""


def test_names_beyond_what_botorch_lists_are_searched_and_repeat_to_the_bit():
    names = tuple(f"name{index}" for index in range(30))
    space = SearchSpace((Categorical(name="name", choices=names), Float(name="x", low=0.0, high=1.0)))
    first, again = (registry.suggest(study(space)).candidates for _ in range(2))
    assert [c.parameters for c in first] == [c.parameters for c in again]
    assert [c.origin.acquisition for c in first] == [c.origin.acquisition for c in again]


def test_threads_and_random_numbers_are_left_as_they_were():
    random.seed(1)
    torch.manual_seed(1)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        before = random.getstate(), torch.get_rng_state().tolist(), torch.get_default_dtype()
        first = registry.suggest(study(SPACES["mixed"])).candidates
        assert (random.getstate(), torch.get_rng_state().tolist(), torch.get_default_dtype()) == before
        assert torch.get_num_threads() == 2
        random.seed(2)
        torch.manual_seed(2)
        assert registry.suggest(study(SPACES["mixed"])).candidates[0].parameters == first[0].parameters
    finally:
        torch.set_num_threads(threads)


def test_a_search_that_runs_out_of_time_says_so_and_settles_for_what_it_has():
    request = study(SPACES["mixed"], time_limit=100.0)
    chooser = BotorchChooser(request, Deadline.after(100.0), STANDARD)
    usual = chooser.choose(15, pending=(), seen=seen_keys(request))
    late = BotorchChooser(request, Deadline.after(100.0), STANDARD)
    late._learn(15)
    late._deadline = Deadline.after(0.0)
    choice = late.choose(15, pending=(), seen=seen_keys(request))
    assert "ended the search early" in choice.fallback
    assert SPACES["mixed"].check(choice.parameters) == choice.parameters
    assert choice.acquisition <= usual.acquisition
    assert usual.fallback == ""


def test_a_time_limit_that_is_kept_changes_nothing():
    free, limited = (
        registry.suggest(study(SPACES["mixed"], time_limit=limit)).candidates[0] for limit in (None, 500.0)
    )
    assert free.parameters == limited.parameters
    assert free.origin.acquisition == limited.origin.acquisition


@given(requests("gp-botorch"))
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
def test_no_study_is_too_strange_for_gp_botorch(request):
    check_any_request(request)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@given(requests("gp-botorch"))
@settings(
    max_examples=1_000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
def test_no_study_of_hundreds_is_too_strange_for_gp_botorch(request):
    check_any_request(request)


def test_a_reference_that_is_infinitely_far_in_units_of_the_results_is_no_error():
    objectives = (replace(COST, reference=0.0), Objective("gain", Goal.MAXIMIZE, reference=1.0))
    least = {"cost": MetricValue(0.0), "gain": MetricValue(5e-324)}
    observations = tuple(Observation(n, TrialState.SUCCEEDED, {"x": n / 3}, least) for n in (1, 2))
    space = SearchSpace((Float(name="x", low=0.0, high=1.0),))
    request = replace(
        study(SPACES["numbers"]),
        space=space,
        objectives=objectives,
        observations=observations,
        pending=({"x": 0.1}, {"x": 0.2}),
        next_number=5,
    )
    (candidate,) = registry.suggest(request).candidates
    assert candidate.origin.fallback == ""
    assert candidate.origin.acquisition is not None


# Who does not ask for it does not pay for it.


def test_its_model_based_requests_go_to_the_engines_processes():
    request = study(SPACES["numbers"])
    assert registry.outlook(request) is registry.Outlook.MODEL
    assert registry.outlook(replace(request, observations=())) is registry.Outlook.MODEL_LATER


def test_only_its_own_modules_import_torch():
    importers = {
        path.name for path in (ROOT / "server").rglob("*.py") if TORCH & set(imported(ast.parse(path.read_text())))
    }
    assert importers == {"gp_botorch.py", "botorch_model.py"}


TORCH = {"torch", "botorch", "gpytorch", "linear_operator"}


def imported(tree):
    """The top names of all packages that a module imports, at its start or later."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


def test_a_server_and_a_suggestion_of_gp_load_no_torch(tmp_path):
    program = """
import pickle, sys
from asktell.server import embedded
from asktell.server.policies import registry
server = embedded.start(sys.argv[1])
for path in sys.argv[2:]:
    with open(path, "rb") as file:
        print(*{c.origin.method for c in registry.suggest(pickle.load(file)).candidates})
server.close()
print(*[name for name in ("torch", "botorch", "gpytorch") if name in sys.modules])
"""
    asked = study(SPACES["mixed"], policy="gp"), study(SPACES["mixed"], count=2, policy="gp-botorch")
    paths = [tmp_path / str(index) for index in range(2)]
    for path, request in zip(paths, asked, strict=True):
        path.write_bytes(pickle.dumps(request))
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a.db"), *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.splitlines() == ["acquisition", "initial-design", ""]


# The device.


def tell_device(request):
    """A computation that says where it would compute, and in which process."""
    return Decision((Candidate({}, Origin(policy=torch_device.chosen(), method=str(os.getpid()))),))


async def test_the_torch_device_reaches_the_engines_processes(device):
    engine = ProcessPoolEngine(workers=1, compute=tell_device, torch_device="cuda:7")
    try:
        decision = await engine.suggest(study(SPACES["numbers"]))
    finally:
        await engine.close()
    assert decision.candidates[0].origin.policy == "cuda:7"
    assert decision.candidates[0].origin.method != str(os.getpid())
    assert torch_device.chosen() == device


NOWHERE = "cuda:99"


@pytest.fixture
def breaking(monkeypatch):
    """A device that fails, though it has computed before, with an error that says whatever a test wants; `also` on the CPU."""

    def fail(error, *, answers=None, delay=0.0, also=""):
        def broken(array, where):
            if where.type != "cuda":
                if also:
                    raise RuntimeError(also)
                return tensor(array, where)
            time.sleep(delay)
            raise error

        def ones(*shape, device, **options):
            if device != torch.device(NOWHERE):
                return ordinary(*shape, device=device, **options)
            if answers is not None:
                raise answers
            return ordinary(*shape)

        ordinary = torch.ones
        monkeypatch.setattr(gp_botorch, "_USED", {torch.device(NOWHERE)})
        monkeypatch.setattr(gp_botorch, "tensor", broken)
        monkeypatch.setattr(gp_botorch, "_seeded", lambda *_: nullcontext())
        monkeypatch.setattr(torch, "ones", ones)
        torch_device.use(NOWHERE)

    return fail


def test_where_the_device_fails_the_cpu_computes_and_the_origin_says_so():
    torch_device.use(torch_device.CPU)
    expected = registry.suggest(study(SPACES["mixed"], count=20, pending=2)).candidates[0]
    torch_device.use(NOWHERE)
    first, second = registry.suggest(replace(study(SPACES["mixed"], count=20, pending=2), count=2)).candidates
    assert first.parameters == expected.parameters
    for candidate in (first, second):
        assert candidate.origin.method == "acquisition"
        assert candidate.origin.fallback.startswith(f"the CPU computed, as the computation on {NOWHERE} failed: ")
    assert not torch_device.lost(), "another process would have no more luck with a device that never computed"


ILLEGAL = RuntimeError("CUDA error: an illegal memory access was encountered")


@pytest.mark.parametrize(
    ("error", "answers", "lost"),
    [
        (ILLEGAL, ILLEGAL, True),
        (ILLEGAL, None, False),
        (torch.OutOfMemoryError("CUDA out of memory"), None, False),
        (torch.OutOfMemoryError("CUDA out of memory"), torch.OutOfMemoryError("CUDA out of memory"), False),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"), RuntimeError("CUDA error: out of memory"), False),
    ],
    ids=["broken", "a failure of the numerics", "short of memory", "without memory", "without memory for a library"],
)
def test_the_cpu_computes_and_the_process_is_spent_only_if_the_device_does_nothing_more(breaking, error, answers, lost):
    breaking(error, answers=answers)
    origin = registry.suggest(study(SPACES["mixed"])).candidates[0].origin
    failure = f"the computation on {NOWHERE} failed: {type(error).__name__}: {error}"
    assert origin.fallback == f"the CPU computed, as {failure}"
    assert origin.acquisition is not None
    assert torch_device.lost() == lost


def test_a_device_that_fails_too_late_leaves_no_time_for_the_cpu(breaking):
    breaking(ILLEGAL, delay=0.5)
    origin = registry.suggest(replace(study(SPACES["mixed"]), time_limit=0.4)).candidates[0].origin
    assert origin.method == "random"
    failure = f"the computation on {NOWHERE} failed: RuntimeError: {ILLEGAL}"
    assert origin.fallback == f"OutOfTimeError: {failure}; too little time was left for the CPU"


def test_where_the_cpu_fails_as_well_the_origin_tells_both(breaking):
    breaking(RuntimeError("it broke\n" + "for many reasons" * 100), also="here, too\n" * 100)
    origin = registry.suggest(study(SPACES["mixed"])).candidates[0].origin
    assert origin.method == "random"
    failure = (
        f"the computation on {NOWHERE} failed: RuntimeError: it broke; then the CPU failed: RuntimeError: here, too"
    )
    assert origin.fallback == f"RuntimeError: {failure}"


async def test_the_engine_computes_it_in_a_process_of_its_own(device):
    engine = ProcessPoolEngine(workers=1, torch_device=device)
    try:
        decision = await engine.suggest(study(SPACES["numbers"]))
    finally:
        await engine.close()
    origin = decision.candidates[0].origin
    assert (origin.policy, origin.fallback) == ("gp-botorch", "")
    assert decision.candidates[0].parameters == registry.suggest(study(SPACES["numbers"])).candidates[0].parameters


@pytest.mark.parametrize("device", ["cuda:99", "abacus"])
async def test_a_server_whose_torch_device_does_not_exist_is_refused_by_name(device, tmp_path):
    settings = Settings(listen="127.0.0.1:0", database=str(tmp_path / "a.db"), torch_device=device)
    with pytest.raises(StartError, match=rf"--torch-device \(ASKTELL_TORCH_DEVICE\) is '{device}'"):
        async with bootstrap.running(settings):
            pass
    assert not (tmp_path / "a.db").exists(), "nothing was begun"


def test_a_device_that_torch_has_but_that_cannot_compute_is_refused():
    with pytest.raises(torch_device.UnusableDevice, match="'meta'"):
        torch_device.check("meta")


def test_any_name_of_the_cpu_is_fine():
    torch_device.check("cpu")
    torch_device.check("cpu:0")
