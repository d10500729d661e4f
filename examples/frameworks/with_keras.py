"""A Keras model whose fit reports, stops, saves and resumes by a callback.

Run it with `python -m examples.frameworks.with_keras`; as a worker's objective it is `examples.frameworks.with_keras:train`.
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras

from asktell.integrations.keras import AskTellCallback
from asktell.integrations.training import ReportingTrial
from examples.frameworks.digits import EPOCHS, Parameters, digits, tune


def train(parameters: Parameters, trial: ReportingTrial) -> dict[str, float]:
    """The accuracy after the last epoch."""
    inputs, labels, validation, answers = digits()
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(10)])
    model.compile(
        keras.optimizers.SGD(parameters["learning_rate"], momentum=parameters["momentum"]),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    asktell = AskTellCallback(trial, {"accuracy": "val_accuracy"})
    model.fit(
        inputs,
        labels,
        batch_size=64,
        epochs=EPOCHS,
        initial_epoch=asktell.initial_epoch,
        validation_data=(validation, answers),
        callbacks=[asktell],
        verbose=0,
    )
    return {"accuracy": float(model.evaluate(validation, answers, verbose=0, return_dict=True)["accuracy"])}


if __name__ == "__main__":
    tune(train)
