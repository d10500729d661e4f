"""What is tuned: a small PyTorch network on scikit-learn's bundled handwritten digits.

The value of a configuration is its accuracy in 3-fold stratified cross-validation after twelve epochs. That little training is
on purpose: it is what makes learning rate, optimiser, batch size and architecture matter. A configuration has one value: folds,
initial weights, the order of the examples and dropout are seeded, the same way for every configuration.
"""

import functools
import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold
from torch import Tensor, nn

FOLDS = 3
EPOCHS = 12
CLASSES = 10

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "sigmoid": nn.Sigmoid}

Parameters = Mapping[str, Any]
Accuracy = float | tuple[float, float]
"""A mean and its standard error; the mean alone where a single fold says nothing of its error."""


class Verdict(Protocol):
    """The server's answer to a report."""

    @property
    def should_stop(self) -> bool:
        """Whether the trial is not worth finishing."""


class Trial(Protocol):
    """What the objective needs of a trial: somewhere to report progress to."""

    def report(self, *, step: int, accuracy: float) -> Verdict:
        """Report the mean accuracy of the folds so far; `step` counts the finished folds from 1."""


@dataclass(frozen=True, slots=True)
class Fold:
    """One split. Inputs are float32, `n x 64`, standardised by the training part's means and deviations; labels are int64, `n`."""

    inputs: Tensor
    labels: Tensor
    held_out_inputs: Tensor
    held_out_labels: Tensor


def train(parameters: Parameters, trial: Trial) -> dict[str, Accuracy]:
    """Cross-validate one configuration.

    Returns {"accuracy": (mean over the folds, standard error of that mean)}, both in [0, 1]. When the server asks to stop, the
    folds that are done are what counts.
    """
    accuracies: list[float] = []
    for accuracy in fold_accuracies(parameters):
        accuracies.append(accuracy)
        verdict = trial.report(step=len(accuracies), accuracy=statistics.fmean(accuracies))
        if verdict.should_stop:
            break
    return {"accuracy": _estimate(accuracies)}


def fold_accuracies(parameters: Parameters) -> Iterator[float]:
    """Train and test on one fold after the other; accuracies in [0, 1]."""
    torch.set_num_threads(1)
    for seed, fold in enumerate(_folds()):
        yield _accuracy(parameters, fold, seed=seed)


def _estimate(accuracies: list[float]) -> Accuracy:
    mean = statistics.fmean(accuracies)
    if len(accuracies) < 2:
        return mean
    return mean, statistics.stdev(accuracies) / math.sqrt(len(accuracies))


@functools.cache
def _folds() -> tuple[Fold, ...]:
    images, labels = load_digits(return_X_y=True)
    inputs, targets = torch.tensor(images, dtype=torch.float32), torch.tensor(labels, dtype=torch.int64)
    splitter = StratifiedKFold(n_splits=FOLDS, shuffle=True, random_state=0)
    return tuple(
        _fold(inputs, targets, torch.as_tensor(kept), torch.as_tensor(held_out))
        for kept, held_out in splitter.split(images, labels)
    )


def _fold(inputs: Tensor, labels: Tensor, kept: Tensor, held_out: Tensor) -> Fold:
    centre = inputs[kept].mean(dim=0)
    # Some pixels of the margin are blank in every training image.
    scale = inputs[kept].std(dim=0).clamp(min=1e-3)
    standardised = (inputs - centre) / scale
    return Fold(standardised[kept], labels[kept], standardised[held_out], labels[held_out])


def _accuracy(parameters: Parameters, fold: Fold, *, seed: int) -> float:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(parameters, features=fold.inputs.shape[1])
        _fit(network, parameters, fold)
    network.eval()
    with torch.inference_mode():
        guesses = network(fold.held_out_inputs).argmax(dim=1)
    return float((guesses == fold.held_out_labels).float().mean())


def _network(parameters: Parameters, *, features: int) -> nn.Sequential:
    network = nn.Sequential()
    size = features
    for _ in range(parameters["layers"]):
        network.append(nn.Linear(size, parameters["width"]))
        network.append(ACTIVATIONS[parameters["activation"]]())
        network.append(nn.Dropout(parameters["dropout"]))
        size = parameters["width"]
    return network.append(nn.Linear(size, CLASSES))


def _fit(network: nn.Module, parameters: Parameters, fold: Fold) -> None:
    optimizer = _optimizer(network, parameters)
    cross_entropy = nn.CrossEntropyLoss()
    network.train()
    for _ in range(EPOCHS):
        order = torch.randperm(len(fold.labels))
        for batch in order.split(parameters["batch_size"]):  # type: ignore[no-untyped-call]
            loss = cross_entropy(network(fold.inputs[batch]), fold.labels[batch])
            if not torch.isfinite(loss):
                return  # It diverged: what is left of it guesses.
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _optimizer(network: nn.Module, parameters: Parameters) -> torch.optim.Optimizer:
    weights = network.parameters()
    rate, decay = parameters["learning_rate"], parameters["weight_decay"]
    match parameters["optimizer"]:
        case "sgd":
            return torch.optim.SGD(weights, lr=rate, weight_decay=decay, momentum=parameters["momentum"])
        case "adam":
            return torch.optim.Adam(weights, lr=rate, weight_decay=decay)
        case "adamw":
            return torch.optim.AdamW(weights, lr=rate, weight_decay=decay)
        case "rmsprop":
            return torch.optim.RMSprop(weights, lr=rate, weight_decay=decay)
        case other:
            raise ValueError(f"optimizer {other!r} is unknown: it is one of sgd, adam, adamw, rmsprop")
