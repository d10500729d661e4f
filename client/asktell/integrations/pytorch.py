"""A training loop in plain PyTorch that reports, stops, saves and resumes.

    loop = Loop(trial, model=model, optimizer=optimizer, scheduler=scheduler)
    for epoch in loop.epochs(20):
        train(model, optimizer)
        scheduler.step()
        loop.report(accuracy=accuracy(model))

`lr_range_test` proposes the bounds of a learning rate.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from asktell.client import FailedPrecondition, InvalidArgument
from asktell.client.archive import Replacement
from asktell.integrations.missing import missing_extra
from asktell.integrations.training import ReportingTrial, Training, logger

try:
    import torch
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
except ModuleNotFoundError as error:
    raise missing_extra("torch", "pytorch", error) from error

from asktell.integrations import ranks
from asktell.integrations.fresh import Fresh
from asktell.integrations.learning_rate import LearningRateRange, lr_range_test
from asktell.integrations.random_states import random_states, set_random_states

if TYPE_CHECKING:
    from asktell.integrations.shards import Shards

__all__ = ["LearningRateRange", "Loop", "Stateful", "lr_range_test"]

FILE: Final = "loop.pt"
"""The state in a trial's directory; of a sharded model, what names the rest. It is replaced as a whole: a crash leaves the earlier one."""


@runtime_checkable
class Stateful(Protocol):
    """Whatever can be saved: a model, an optimizer, a schedule, a gradient scaler, a data loader that knows its place."""

    def state_dict(self) -> dict[str, Any]:
        """What to save."""

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Go on from what was saved."""


class Loop:
    """The epochs of one trial.

    Args:
        trial: The trial, in processes of torch.distributed as `ranks.share` gives it; None for a training that reports to nobody.
        checkpoints: A directory under which each trial gets one of its own, on a file system that all workers share. By default the
            trial's `checkpoint_dir`, which a worker with `--checkpoints` provides; without either nothing is saved.
        save_every: Save after every so many epochs, and after the last one.
        parts: What is saved and restored besides the epoch and the states of the random number generators (Python's,
            NumPy's, torch's on CPU and CUDA): everything with `state_dict` and `load_state_dict`, and torch.Generator.

    A model that is sharded by `fully_shard`, and its optimizer, are saved by each process in part, in a directory beside the file.

    A trial that goes on from its parent's checkpoint keeps its own learning rate, momentum and so on: see `fresh.Fresh`.
    """

    def __init__(
        self,
        trial: ReportingTrial | None,
        *,
        checkpoints: str | Path | None = None,
        save_every: int = 1,
        **parts: Stateful | torch.Generator,
    ) -> None:
        if save_every < 1:
            raise InvalidArgument.at("save_every", f"is {save_every}, not 1 or more")
        for name, part in parts.items():
            if not isinstance(part, Stateful | torch.Generator):
                raise InvalidArgument.at(name, f"is a {type(part).__name__}, without state_dict and load_state_dict")
        self._training = Training(trial, checkpoints=checkpoints)
        self._save_every = save_every
        self._shards = _shards(parts)
        self._sharded = sorted(self._shards.names) if self._shards else []
        self._parts = {name: part for name, part in parts.items() if name not in self._sharded}
        self._fresh = Fresh(
            [part for part in parts.values() if isinstance(part, Optimizer)],
            [part for part in parts.values() if isinstance(part, LRScheduler | ReduceLROnPlateau)],
        )
        self._stopping = False
        self.epoch = 0
        """The last epoch that was begun; 0 before the first."""
        self.metrics: dict[str, float] = {}
        """What was reported last, also before the training was resumed."""
        self._began_after = 0
        self._restored = False

    def epochs(self, count: int, *, after_parent: bool = False) -> Iterator[int]:
        """The epochs that are left up to the `count`-th, from 1; with a checkpoint they begin after the last saved one.

        They end early once the service says so or the lease is lost. `after_parent` counts from where the parent's checkpoint stood: for
        population based training, where each trial trains so many epochs more.
        """
        if not self._restored:
            ranks.require_shared(self._training.number)
            self._restore()
            self._restored = True
        last = count + (self._began_after if after_parent else 0)
        for epoch in range(self.epoch + 1, last + 1):
            self.epoch = epoch
            yield epoch
            self._stopping = ranks.from_first(self._stopping or self._training.should_stop)
            if epoch % self._save_every == 0 or epoch == last or self._stopping:
                self._save()
            if self._stopping:
                return

    def report(self, metrics: Mapping[str, float] | None = None, /, **named: float) -> bool:
        """Report the epoch's metrics, by rank zero alone; whether the epochs end after this one."""
        values = {name: float(value) for name, value in {**(metrics or {}), **named}.items()}
        if self.epoch == 0:
            raise FailedPrecondition("a report belongs into `for epoch in loop.epochs(...)`", reason="NO_EPOCH")
        self.metrics = values
        self._stopping = ranks.from_first(self._training.report(values, step=self.epoch))
        return self._stopping

    @property
    def should_stop(self) -> bool:
        """Whether to leave the epoch's own loop as well, as when the lease is lost; in rank zero alone."""
        return self._training.should_stop

    def _save(self) -> None:
        generators = ranks.of_all(random_states())
        directory = ranks.from_first(self._training.directory)
        if directory is None:
            return
        place = self._shards.save(directory, epoch=self.epoch) if self._shards else ""
        if ranks.rank() > 0:
            return
        state = {
            "trial": self._training.number,
            "epoch": self.epoch,
            "began_after": self._began_after,
            "metrics": self.metrics,
            "random": generators,
            "parts": {name: _state_of(part) for name, part in self._parts.items()},
            "sharded": self._sharded,
            "shards": place,
        }
        directory.mkdir(parents=True, exist_ok=True)
        with Replacement(directory / FILE) as file:
            torch.save(state, file)
        if self._shards:
            self._shards.keep(directory, place)
        self._training.saved()

    def _restore(self) -> None:
        files = [place / FILE for place in self._training.places() if (place / FILE).is_file()]
        path = ranks.from_first(files[0] if files else None)
        if path is None:
            return
        # Tensors and plain values only: a checkpoint runs no code.
        state = torch.load(path, map_location="cpu", weights_only=True)
        self._require_same_parts(path, state)
        for name, part in self._parts.items():
            _load(part, state["parts"][name])
        if self._shards:
            self._shards.load(path.parent / state["shards"])
        self._settle(state)
        logger.info("trial %d goes on after epoch %d, from %s", self._training.number, self.epoch, path)

    def _settle(self, state: Mapping[str, Any]) -> None:
        inherited = state["trial"] != self._training.number
        self.epoch = state["epoch"]
        self._began_after = state["epoch"] if inherited else state["began_after"]
        self.metrics = state["metrics"]
        if inherited:
            self._fresh.settle()
        if ranks.rank() < len(state["random"]):
            set_random_states(state["random"][ranks.rank()])

    def _require_same_parts(self, path: Path, state: Mapping[str, Any]) -> None:
        saved = _described(state["parts"], state["sharded"])
        here = _described(self._parts, self._sharded)
        if saved != here:
            raise FailedPrecondition(f"{path} has {saved}, but this training {here}", reason="OTHER_CHECKPOINT")


def _shards(parts: Mapping[str, Any]) -> Shards | None:
    """The sharded parts; None if there are none, as there can be only in processes of torch.distributed."""
    if not ranks.are_there():
        return None
    # Its imports take most of a second.
    from asktell.integrations.shards import Shards  # noqa: PLC0415

    found = Shards(parts)
    return found if found.names else None


def _described(whole: Collection[str], sharded: Collection[str]) -> str:
    """Names of parts, as a message has them."""
    names = sorted([*whole, *(f"{name} (sharded)" for name in sharded)])
    return ", ".join(names) or "no parts"


def _state_of(part: Stateful | torch.Generator) -> Any:
    return part.get_state() if isinstance(part, torch.Generator) else part.state_dict()


def _load(part: Stateful | torch.Generator, state: Any) -> None:
    if isinstance(part, torch.Generator):
        part.set_state(state)
    else:
        part.load_state_dict(state)
