"""Models and optimizers of which each process has a part, as `torch.distributed.fsdp.fully_shard` makes them: each saves its own.

A checkpoint is a directory of torch.distributed.checkpoint. Another number of processes may go on from it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from asktell.client import InvalidArgument
from asktell.integrations import ranks

_PREFIX: Final = "shards-"


class Shards:
    """The sharded ones among the parts of a training; `names` are theirs.

    InvalidArgument for an optimizer of sharded parameters without its model, by whose names its state is saved, and for a model of
    FullyShardedDataParallel, whose state is saved otherwise.
    """

    def __init__(self, parts: Mapping[str, Any]) -> None:
        self._models = {name: part for name, part in parts.items() if _is_sharded_model(name, part)}
        self._optimizers = {
            name: (_model_of(name, part, self._models.values()), part)
            for name, part in parts.items()
            if isinstance(part, Optimizer) and _any_sharded(_parameters(part))
        }
        self.names = frozenset({*self._models, *self._optimizers})

    def save(self, root: Path, *, epoch: int) -> str:
        """Save into a new directory below the root, and return its name once all processes are done; every process must call this."""
        place = root / f"{_PREFIX}{epoch}"
        if ranks.rank() == 0:
            # What is left of an attempt that was killed here.
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
        ranks.of_all(None)
        save(self._state(), checkpoint_id=place)
        return place.name

    def load(self, place: Path) -> None:
        """Load what `save` left; every process must call this."""
        state = self._state()
        load(state, checkpoint_id=place)
        for name, model in self._models.items():
            set_model_state_dict(model, state[name])
        for name, (model, optimizer) in self._optimizers.items():
            set_optimizer_state_dict(model, optimizer, state[name])

    def keep(self, root: Path, place: str) -> None:
        """Remove what was saved below the root, but for one place."""
        for other in root.glob(f"{_PREFIX}*"):
            if other.name != place:
                shutil.rmtree(other, ignore_errors=True)

    def _state(self) -> dict[str, Any]:
        models = {name: get_model_state_dict(model) for name, model in self._models.items()}
        optimizers = {name: get_optimizer_state_dict(*each) for name, each in self._optimizers.items()}
        return {**models, **optimizers}


def _is_sharded_model(name: str, part: Any) -> bool:
    if not isinstance(part, nn.Module):
        return False
    if any(isinstance(each, FullyShardedDataParallel) for each in part.modules()):
        raise InvalidArgument.at(name, "is a FullyShardedDataParallel: shard it by torch.distributed.fsdp.fully_shard")
    return _any_sharded(part.parameters())


def _any_sharded(parameters: Iterable[torch.Tensor]) -> bool:
    return any(isinstance(each, DTensor) for each in parameters)


def _parameters(optimizer: Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _model_of(name: str, optimizer: Optimizer, models: Iterable[nn.Module]) -> nn.Module:
    wanted = {id(parameter) for parameter in _parameters(optimizer)}
    for model in models:
        if wanted <= {id(parameter) for parameter in model.parameters()}:
            return model
    raise InvalidArgument.at(name, "has sharded parameters that are those of no other part: name their model as well")
