"""The states of the random number generators that a training draws from: Python's, torch's, and NumPy's if it is there."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import torch


def random_states() -> dict[str, Any]:
    """As plain values and tensors, which `torch.load(weights_only=True)` reads."""
    states: dict[str, Any] = {"python": random.getstate(), "torch": torch.get_rng_state(), "cuda": []}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    numpy = _numpy()
    if numpy is not None:
        name, keys, *rest = numpy.random.get_state()
        states["numpy"] = [name, keys.tolist(), *rest]
    return states


def set_random_states(states: Mapping[str, Any]) -> None:
    """Put back what `random_states` said; of CUDA only on as many devices."""
    random.setstate(states["python"])
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available() and torch.cuda.device_count() == len(states["cuda"]):
        torch.cuda.set_rng_state_all(states["cuda"])
    numpy = _numpy()
    if numpy is not None and "numpy" in states:
        numpy.random.set_state(tuple(states["numpy"]))


def _numpy() -> Any:
    """NumPy, if it is installed: torch does without."""
    try:
        import numpy  # noqa: PLC0415
    except ModuleNotFoundError:
        return None
    return numpy
