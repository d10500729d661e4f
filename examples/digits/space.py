"""The search space of the demo, and what a practitioner would start from without tuning."""

from asktell.client import Categorical, Float, Int, Maximize, Ordinal, ParameterSpec
from examples.digits.objective import ACTIVATIONS

STUDY = "digits"

OBJECTIVE = Maximize("accuracy")

PARAMETERS: list[ParameterSpec] = [
    Float("learning_rate", 1e-5, 1e-1, log=True),
    Float("weight_decay", 1e-6, 1e-1, log=True),
    Float("dropout", 0.0, 0.7),
    Ordinal("batch_size", [16, 32, 64, 128, 256]),
    Int("layers", 1, 4),
    Ordinal("width", [16, 32, 64, 128, 256]),
    Categorical("activation", list(ACTIVATIONS)),
    Categorical("optimizer", ["sgd", "adam", "adamw", "rmsprop"]),
    Float("momentum", 0.0, 0.99, when=("optimizer", ["sgd"])),
]

DEFAULTS: dict[str, float | int | str] = {
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "dropout": 0.0,
    "batch_size": 200,
    "layers": 1,
    "width": 100,
    "activation": "relu",
    "optimizer": "adam",
}
"""PyTorch's own defaults for Adam, on the architecture and batch size that scikit-learn's MLPClassifier takes by default. Some of
these values lie outside the search space, so the objective is asked directly and the study is told nothing of them."""

DEFAULTS_IN_WORDS = (
    "PyTorch's Adam as it comes; one hidden layer of 100, ReLU, batches of 200 as in scikit-learn's MLPClassifier"
)
