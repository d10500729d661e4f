"""What an engine process runs beside decisions. It imports little: what it imports stays in each process's memory."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from asktell.server.domain.metric import Goal, MetricValue, Objective
from asktell.server.domain.policy import Decision, Observation, SuggestRequest
from asktell.server.domain.space import Float, SearchSpace
from asktell.server.domain.trial import TrialState
from asktell.server.policies import torch_device
from asktell.server.policies.parcel import Parcel

T = TypeVar("T")

Compute = Callable[[SuggestRequest], Decision]

_PARENT_CHECK = 1.0


def rehearse(compute: Compute) -> Decision:
    """A first small decision, which imports what `gp` needs: torch waits for the first study that names it."""
    values = {0.0: 1.0, 0.4: 0.2, 1.0: 0.7, 0.7: 0.3, 0.2: 0.5}
    return compute(
        SuggestRequest(
            space=SearchSpace((Float(name="x", low=0.0, high=1.0),)),
            objectives=(Objective("y", Goal.MINIMIZE),),
            policy="gp",
            seed=0,
            count=1,
            next_number=len(values) + 1,
            observations=tuple(
                Observation(number, TrialState.SUCCEEDED, {"x": x}, {"y": MetricValue(y)})
                for number, (x, y) in enumerate(values.items(), 1)
            ),
        )
    )


def answer(compute: Callable[[SuggestRequest], T], parcel: Parcel) -> tuple[T, bool]:
    """What is computed of a request, and whether another process should take this one's place."""
    return compute(parcel.unpack()), torch_device.lost()


def load(module: str) -> None:
    """Import a module that a later decision needs."""
    # It may have been installed since an import in vain.
    importlib.invalidate_caches()
    importlib.import_module(module)
    # What was imported stays, and need not be looked through when garbage is collected.
    gc.collect()
    gc.freeze()


def prepare(parent: int, device: str) -> None:
    """Leave Ctrl-C to the server, do not outlive it, and compute where its settings say."""
    torch_device.use(device)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(parent,), daemon=True, name="follow-parent").start()


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK)
    os._exit(1)
