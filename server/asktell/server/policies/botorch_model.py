"""The surrogate of `kernel.py` and `likelihood.py` without a trend, and its acquisition, built of BoTorch and GPyTorch, on any torch device."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import gpytorch
import numpy as np
import torch
from botorch.acquisition.acquisition import AcquisitionFunction
from botorch.acquisition.analytic import LogExpectedImprovement
from botorch.acquisition.multi_objective import logei
from botorch.acquisition.multi_objective.objective import WeightedMCMultiOutputObjective
from botorch.acquisition.objective import PosteriorTransform
from botorch.exceptions.errors import ModelFittingError
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.models.model import Model
from botorch.models.model_list_gp_regression import ModelListGP
from botorch.models.transforms.input import InputTransform
from botorch.posteriors.gpytorch import GPyTorchPosterior
from botorch.posteriors.posterior import Posterior
from botorch.sampling.normal import SobolQMCNormalSampler
from gpytorch.constraints import Positive
from gpytorch.distributions import MultivariateNormal
from gpytorch.kernels import Kernel
from gpytorch.likelihoods import FixedNoiseGaussianLikelihood, GaussianLikelihood, Likelihood
from gpytorch.means import ConstantMean
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.priors import LogNormalPrior
from torch import Tensor

from asktell.server.policies.columns import Vector
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.kernel import SQRT_HALF, Layout, Matrix
from asktell.server.policies.likelihood import NOISE_PRIOR, LogNormal, lengthscale_prior, limits, prior_starts
from asktell.server.policies.posterior import Posterior as OwnPosterior
from asktell.server.policies.search import OutOfTimeError

STEPS = 60
SAMPLES = {2: 64, 3: 16, 4: 8}
"""How many joint samples of a front are drawn for so many objectives: each has boxes of its own."""
_NEAREST = 1e-30
"""Squared distances count as this at least: the square root has no derivative at 0."""
_JITTER = 1e-9
_LEAST_VARIANCE = 1e-12
_EXACT = 10_000
"""Above the largest number of observations, so that GPyTorch factorises and never iterates."""

NAMES = ("model.covar_module.log_lengthscales", "likelihood.noise_covar.raw_noise", "model.mean_module.raw_constant")
"""The fitted parameters, in the order of the coordinates of `likelihood.Likelihood`."""


class Features(InputTransform):
    """Settled rows (`... x d`) to features (`... x D`), as `Encoder.features` makes them."""

    transform_on_train = transform_on_eval = transform_on_fantasize = True
    owners: Tensor
    numeric: Tensor
    codes: Tensor

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.register_buffer("owners", torch.as_tensor(encoder.layout.owners))
        self.register_buffer("numeric", torch.as_tensor(encoder.layout.numeric))
        self.register_buffer("codes", torch.as_tensor(encoder.codes))

    def transform(self, X: Tensor) -> Tensor:  # noqa: N803 - BoTorch's name
        """The features."""
        values = X[..., self.owners]
        return torch.where(self.numeric, values, SQRT_HALF * (values == self.codes).to(values))


class MixedMatern(Kernel):  # type: ignore[misc] # GPyTorch has no types.
    """Matérn-5/2 over numbers and names at once: features are scaled by their parameter's lengthscale."""

    is_stationary = True

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.register_buffer("owners", torch.as_tensor(layout.owners))
        zeros = torch.zeros(layout.dimensions, dtype=torch.float64)
        self.register_parameter("log_lengthscales", torch.nn.Parameter(zeros))
        prior = _prior(lengthscale_prior(layout.dimensions))
        self.register_prior("lengthscale_prior", prior, _lengthscales, _set_lengthscales)

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **rest: bool) -> Tensor:  # noqa: FBT001, FBT002 - GPyTorch's signature
        """Covariances of features."""
        inverse = torch.exp(-self.log_lengthscales)[self.owners]
        squared = self.covar_dist(x1 * inverse, x2 * inverse, square_dist=True, diag=diag, **rest)
        root = (5.0 * squared.clamp_min(_NEAREST)).sqrt()
        return (1.0 + root + root * root / 3.0) * torch.exp(-root)


def _lengthscales(kernel: MixedMatern) -> Tensor:
    return kernel.log_lengthscales.exp()


def _set_lengthscales(kernel: MixedMatern, values: Tensor) -> None:
    kernel.log_lengthscales.data.copy_(values.log())


def _prior(density: LogNormal) -> LogNormalPrior:
    location, scale = torch.tensor([density.location, density.scale], dtype=torch.float64)
    return LogNormalPrior(location, scale)


def make_model(rows: Tensor, labels: Tensor, encoder: Encoder) -> SingleTaskGP:
    """A model of labels (`n`) at settled rows (`n x d`), yet to be fitted, where the rows are."""
    noise = Positive(transform=torch.exp, inv_transform=torch.log)
    return _model(rows, labels, encoder, GaussianLikelihood(noise_prior=_prior(NOISE_PRIOR), noise_constraint=noise))


def make_latent(posterior: OwnPosterior, rows: Tensor, encoder: Encoder) -> SingleTaskGP:
    """BoTorch's model of a posterior's labels, their variances and its hyper-parameters, at its settled rows (`n x d`)."""
    hyper = posterior.hyper
    variances = torch.as_tensor(posterior.variances + hyper.noise).to(rows)
    labels = torch.as_tensor(posterior.labels[:, 0]).to(rows)
    model = _model(rows, labels, encoder, FixedNoiseGaussianLikelihood(variances))
    model.covar_module.log_lengthscales.data.copy_(torch.as_tensor(np.log(hyper.lengthscales)))
    model.mean_module.initialize(constant=hyper.mean)
    return model.eval()


def _model(rows: Tensor, labels: Tensor, encoder: Encoder, likelihood: Likelihood) -> SingleTaskGP:
    model = SingleTaskGP(
        rows,
        labels.unsqueeze(-1),
        likelihood=likelihood,
        covar_module=MixedMatern(encoder.layout),
        mean_module=ConstantMean(),
        input_transform=Features(encoder),
        outcome_transform=None,
    )
    return model.to(rows)


def point_of(model: SingleTaskGP) -> Vector:
    """The model's hyper-parameters as a point of `likelihood.Likelihood` (`d + 2`)."""
    parameters = dict(_mll(model).named_parameters())
    point: Vector = torch.cat([parameters[name].detach().flatten() for name in NAMES]).cpu().numpy()
    return point


def place(model: SingleTaskGP, point: Vector) -> None:
    """Give the model the hyper-parameters at a point of `likelihood.Likelihood`."""
    parameters, rest = dict(_mll(model).named_parameters()), torch.as_tensor(point)
    for name in NAMES:
        values, rest = rest.tensor_split([parameters[name].numel()])
        parameters[name].data.copy_(values.reshape(parameters[name].shape))
    model.train()


def log_posterior(model: SingleTaskGP) -> float:
    """The hyper-parameters' log posterior, per observation."""
    model.train()
    with torch.no_grad():
        value = float(_mll(model)(model(*model.train_inputs), model.train_targets))
    model.eval()
    return value


def fit(model: SingleTaskGP, deadline: Deadline) -> None:
    """Give the model the best hyper-parameters that BoTorch's L-BFGS reaches from either start. At the deadline they are the best so far."""
    dimensions = model.covar_module.log_lengthscales.numel()
    reached: list[tuple[float, Vector]] = []
    for start in prior_starts(dimensions):
        between = limits(dimensions)
        place(model, np.clip(start, *np.array(between).T))
        if _climb(model, between, deadline):
            reached.append((log_posterior(model), point_of(model)))
        if reached and deadline.passed:
            break
    if not reached:
        raise ModelFittingError("no start led to hyper-parameters")
    best = max(value for value, _ in reached)
    place(model, next(point for value, point in reached if value > best - 1e-6))
    model.eval()


def _climb(model: SingleTaskGP, between: Sequence[tuple[float, float]], deadline: Deadline) -> bool:
    bounds = dict(zip(NAMES, (between[0], *between[-2:]), strict=True))
    options = {"maxiter": STEPS, "ftol": 1e-9, "gtol": 1e-5}
    try:
        # Another attempt would begin at random.
        fit_gpytorch_mll(
            _mll(model),
            max_attempts=1,
            optimizer_kwargs={"bounds": bounds, "options": options, "timeout_sec": deadline.left},
        )
    except ModelFittingError:
        return False
    return True


def _mll(model: SingleTaskGP) -> ExactMarginalLogLikelihood:
    return ExactMarginalLogLikelihood(model.likelihood, model)


def innovations(model: SingleTaskGP) -> Vector:
    """How far each of the model's labels (`n`) is from what those before it foretell, in standard deviations, noise included."""
    factor, residuals = _factorised(model)
    distances: Vector = torch.linalg.solve_triangular(factor, residuals, upper=False).squeeze(-1).cpu().numpy()
    return distances


def _factorised(model: SingleTaskGP) -> tuple[Tensor, Tensor]:
    """The lower Cholesky factor of the covariance of the model's labels (`n x n`), and how far these are from the mean (`n x 1`)."""
    model.train()
    with torch.no_grad():
        prior = model.likelihood(model(*model.train_inputs))
        factor = torch.linalg.cholesky(prior.covariance_matrix)
        residuals = (model.train_targets - prior.mean).unsqueeze(-1)
    model.eval()
    return factor, residuals


class Widened(PosteriorTransform):
    """A posterior with its standard deviations multiplied by a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor

    def evaluate(self, Y: Tensor, X: Tensor | None = None) -> Tensor:  # noqa: ARG002, N803 - BoTorch's signature
        """Labels are what they are."""
        return Y

    def forward(self, posterior: Posterior, X: Tensor | None = None) -> GPyTorchPosterior:  # noqa: ARG002, N803
        """The wider posterior."""
        given = cast("GPyTorchPosterior", posterior).distribution
        return GPyTorchPosterior(MultivariateNormal(given.mean, given.lazy_covariance_matrix * self._factor**2))


def imagining(model: SingleTaskGP, rows: Tensor, normals: Tensor) -> SingleTaskGP:
    """The model after pending trials (settled rows, `p x d`) have ended in as many ways as there are columns of normal numbers (`p x s`).

    As in BoTorch's fantasies each way is a joint draw from the posterior, but of labels without noise.
    """
    with torch.no_grad():
        posterior = cast("GPyTorchPosterior", model.posterior(rows)).distribution
        covariance = posterior.covariance_matrix + _JITTER * torch.eye(len(rows)).to(rows)
        labels = posterior.mean.unsqueeze(-1) + torch.linalg.cholesky(covariance) @ normals
        return cast("SingleTaskGP", model.condition_on_observations(X=rows, Y=labels.T.unsqueeze(-1)))


@dataclass(frozen=True, slots=True)
class Bound:
    """A model of labels that ought to be below a threshold, to which power the probability that they are counts, and the variance of their
    noise, if that counts as well.
    """

    model: SingleTaskGP
    threshold: float
    power: float = 1.0
    noise: float = 0.0


class Settling(AcquisitionFunction):
    """An acquisition that is a function of latent rows (`b x 1 x d`): what is inactive in them is settled to constants.

    At the deadline it raises OutOfTimeError, because a time limit of BoTorch's own optimisers would change what they find. `leaders` are
    rows that BoTorch starts around; `cells` is how many numbers a value takes. The log probabilities that the labels of `limits` are below
    their thresholds are added (as LogConstrainedExpectedImprovement does), each times its power.
    """

    X_baseline: Tensor
    _absent: Tensor

    def __init__(
        self,
        model: Model,
        encoder: Encoder,
        *,
        deadline: Deadline,
        leaders: Tensor,
        cells: int,
        limits: Sequence[Bound],
    ) -> None:
        super().__init__(model)
        self._encoder, self.deadline, self.cells = encoder, deadline, cells
        self._limits = list(limits)
        self.register_buffer("X_baseline", leaders)
        self.register_buffer("_absent", torch.tensor([codes.inactive for codes in encoder.columns]).to(leaders))

    def forward(self, X: Tensor) -> Tensor:  # noqa: N803 - BoTorch's name
        """The values (`b`)."""
        if self.deadline.passed:
            raise OutOfTimeError("the time limit ended the search")
        return self.value(self._settled(X))

    def value(self, settled: Tensor) -> Tensor:
        """The values (`b`) at rows (`b x 1 x d`) that are settled, whatever the time is."""
        return self._gain(settled) + sum(limit.power * self._chance(settled, limit) for limit in self._limits)

    @abstractmethod
    def _gain(self, settled: Tensor) -> Tensor:
        """What is gained (`b`) if all limits are kept, as a logarithm."""

    @staticmethod
    def _chance(settled: Tensor, limit: Bound) -> Tensor:
        posterior = cast("GPyTorchPosterior", limit.model.posterior(settled))
        mean, variance = posterior.mean.reshape(-1), posterior.variance.reshape(-1)
        spread = (variance.clamp_min(_LEAST_VARIANCE) + limit.noise).sqrt()
        return torch.special.log_ndtr((limit.threshold - mean) / spread)

    def _settled(self, latent: Tensor) -> Tensor:
        # L-BFGS runs on the CPU, so that one more visit there costs little.
        rows = latent.detach().reshape(-1, latent.shape[-1]).cpu().numpy()
        active = torch.as_tensor(self._encoder.activity(self._encoder.snap(rows))).to(latent.device)
        return torch.where(active.reshape(latent.shape), latent, self._absent)


class Improvement(Settling):
    """BoTorch's LogEI of labels below the incumbents (`s`, or one), averaged over the ways in which pending trials may end.

    Standard deviations are those of the model times `widening`.
    """

    def __init__(
        self,
        model: SingleTaskGP,
        incumbents: Tensor,
        encoder: Encoder,
        *,
        deadline: Deadline,
        leaders: Tensor,
        limits: Sequence[Bound] = (),
        widening: float = 1.0,
    ) -> None:
        self._ways = incumbents.numel()
        cells = model.train_targets.shape[-1] * (self._ways + len(limits))
        super().__init__(model, encoder, deadline=deadline, leaders=leaders, cells=cells, limits=limits)
        self._log_ei = LogExpectedImprovement(
            model, best_f=incumbents.unsqueeze(-1), posterior_transform=Widened(widening), maximize=False
        )

    def _gain(self, settled: Tensor) -> Tensor:
        if self._ways == 1:
            return self._log_ei(settled)
        return torch.logsumexp(self._log_ei(settled.unsqueeze(-3)), dim=-1) - math.log(self._ways)


class FrontImprovement(Settling):
    """BoTorch's qLogNEHVI of labels, one model for each objective, over a reference (`m`); pending trials (settled rows) are its own matter."""

    def __init__(
        self,
        models: Sequence[SingleTaskGP],
        reference: Tensor,
        encoder: Encoder,
        *,
        deadline: Deadline,
        places: Tensor,
        pending: Tensor | None,
        limits: Sequence[Bound] = (),
    ) -> None:
        samples, joint = SAMPLES[len(models)], ModelListGP(*models)
        cells = len(places) * (samples + len(limits))
        super().__init__(joint, encoder, deadline=deadline, leaders=places[:1], cells=cells, limits=limits)
        # Else BoTorch compiles a kernel when it is first used, for this very processor and under a lock: with no time limit, and for ever
        # where a process was killed meanwhile.
        logei._load_attempted = True  # noqa: SLF001
        self._improvement = logei.qLogNoisyExpectedHypervolumeImprovement(
            joint,
            -reference,
            places,
            sampler=SobolQMCNormalSampler(torch.Size([samples]), seed=0),
            objective=WeightedMCMultiOutputObjective(-torch.ones_like(reference)),
            X_pending=pending,
            prune_baseline=True,
        )

    def _gain(self, settled: Tensor) -> Tensor:
        return self._improvement(settled)


def tensor(array: Matrix | Vector | Sequence[float], device: torch.device) -> Tensor:
    """Numbers on a device, in double precision; a copy, because torch aligns its memory, which sums may depend on, and NumPy does not."""
    return torch.tensor(array, dtype=torch.float64, device=device)


@contextmanager
def exact() -> Iterator[None]:
    """GPyTorch by Cholesky factors, however many observations there are."""
    with gpytorch.settings.max_cholesky_size(_EXACT), gpytorch.settings.fast_computations(*[False] * 3):
        yield
