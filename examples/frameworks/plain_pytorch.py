"""A network in plain PyTorch, by a loop that reports, stops, saves and resumes.

Run it with `python -m examples.frameworks.plain_pytorch`; as a worker's objective it is `examples.frameworks.plain_pytorch:train`.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from asktell.integrations.pytorch import Loop
from asktell.integrations.training import ReportingTrial
from examples.frameworks.digits import EPOCHS, Parameters, digits, tune


def train(parameters: Parameters, trial: ReportingTrial) -> dict[str, float]:
    """The accuracy after the last epoch."""
    inputs, labels, validation, answers = map(torch.as_tensor, digits())
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=parameters["learning_rate"], momentum=parameters["momentum"])
    batches = DataLoader(TensorDataset(inputs, labels), batch_size=64, shuffle=True)

    loop = Loop(trial, model=model, optimizer=optimizer)
    for _ in loop.epochs(EPOCHS):
        for batch, wanted in batches:
            optimizer.zero_grad()
            cross_entropy(model(batch), wanted).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.no_grad():
            correct = model(validation).argmax(1) == answers
        loop.report(accuracy=correct.double().mean())
    return loop.metrics


if __name__ == "__main__":
    tune(train)
