"""A small vision transformer, whose Trainer reports, stops, saves and resumes by a callback.

Run it with `python -m examples.frameworks.with_transformers`; as a worker's objective it is
`examples.frameworks.with_transformers:train`. The model is made from a configuration: nothing is downloaded.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import (
    EvalPrediction,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
    logging,
)

from asktell.integrations.training import ReportingTrial
from asktell.integrations.transformers import AskTellCallback
from examples.frameworks.digits import EPOCHS, Inputs, Labels, Parameters, digits, tune


class Images(Dataset[dict[str, Any]]):
    """Digits as the model takes them: one channel of 8 by 8 pixels."""

    def __init__(self, inputs: Inputs, labels: Labels) -> None:
        self.pixels = torch.as_tensor(inputs).reshape(-1, 1, 8, 8)
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> dict[str, Any]:
        return {"pixel_values": self.pixels[place], "labels": int(self.labels[place])}


def accuracy(predicted: EvalPrediction) -> dict[str, float]:
    """What the trainer evaluates, as `eval_accuracy`."""
    return {"accuracy": float((predicted.predictions.argmax(1) == predicted.label_ids).mean())}


def train(parameters: Parameters, trial: ReportingTrial) -> dict[str, float]:
    """The accuracy after the last epoch."""
    inputs, labels, validation, answers = digits()
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    model = ViTForImageClassification(ViTConfig(image_size=8, patch_size=2, num_channels=1, num_labels=10, **sizes))
    asktell = AskTellCallback(trial, {"accuracy": "eval_accuracy"})
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            asktell.output_dir(folder),
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=32,
            per_device_eval_batch_size=1024,
            # The study's learning rates are those of gradient descent; Adam's are smaller.
            learning_rate=parameters["learning_rate"] / 30,
            adam_beta1=parameters["momentum"],
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=2,
            report_to="none",
            logging_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        trainer = Trainer(
            model,
            arguments,
            train_dataset=Images(inputs, labels),
            eval_dataset=Images(validation, answers),
            compute_metrics=accuracy,
            callbacks=[asktell],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=asktell.checkpoint)
        return {"accuracy": trainer.evaluate()["eval_accuracy"]}


if __name__ == "__main__":
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # More of them would wait for each other longer than such a small network computes.
    torch.set_num_threads(1)
    tune(train)
