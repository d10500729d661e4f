"""A range test that proposes the bounds of the learning rate, and a study within them.

Run it with `python -m examples.frameworks.learning_rate_range`; with a file's name it also draws the test:
`python -m examples.frameworks.learning_rate_range range.png`.
"""

from __future__ import annotations

from pathlib import Path

import cyclopts
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from asktell.integrations.pytorch import LearningRateRange, lr_range_test
from examples.frameworks.digits import digits


def loss(model: nn.Module, batch: list[Tensor]) -> Tensor:
    """The loss of a batch."""
    return cross_entropy(model(batch[0]), batch[1])


def test() -> LearningRateRange:
    """The range for Adam on a network with one hidden layer: a hundred steps, which leave the model as it was."""
    inputs, labels, _, _ = map(torch.as_tensor, digits())
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    batches = DataLoader(TensorDataset(inputs, labels), batch_size=64, shuffle=True)
    return lr_range_test(model, torch.optim.Adam(model.parameters()), loss, batches)


def main(picture: Path | None = None, /) -> None:
    """Test, and say what was found; draw it to a file if its name is given."""
    found = test()
    print(f"the loss falls between {found.low:.2g} and {found.high:.2g}, fastest at {found.suggestion:.2g}")
    print(found.parameter())
    if picture is not None:
        found.plot(picture)


if __name__ == "__main__":
    cyclopts.run(main, result_action="return_value")
