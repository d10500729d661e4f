"""A small convolutional network on scikit-learn's handwritten digits, on the GPU that it is shown, or on the CPU."""

from __future__ import annotations

import os
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn

from asktell.worker.child import ObjectiveTrial

EPOCHS = 12
TRAINING = 1_200
"""The first so many images are trained on; the others, 597, are judged by."""


def device() -> torch.device:
    """What CUDA_VISIBLE_DEVICES leaves of GPUs (PyTorch calls AMD's so too), else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def network(width: int, dropout: float) -> nn.Module:
    """Two convolutions over 8 x 8 images, and a linear layer to 10 digits."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(8 * width, 10),
    )


def objective(parameters: dict[str, Any], trial: ObjectiveTrial) -> dict[str, float]:
    """Train; return the accuracy on images that were held back, after each epoch reported as well."""
    place = device()
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else f"CPU, threads: {torch.get_num_threads()}"
    print(
        f"trial {trial.number} on {name} (slot {os.environ['ASKTELL_SLOT']}, GPU {os.environ['ASKTELL_GPUS'] or 'none'})"
    )
    torch.manual_seed(trial.number)
    pixels, digits = load_digits(return_X_y=True)
    images = torch.tensor(pixels / 16.0, dtype=torch.float32, device=place).reshape(-1, 1, 8, 8)
    labels = torch.tensor(digits, dtype=torch.long, device=place)
    model = network(parameters["width"], parameters["dropout"]).to(place)
    optimizer = torch.optim.AdamW(model.parameters(), lr=parameters["learning_rate"])
    accuracy = 0.0
    for epoch in range(1, EPOCHS + 1):
        _train(model, optimizer, images[:TRAINING], labels[:TRAINING], batch=parameters["batch_size"])
        accuracy = _accuracy(model, images[TRAINING:], labels[TRAINING:])
        if trial.report(step=epoch, accuracy=accuracy).should_stop:
            break
    return {"accuracy": accuracy, "on_gpu": float(place.type == "cuda")}


def _train(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor, *, batch: int
) -> None:
    model.train()
    for chosen in torch.randperm(len(images), device=images.device).split(batch):  # type: ignore[no-untyped-call]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


@torch.no_grad()
def _accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    model.eval()
    return float((model(images).argmax(1) == labels).float().mean())
