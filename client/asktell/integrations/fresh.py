"""Hyper-parameters of optimizers and schedules as a trial set them up, so that a checkpoint of another trial does not bring its own."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

Scheduler = LRScheduler | ReduceLROnPlateau


class Fresh:
    """What optimizers and schedules were made with.

    A trial that goes on from its parent's checkpoint has parameters of its own, while the checkpoint of an optimizer has those of the
    parent in its groups (learning rate, momentum, weight decay and so on). `settle` puts the trial's own back after the
    state was loaded, and winds the schedules, as they were made, forward to where the parent's stood.
    """

    def __init__(self, optimizers: Sequence[Optimizer], schedulers: Sequence[Scheduler]) -> None:
        self._groups = [(optimizer, [_settings(group) for group in optimizer.param_groups]) for optimizer in optimizers]
        self._schedulers = [(scheduler, copy.deepcopy(scheduler.state_dict())) for scheduler in schedulers]

    def settle(self) -> None:
        """Give the optimizers their own settings, and the schedules theirs, as far on as the loaded ones."""
        for optimizer, settings in self._groups:
            for group, own in zip(optimizer.param_groups, settings, strict=True):
                group.update(copy.deepcopy(own))
        for scheduler, state in self._schedulers:
            steps = scheduler.last_epoch
            scheduler.load_state_dict(state)
            # The measure of a plateau is none of the epochs: such a schedule begins anew.
            if isinstance(scheduler, LRScheduler):
                _wind(scheduler, steps)


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return {name: copy.deepcopy(value) for name, value in group.items() if name not in {"params", "param_names"}}


def _wind(scheduler: LRScheduler, steps: int) -> None:
    with warnings.catch_warnings():
        # "lr_scheduler.step() before optimizer.step()": these are steps that the parent took.
        warnings.simplefilter("ignore")
        while scheduler.last_epoch < steps:
            scheduler.step()
