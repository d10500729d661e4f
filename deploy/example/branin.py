"""What the compose file's workers evaluate, for trying the deployment out: a textbook function in place of training."""

import math
from collections.abc import Mapping


def objective(parameters: Mapping[str, float], _trial: object) -> dict[str, float]:
    """Branin's function of x1 in [-5, 10] and x2 in [0, 15]; its three minima have the value 0.397887."""
    x1, x2 = parameters["x1"], parameters["x2"]
    valley = x2 - 5.1 * x1**2 / (4 * math.pi**2) + 5 * x1 / math.pi - 6
    return {"value": valley**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x1) + 10}
