"""A Lightning module whose trainer reports, stops, saves and resumes by a callback.

Run it with `python -m examples.frameworks.with_lightning`; as a worker's objective it is `examples.frameworks.with_lightning:train`.
"""

from __future__ import annotations

import logging
import warnings

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from asktell.integrations.lightning import AskTellCallback
from asktell.integrations.training import ReportingTrial
from examples.frameworks.digits import EPOCHS, Parameters, digits, tune


class Classifier(pl.LightningModule):
    """A network with one hidden layer."""

    def __init__(self, learning_rate: float, momentum: float) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        self.learning_rate, self.momentum = learning_rate, momentum

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        """The loss of a batch."""
        return cross_entropy(self.network(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        """Log what the callback reports."""
        self.log("val_accuracy", (self.network(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Gradient descent with momentum."""
        return torch.optim.SGD(self.parameters(), lr=self.learning_rate, momentum=self.momentum)


def train(parameters: Parameters, trial: ReportingTrial) -> dict[str, float]:
    """The accuracy after the last epoch."""
    inputs, labels, validation, answers = map(torch.as_tensor, digits())
    pl.seed_everything(0, verbose=False)
    asktell = AskTellCallback(trial, {"accuracy": "val_accuracy"})
    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        callbacks=asktell.callbacks,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=len(asktell.callbacks) > 1,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    batches = DataLoader(TensorDataset(inputs, labels), batch_size=64, shuffle=True)
    held_out = DataLoader(TensorDataset(validation, answers), batch_size=1024)
    trainer.fit(Classifier(**parameters), batches, held_out, ckpt_path=asktell.ckpt_path)
    return asktell.metrics


if __name__ == "__main__":
    # It advises on data loaders with more processes, which this little data does not need.
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    tune(train)
