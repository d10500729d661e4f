"""The likelihood, the posterior and the acquisition against BoTorch's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from botorch.acquisition.analytic import LogExpectedImprovement as BotorchLogEI
from botorch.models import SingleTaskGP
from gpytorch.constraints import Positive
from gpytorch.kernels import Kernel
from gpytorch.likelihoods import GaussianLikelihood
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.priors import LogNormalPrior
from scipy.optimize import check_grad

from asktell.server.policies.acquisition import LogExpectedImprovement
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.model_based import quiet_single_thread
from asktell.server.policies.surrogate import Hyperparameters, Likelihood, Posterior, fit, matern


@pytest.fixture(autouse=True)
def single_thread():
    with quiet_single_thread():
        yield


NOMINAL = torch.tensor([False, True, False])


def problem(count, *, seed):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(count, 3, generator=generator, dtype=torch.float64)
    inputs[:, 1] = torch.randint(0, 3, (count,), generator=generator).double()
    labels = torch.sin(6 * inputs[:, 0]) + inputs[:, 1] * inputs[:, 2]
    return inputs, (labels - labels.mean()) / labels.std()


class Reference(Kernel):
    """Matérn-5/2 over numbers and Hamming, written as it reads: one pair of columns at a time."""

    has_lengthscale = True

    def forward(self, x1, x2, diag=False, **_):
        squared = torch.zeros(x1.shape[:-1] if diag else (*x1.shape[:-1], x2.shape[-2]), dtype=x1.dtype)
        for index, lengthscale in enumerate(self.lengthscale.flatten()):
            left, right = (x1, x2) if diag else (x1[..., :, None, :], x2[..., None, :, :])
            gap = left[..., index] - right[..., index]
            gap = (gap != 0).double() if NOMINAL[index] else gap
            squared = squared + (gap / lengthscale) ** 2
        return matern(squared)


def reference(inputs, labels, hyper):
    location = math.sqrt(2) + math.log(3) / 2
    kernel = Reference(
        ard_num_dims=3,
        lengthscale_prior=LogNormalPrior(location, math.sqrt(3)),
        lengthscale_constraint=Positive(transform=torch.exp, inv_transform=torch.log),
    )
    likelihood = GaussianLikelihood(
        noise_prior=LogNormalPrior(-4.0, 1.0),
        noise_constraint=Positive(transform=torch.exp, inv_transform=torch.log),
    )
    model = SingleTaskGP(
        inputs, labels.unsqueeze(-1), likelihood=likelihood, covar_module=kernel, outcome_transform=None
    )
    model.covar_module.lengthscale = hyper.lengthscales
    model.likelihood.noise = hyper.noise
    model.mean_module.constant.data.fill_(hyper.mean)
    return model.double()


HYPER = Hyperparameters(torch.tensor([0.4, 1.3, 2.1], dtype=torch.float64), 0.013, 0.2)
POINT = np.array([*np.log([0.4, 1.3, 2.1]), math.log(0.013), 0.2])


def test_the_likelihood_equals_botorchs():
    inputs, labels = problem(20, seed=0)
    model = reference(inputs, labels, HYPER)
    model.train()
    theirs = -ExactMarginalLogLikelihood(model.likelihood, model)(model(inputs), labels)
    ours, _ = Likelihood(inputs, labels, NOMINAL).with_gradient(POINT)
    assert ours == pytest.approx(float(theirs.detach()), abs=1e-6)


def test_the_likelihoods_gradient_is_that_of_its_values():
    likelihood = Likelihood(*problem(20, seed=0), NOMINAL)
    error = check_grad(lambda x: likelihood.with_gradient(x)[0], lambda x: likelihood.with_gradient(x)[1], POINT)
    assert error < 1e-5


def test_posterior_and_log_ei_equal_botorchs():
    inputs, labels = problem(20, seed=0)
    rows, _ = problem(50, seed=1)
    model = reference(inputs, labels, HYPER)
    model.eval()
    theirs = model.posterior(rows)
    posterior = Posterior(HYPER, inputs=inputs, labels=labels, nominal=NOMINAL)
    mean, deviation = posterior(rows)
    torch.testing.assert_close(mean, theirs.mean.squeeze(-1), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(deviation, theirs.variance.squeeze(-1).sqrt(), rtol=1e-6, atol=1e-6)
    ours = LogExpectedImprovement(posterior, float(labels.min()))(rows)
    torch.testing.assert_close(
        ours, BotorchLogEI(model, best_f=labels.min(), maximize=False)(rows.unsqueeze(1)), rtol=1e-6, atol=1e-6
    )


def test_the_fit_finds_out_what_matters():
    inputs, _ = problem(60, seed=2)
    labels = torch.sin(6 * inputs[:, 0])
    hyper = fit(inputs, (labels - labels.mean()) / labels.std(), NOMINAL, deadline=Deadline(None))
    assert hyper.lengthscales[0] < 0.2 * hyper.lengthscales[1]
    assert hyper.lengthscales[0] < 0.2 * hyper.lengthscales[2]
    assert hyper.noise < 1e-2


def test_believing_a_point_makes_it_certain_and_moves_no_mean():
    inputs, labels = problem(15, seed=3)
    hyper = fit(inputs, labels, NOMINAL, deadline=Deadline(None))
    posterior = Posterior(hyper, inputs=inputs, labels=labels, nominal=NOMINAL)
    row = torch.tensor([[0.95, 1.0, 0.05]], dtype=torch.float64)
    rows, _ = problem(20, seed=4)
    believing = posterior.believing(row)
    assert believing(row)[1] < 0.5 * posterior(row)[1]
    torch.testing.assert_close(believing(rows)[0], posterior(rows)[0], rtol=1e-6, atol=1e-6)


def test_contradicting_labels_at_one_point_still_have_a_posterior():
    inputs = torch.full((6, 3), 0.5, dtype=torch.float64)
    labels = torch.tensor([-1.0, 1.0, -1.0, 1.0, -1.0, 1.0], dtype=torch.float64)
    hyper = fit(inputs, labels, NOMINAL, deadline=Deadline(None))
    mean, _ = Posterior(hyper, inputs=inputs, labels=labels, nominal=NOMINAL)(inputs[:1])
    assert abs(float(mean[0])) < 0.3
