"""The course of `gp`, computed wholly by BoTorch and GPyTorch, on any torch device: the reference, and the way to a GPU."""

from __future__ import annotations

import gc
import random
import time
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from botorch.models import SingleTaskGP
from botorch.optim.optimize import optimize_acqf
from botorch.optim.optimize_mixed import MAX_DISCRETE_VALUES, optimize_acqf_mixed_alternating
from torch import Tensor

from asktell.server.domain.policy import SuggestRequest
from asktell.server.domain.space import Parameters
from asktell.server.domain.trial import Prediction
from asktell.server.policies import torch_device
from asktell.server.policies.botorch_model import (
    Bound,
    FrontImprovement,
    Improvement,
    Settling,
    exact,
    fit,
    imagining,
    innovations,
    make_latent,
    make_model,
    place,
    point_of,
    tensor,
)
from asktell.server.policies.boxes import non_dominated
from asktell.server.policies.choosing import AMBITION, ModelChooser, stagnant
from asktell.server.policies.columns import Column, Vector
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.divergence import diverged
from asktell.server.policies.draws import fantasy_normals, generator
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.excess import Excesses, make_excesses, met_by
from asktell.server.policies.excess import known as known_of
from asktell.server.policies.failures import CAUTION, Failures, Risk, may_be_chance, telling
from asktell.server.policies.front import infer_reference, references
from asktell.server.policies.gp import MIN_LEARNED, Choice, describe
from asktell.server.policies.hints import Fits
from asktell.server.policies.kernel import Indices, Mask, Matrix
from asktell.server.policies.labels import Labels, dominance, make_labels, measured
from asktell.server.policies.models import of_one_kind, widening
from asktell.server.policies.recipe import Recipe
from asktell.server.policies.region import Region
from asktell.server.policies.results import Results
from asktell.server.policies.scope import Key
from asktell.server.policies.search import Optima, OutOfTimeError, distinct, raw_points
from asktell.server.policies.subset import MAX_FITTED, MAX_LEARNED, spaced, subset

_CPU = torch.device(torch_device.CPU)
RESTARTS = 4
RAW_SAMPLES = 128
SPRAY_POINTS = 8
STEPS = 60
_USED: set[torch.device] = set()
"""Devices that have computed anything in this process."""
_SAID = 120
"""So many characters tell of an error, where two may have to be told of."""
_SCORED = 512
_CELLS = 250_000
"""So many rows are scored at a time, and so many covariances computed."""


@dataclass(frozen=True, slots=True)
class Limited:
    """A fitted model of an outcome constraint's labels."""

    excesses: Excesses
    model: SingleTaskGP


@dataclass(frozen=True, slots=True)
class Latent:
    """A model of a function that is positive where trials fail, and the variance of chance."""

    model: SingleTaskGP
    chance: float


@dataclass(frozen=True, slots=True)
class Known:
    """A fitted model of labels, the settled rows that were measured, or are imagined to be (`m`), which of them are feasible, the models of
    outcome constraints, those of what works, as far as it is learned, and what the first model's standard deviations are multiplied by."""

    labels: Labels
    model: SingleTaskGP
    places: Tensor
    feasible: Tensor
    limits: tuple[Limited, ...] = ()
    latents: tuple[Latent, ...] = ()
    widening: float = 1.0

    def means(self) -> Tensor:
        """Posterior means at the places (`m`, or `s x m` if pending trials are imagined to end in `s` ways)."""
        with torch.no_grad():
            return self.model.posterior(self.places).mean.squeeze(-1)

    def incumbents(self) -> Tensor:
        """The best of the means that are feasible (`s`, or one), or the worst of all if none is."""
        means = self.means()
        return means[..., self.feasible].amin(dim=-1) if self.feasible.any() else means.amax(dim=-1)


Belief = TypeVar("Belief")


@dataclass(frozen=True, slots=True)
class Works:
    """Which trials worked (`n`), the places of observations that objectives' models learn from (`t`), and the models of what works, if there
    are enough failures.
    """

    useful: Mask
    telling: Indices
    latents: tuple[Latent, ...] = ()


class TorchChooser(ModelChooser[Belief]):
    """Chooses candidates for one request by torch on its device, or where that fails on the CPU."""

    def __init__(self, request: SuggestRequest, deadline: Deadline, recipe: Recipe) -> None:
        super().__init__(request, deadline, recipe)
        self._device = torch.device(torch_device.chosen())
        self._failure = ""

    def choose(self, number: int, *, pending: Sequence[Parameters], seen: Collection[Key]) -> Choice | None:
        """As every model's choice, but in surroundings that make it depend on the request alone."""
        if self._device.type == _CPU.type:
            return self._instead(number, pending, seen) if self._failure else self._computed(number, pending, seen)
        if self._device not in _USED and _answers(self._device):
            _USED.add(self._device)
        began = time.monotonic()
        try:
            return self._computed(number, pending, seen)
        except Exception as error:  # noqa: BLE001 - trainings may have taken its memory, a driver may have lost it
            if self._device in _USED and not _answers(self._device):
                torch_device.lose()
            self._failure = f"the computation on {self._device} failed: {_brief(error)}"
        # Not before here, where the error and its frames hold none of the device's memory any more.
        self._release()
        self._device = _CPU
        left = self._deadline.left
        if left is not None and left <= time.monotonic() - began:
            raise OutOfTimeError(f"{self._failure}; too little time was left for the CPU")
        return self._instead(number, pending, seen)

    def close(self) -> None:
        """Leave the device's memory to trainings."""
        self._release()

    def _release(self) -> None:
        self._known = None
        if self._device.type != _CPU.type:
            # GPyTorch's models are in cycles of references.
            gc.collect()
            with suppress(Exception):
                torch.get_device_module(self._device).empty_cache()

    def _instead(self, number: int, pending: Sequence[Parameters], seen: Collection[Key]) -> Choice | None:
        """The CPU's choice, after the device has failed."""
        try:
            choice = self._computed(number, pending, seen)
        except Exception as error:
            raise RuntimeError(f"{self._failure}; then the CPU failed: {_brief(error)}") from error
        if choice is None:
            return None
        excuses = [f"the CPU computed, as {self._failure}", choice.fallback]
        return replace(choice, fallback="; ".join(filter(None, excuses)))

    def _computed(self, number: int, pending: Sequence[Parameters], seen: Collection[Key]) -> Choice | None:
        seed = int(generator(self._request.seed, purpose="botorch", number=number).integers(2**63))
        with _calm(), _seeded(seed, self._device):
            return super().choose(number, pending=pending, seen=seen)

    def _aimed(self, settled: Matrix) -> Matrix:
        """Settled rows where configurations are compared."""
        return settled if self._aim is None else self._aim.settled(settled)

    def _limits(self, settled: Matrix) -> Iterator[Limited]:
        """The models of the outcome constraints whose metrics are known often enough."""
        for constraint in self._request.outcome_constraints:
            where = np.flatnonzero(known_of(self._ordered, constraint))[-MAX_LEARNED:]
            if len(where) >= MIN_LEARNED:
                excesses = make_excesses([self._ordered[index] for index in where], constraint)
                rows, labels = self._tensor(settled[where]), self._tensor(excesses.values)
                yield Limited(excesses, learn(rows, labels, self._whole, self._deadline))

    def _works(self) -> Works:
        """What is learned of which trials work: without divergences and failures by chance, as `gp` does."""
        objectives = self._request.objectives
        results = Results.of(self._ordered, objectives)
        gone = diverged(results, self._recipe)
        useful = results.measured & ~gone
        # There is no expectation propagation in GPyTorch: what it makes of the outcomes is ours, what follows from that is BoTorch's.
        failures = Failures.learned(
            self._whole.features(self._settled),
            ~useful,
            self._whole.layout,
            fickle=may_be_chance(self._ordered),
            early=spaced(len(useful), MAX_FITTED),
            recipe=self._recipe,
            fits=Fits(),
            deadline=self._deadline,
        )
        latents = tuple(self._latent(risk) for risk in failures.risks)
        places = telling([told & ~gone for told in results.told.T], failures.expected & ~gone)
        return Works(useful, places, latents)

    def _latent(self, risk: Risk) -> Latent:
        model = make_latent(risk.classifier.posterior, self._tensor(self._settled[risk.kept]), self._whole)
        return Latent(model, risk.classifier.chance)

    @staticmethod
    def _bounds(limits: Sequence[Limited], latents: Sequence[Latent], *, explores: bool = False) -> list[Bound]:
        """What has to be kept besides: outcome constraints, and that a trial works."""
        bounds = [Bound(limit.model, limit.excesses.threshold) for limit in limits]
        power = CAUTION if explores else 1.0
        return [*bounds, *(Bound(latent.model, 0.0, power, latent.chance) for latent in latents)]

    def _expected(self, limits: Sequence[Limited], settled: Matrix) -> dict[str, Prediction]:
        return {
            limit.excesses.constraint.metric: limit.excesses.prediction(*self._moments(limit.model, settled))
            for limit in limits
        }

    def _moments(self, model: SingleTaskGP, settled: Matrix) -> tuple[float, float]:
        with torch.no_grad():
            posterior = model.posterior(self._tensor(settled))
            return float(posterior.mean), float(posterior.variance.sqrt())

    def _tensor(self, array: Matrix | Vector) -> Tensor:
        return tensor(array, self._device)


class BotorchChooser(TorchChooser[Known]):
    """By BoTorch's models and LogEI, of one objective or of a scalarisation; pending trials are fantasised."""

    def _fit(self, weights: Vector | None) -> Known:
        shape, objectives = self._recipe.members[0].shape, self._request.objectives
        bounds = self._request.outcome_constraints
        settled, works = self._settled, self._works()
        told = [self._ordered[index] for index in works.telling]
        everything = make_labels(told, objectives, weights=weights, shape=shape, constraints=bounds)
        kept = works.telling[subset(self._whole.features(settled[works.telling]), everything.values)]
        some = [self._ordered[index] for index in kept]
        labels = make_labels(some, objectives, weights=weights, shape=shape, constraints=bounds)
        rows = self._tensor(settled[kept])
        model = learn(rows, self._tensor(labels.values), self._whole, self._deadline)
        limits = tuple(self._limits(settled)) if weights is None else ()
        seen = [met_by(self._ordered, limit.excesses.constraint)[kept] for limit in limits]
        feasible = np.logical_and.reduce([labels.measured, *seen])[labels.measured]
        places = self._tensor(self._aimed(settled[kept][labels.measured]))
        alike = of_one_kind(works.useful, limited=bool(limits), aimed=self._aim is not None, noisy=self._request.noisy)
        wide = widening(innovations(model)) if self._recipe.widens and alike else 1.0
        return Known(labels, model, places, torch.as_tensor(feasible).to(places.device), limits, works.latents, wide)

    def _imagine(self, known: Known, pending: Matrix) -> Known:
        normals = fantasy_normals(self._request.seed, points=len(pending), fantasies=self._recipe.fantasies)
        rows = self._tensor(pending)
        return replace(
            known,
            model=imagining(known.model, rows, self._tensor(normals)),
            places=torch.cat([known.places, rows]),
            feasible=torch.cat([known.feasible, met(known.limits, rows)]),
        )

    def _score(self, known: Known, settled: Matrix) -> Vector:
        return score(self._improvement(known, known), settled)

    def _worth_again(self, imagined: Known, settled: Matrix) -> Vector:
        """Of the improvement, which is BoTorch's for noise-free labels, what the noise of one measurement leaves."""
        with torch.no_grad():
            posterior = imagined.model.posterior(self._tensor(settled))
            variance = imagined.widening**2 * posterior.variance.squeeze(-1)
            share = variance / (variance + imagined.model.likelihood.noise.mean())
        losses: Vector = 0.5 * share.log().reshape(-1, len(settled))[0].cpu().numpy()
        return self._score(imagined, settled) + losses

    def _scales(self, known: Known) -> tuple[Vector, float]:
        *lengthscales, noise, _ = np.exp(point_of(known.model))
        return np.array(lengthscales), float(noise)

    def _search(self, number: int, known: Known, imagined: Known) -> Optima:
        return self._sought_for(number, known, imagined, ambition=0.0)

    def _search_both(self, number: int, known: Known, imagined: Known) -> tuple[Optima, Optima | None]:
        usual = self._search(number, known, imagined)
        bold = self._sought_for(number, known, imagined, ambition=AMBITION) if stagnant(usual) else None
        return usual, bold

    def _sought_for(self, number: int, known: Known, imagined: Known, *, ambition: float) -> Optima:
        """Where the acquisition is highest that asks for so much more than the incumbent, in standard deviations of the labels."""
        raw = self._raw(
            number,
            inputs=known.places.cpu().numpy(),
            means=known.means().cpu().numpy(),
            lengthscales=np.exp(point_of(known.model)[:-2]),
        )
        improvement = self._improvement(known, imagined, ambition=ambition)
        return BotorchSearch(self._encoder, improvement, self._deadline).run(raw)

    def _expect(self, known: Known, settled: Matrix) -> dict[str, Prediction]:
        mean, deviation = self._moments(known.model, settled)
        own = known.labels.prediction(mean, deviation * known.widening)
        predictions = {} if own is None else {known.labels.objective.metric: own}
        return predictions | self._expected(known.limits, settled)

    def _incumbent(self, known: Known) -> float | None:
        return known.labels.value(float(known.incumbents())) if known.feasible.any() else None

    def _improvement(self, known: Known, imagined: Known, *, ambition: float = 0.0) -> Improvement:
        leaders = known.places[known.means().argsort(stable=True)[:1]]
        return Improvement(
            imagined.model,
            imagined.incumbents() - ambition,
            self._whole,
            deadline=self._deadline,
            leaders=leaders,
            limits=self._bounds(known.limits, known.latents, explores=ambition > 0.0),
            widening=known.widening,
        )


@dataclass(frozen=True, slots=True)
class KnownFront:
    """A fitted model of each objective's labels, the settled rows that were measured in all and are feasible (if none is, all that were
    measured), the reference (`m`), the models of outcome constraints, those of what works, as far as it is learned, and settled rows that
    are pending and expected to be feasible."""

    labels: tuple[Labels, ...]
    models: tuple[SingleTaskGP, ...]
    places: Tensor
    reference: Vector
    limits: tuple[Limited, ...] = ()
    latents: tuple[Latent, ...] = ()
    pending: Tensor | None = None

    def means(self) -> Matrix:
        """Posterior means at the places (`n x m`)."""
        with torch.no_grad():
            columns = [model.posterior(self.places).mean.squeeze(-1) for model in self.models]
            return torch.stack(columns, dim=-1).cpu().numpy()


class BotorchFrontChooser(TorchChooser[KnownFront]):
    """By BoTorch's models and qLogNEHVI, of two to four objectives."""

    def _learn(self, number: int) -> KnownFront:  # noqa: ARG002 - the models serve every trial
        if self._known is None:
            self._known = self._fit(None)
        return self._known

    def _fit(self, weights: Vector | None) -> KnownFront:  # noqa: ARG002 - there is nothing to weigh
        objectives, settled, works = self._request.objectives, self._settled, self._works()
        useful = measured(self._ordered, objectives)
        limits = tuple(self._limits(settled))
        seen = [met_by(self._ordered, limit.excesses.constraint) for limit in limits]
        fine = np.logical_and.reduce([useful, *seen])
        told = [self._ordered[index] for index in works.telling]
        ranked = dominance(told, objectives, fine[works.telling])
        kept = works.telling[subset(self._whole.features(settled[works.telling]), ranked)]
        some, rows = [self._ordered[index] for index in kept], self._tensor(settled[kept])
        labels = tuple(make_labels(some, (each,), shape=self._recipe.front_members[0].shape) for each in objectives)
        models = tuple(self._models(rows, labels))
        everything = self._tensor(self._aimed(settled[kept][useful[kept]]))
        known = KnownFront(labels, models, everything, np.empty(0), limits, works.latents)
        reference = infer_reference(known.means(), references(labels))
        inside = (fine if fine[kept].any() else useful)[kept]
        return replace(known, places=self._tensor(self._aimed(settled[kept][inside])), reference=reference)

    def _models(self, rows: Tensor, labels: Sequence[Labels]) -> Iterator[SingleTaskGP]:
        for index, each in enumerate(labels):
            if index and self._deadline.passed:
                raise OutOfTimeError("the time limit ended the fits")
            yield learn(rows, self._tensor(each.values), self._whole, self._deadline)

    def _imagine(self, known: KnownFront, pending: Matrix) -> KnownFront:
        rows = self._tensor(pending)
        feasible = rows[met(known.limits, rows)]
        return replace(known, pending=feasible if len(feasible) else None)

    def _score(self, known: KnownFront, settled: Matrix) -> Vector:
        return score(self._improvement(known), settled)

    def _search(self, number: int, known: KnownFront, imagined: KnownFront) -> Optima:
        means = known.means()
        raw = raw_points(
            self._encoder,
            leaders=known.places.cpu().numpy()[non_dominated(means)],
            lengthscales=np.exp(np.min([point_of(model)[:-2] for model in known.models], axis=0)),
            seed=self._request.seed,
            number=number,
        )
        return BotorchSearch(self._encoder, self._improvement(imagined), self._deadline).run(raw)

    def _improvement(self, known: KnownFront) -> FrontImprovement:
        return FrontImprovement(
            known.models,
            self._tensor(known.reference),
            self._whole,
            deadline=self._deadline,
            places=known.places,
            pending=known.pending,
            limits=self._bounds(known.limits, known.latents),
        )

    def _expect(self, known: KnownFront, settled: Matrix) -> dict[str, Prediction]:
        pairs = zip(known.labels, known.models, strict=True)
        own = {each.objective.metric: each.prediction(*self._moments(model, settled)) for each, model in pairs}
        found = {metric: prediction for metric, prediction in own.items() if prediction is not None}
        return found | self._expected(known.limits, settled)

    def _incumbent(self, known: KnownFront) -> float | None:  # noqa: ARG002 - a front has none
        return None

    def _named(self, method: str) -> str:
        return f"{method} (qLogNEHVI)"


def met(limits: Sequence[Limited], rows: Tensor) -> Tensor:
    """Which pending trials (settled rows, `p x d`) are expected to meet the outcome constraints: of these nothing is fantasised."""
    feasible = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    with torch.no_grad():
        for limit in limits:
            feasible &= limit.model.posterior(rows).mean.squeeze(-1) <= limit.excesses.threshold
    return feasible


def learn(rows: Tensor, labels: Tensor, encoder: Encoder, deadline: Deadline) -> SingleTaskGP:
    """A model of labels (`n`) at settled rows (`n x d`), its hyper-parameters fitted to as many of them as it takes."""
    few = spaced(len(rows), MAX_FITTED)
    fitted = make_model(rows[few], labels[few], encoder)
    fit(fitted, deadline)
    if len(few) == len(rows):
        return fitted
    model = make_model(rows, labels, encoder)
    place(model, point_of(fitted))
    return model.eval()


def score(improvement: Settling, settled: Matrix) -> Vector:
    """The acquisition (`m`) at settled rows (`m x d`), part by part if they are many; minus infinity where time did not suffice."""
    with torch.no_grad():
        rows = torch.as_tensor(settled).to(improvement.X_baseline).unsqueeze(-2)
        size = max(1, min(_SCORED, _CELLS // improvement.cells))
        values = np.full(len(settled), -np.inf)
        for start in range(0, len(settled), size):
            some = slice(start, start + size)
            values[some] = improvement.value(rows[some]).cpu().numpy()
            if improvement.deadline.passed:
                break
        return values


def _brief(error: Exception) -> str:
    """The beginning of what is said of an error: PyTorch goes on for long."""
    return describe(error).partition("\n")[0][:_SAID]


def _answers(device: torch.device) -> bool:
    """Whether a device computes at all: after some errors CUDA does nothing more for a process. A lack of memory, which others may give back,
    is none of these.
    """
    try:
        torch.ones(1, device=device).cpu()
    except Exception as error:  # noqa: BLE001 - whatever torch raises there
        return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error)
    return True


class BotorchSearch:
    """Maximises an acquisition by BoTorch's optimisers within a scope, whose encoder says what may be chosen."""

    def __init__(self, encoder: Encoder, improvement: Settling, deadline: Deadline) -> None:
        self._encoder, self._improvement, self._deadline = encoder, improvement, deadline
        self._continuous = np.array([_codes(column) is None for column in encoder.columns])
        low, high = zip(*map(_range, encoder.columns), strict=True)
        self._bounds = torch.tensor([low, high]).to(improvement.X_baseline)

    def run(self, raw: Matrix) -> Optima:
        """The optima found from raw latent rows; the raw rows follow after them."""
        if not len(raw):
            return Optima(raw, np.empty(0), early=False)
        raw = self._encoder.snap(raw)
        values = self._score(raw)
        order = np.argsort(-values, kind="stable")
        starts = raw[order[distinct(self._encoder.settle(raw[order[:200]]))]]
        found, early = self._improve(starts)
        found, allowed = Region(self._encoder).repaired(found, generator(0, purpose="repair"))
        found = found[allowed]
        rows = np.concatenate([found, raw[order]])
        return Optima.ranked(
            rows, np.concatenate([self._score(rows[: len(found)]), values[order]]), early=early or self._deadline.passed
        )

    def _score(self, latent: Matrix) -> Vector:
        return score(self._improvement, self._encoder.settle(latent))

    def _improve(self, starts: Matrix) -> tuple[Matrix, bool]:
        """What each start leads to, and whether the deadline cut it short."""
        try:
            best = self._alternate()
            starts = np.concatenate([best, starts])
            return self._ascend(starts), False
        except OutOfTimeError:
            return starts, True

    def _alternate(self) -> Matrix:
        """The best row that steps over discrete columns and ascents over the others reach by turns, if there are any to step over."""
        names, numbers, fixed = self._steps()
        if not names and not numbers:
            return np.empty((0, len(self._encoder.columns)))
        found, _ = optimize_acqf_mixed_alternating(
            self._improvement,
            self._bounds,
            discrete_dims=numbers,
            cat_dims=names,
            fixed_features=fixed,
            num_restarts=RESTARTS,
            raw_samples=RAW_SAMPLES,
            return_acq_values=False,
            options={"initialization_strategy": "random", "num_spray_points": SPRAY_POINTS, "maxiter_alternating": 8},
        )
        rows: Matrix = found.detach().cpu().numpy()
        return rows

    def _steps(self) -> tuple[dict[int, list[float]], dict[int, list[float]], dict[int, float]]:
        """The codes of names and of discrete numbers that there is a choice of, and the only codes of the other discrete columns."""
        names: dict[int, list[float]] = {}
        numbers: dict[int, list[float]] = {}
        fixed: dict[int, float] = {}
        for index, column in enumerate(self._encoder.columns):
            codes = _codes(column)
            if codes is not None and len(codes) == 1:
                fixed[index] = codes[0]
            elif codes is not None:
                (names if column.nominal else numbers)[index] = codes
        return names, numbers, fixed

    def _ascend(self, starts: Matrix) -> Matrix:
        """What each start leads to in its continuous columns."""
        if not self._continuous.any():
            return starts
        rows = torch.as_tensor(starts).to(self._bounds)
        found, _ = optimize_acqf(
            self._improvement,
            self._bounds,
            q=1,
            num_restarts=len(rows),
            batch_initial_conditions=rows.unsqueeze(-2),
            fixed_features={int(index): rows[:, index] for index in np.flatnonzero(~self._continuous)},
            return_best_only=False,
            options={"maxiter": STEPS, "max_optimization_problem_aggregation_size": 1},
        )
        better: Matrix = found.detach().squeeze(-2).cpu().numpy()
        return better


def _codes(column: Column) -> list[float] | None:
    """The codes of a column, in order; None for a continuum, and for so many numbers that they are taken for one and rounded."""
    if column.size is None or (column.size > MAX_DISCRETE_VALUES and not column.nominal):
        return None
    return np.unique(column.snap(np.array([0.0])) if column.size == 1 else column.alternatives(0.0)).tolist()


def _range(column: Column) -> tuple[float, float]:
    codes = _codes(column)
    return (codes[0], codes[-1]) if codes else (float(column.snap(np.zeros(1))[0]), float(column.snap(np.ones(1))[0]))


@contextmanager
def _calm() -> Iterator[None]:
    """One thread, exact algebra, no warnings; all of it as before when the block ends."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings(), exact():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """torch's and Python's random numbers (BoTorch takes both) from a seed; the ones from before are back when the block ends."""
    before = random.getstate()
    random.seed(seed)
    alone = device.type == _CPU.type
    try:
        with torch.random.fork_rng(devices=[] if alone else [device.index or 0], device_type=device.type):
            # The latter seeds every device, which one that has failed may refuse.
            (torch.default_generator if alone else torch).manual_seed(seed)
            yield
    finally:
        random.setstate(before)
