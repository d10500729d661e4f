"""A callback for Lightning that reports, stops, saves and resumes.

asktell = AskTellCallback(trial, {"accuracy": "val_accuracy"})
trainer = Trainer(max_epochs=20, callbacks=asktell.callbacks)
trainer.fit(model, ckpt_path=asktell.ckpt_path)
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, Final, Literal

from asktell.client import FailedPrecondition
from asktell.integrations.missing import missing_extra
from asktell.integrations.training import MetricNames, ReportingTrial, Selection, Training

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint
except ModuleNotFoundError as error:
    raise missing_extra("Lightning", "lightning", error) from error

import torch

from asktell.integrations import ranks
from asktell.integrations.fresh import Fresh

NAME: Final = "lightning"
"""Name of the checkpoint in a trial's directory, without its ending."""


class AskTellCallback(Callback):
    """Reports metrics after each validation, or after each epoch where there is none, and stops the trainer when the service says so.

    Args:
        trial: The trial, in processes that train together as `ranks.share` gives it; None for a training that reports to nobody.
        metrics: Names that the modules log and the study has in common, or a mapping of the study's name to the logged one.
        checkpoints: A directory under which each trial gets one of its own, on a file system that all workers share. By default the
            trial's `checkpoint_dir`, which a worker with `--checkpoints` provides; without either nothing is saved.
        by: What a report's step counts: epochs, or the optimizer's steps, as is right where there are several validations in an epoch.

    Rank zero reports, and its answer is every rank's. `min_epochs` and `min_steps` of the trainer are kept to. A trial that goes on from
    its parent's checkpoint keeps its own learning rate, momentum and so on.
    """

    def __init__(
        self,
        trial: ReportingTrial | None,
        metrics: MetricNames,
        *,
        checkpoints: str | Path | None = None,
        by: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__()
        self._training = Training(trial, checkpoints=checkpoints)
        self._selection = Selection(metrics)
        self._by = by
        self._fresh: Fresh | None = None
        self._loaded_number: int | None = None
        self._began_after = 0
        self._saver = _saver(self._training.directory)
        self.metrics: dict[str, float] = {}
        """What was reported last, also before the training was resumed."""

    @property
    def callbacks(self) -> list[Callback]:
        """This callback, and with a directory the one that saves into it: what to give the trainer."""
        return [self, *([] if self._saver is None else [self._saver])]

    @property
    def ckpt_path(self) -> Path | None:
        """The checkpoint to give to `trainer.fit`; None to start afresh."""
        files = [place / f"{NAME}.ckpt" for place in self._training.places()]
        return next((file for file in files if file.is_file()), None)

    def after_parent(self, epochs: int) -> int:
        """What to give the trainer as `max_epochs` if the trial trains so many more than its parent's checkpoint has behind it.

        For population based training, where each trial trains so many epochs more; the same in each attempt of the trial. To be called
        before the training. FailedPrecondition for a checkpoint with objects that Lightning reads with `weights_only=False` alone.
        """
        path = self.ckpt_path
        if path is not None:
            saved = _plain(path)
            own = saved["callbacks"].get(self.state_key, {})
            # What is saved at an epoch's end counts it as under way.
            began_after = own["began_after"] if own.get("trial") == self._training.number else saved["epoch"] + 1
            self._began_after = began_after
        return self._began_after + epochs

    def state_dict(self) -> dict[str, Any]:
        """What Lightning puts into a checkpoint: whose it is, and the last metrics."""
        return {"trial": self._training.number, "began_after": self._began_after, "metrics": self.metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Learn whose checkpoint is loaded, and the last metrics."""
        self._loaded_number, self.metrics = state_dict["trial"], state_dict["metrics"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """See that all processes have the trial: else some would save, and wait for the others."""
        ranks.require_shared(self._training.number)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See what the optimizers were made with, before a checkpoint says otherwise."""
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        self._fresh = Fresh(trainer.optimizers, schedulers)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the trial's own hyper-parameters back after a parent's checkpoint."""
        if self._fresh is not None and self._loaded_number not in {None, self._training.number}:
            self._fresh.settle()
        self._loaded_number = None

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Stop at once where the lease is lost; processes that train together only after the next validation."""
        if trainer.world_size == 1 and self._training.should_stop:
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report, but not a sanity check or a validation outside of training."""
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self._report(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report where there is no validation; take note of what was saved in the epoch before."""
        if not trainer.enable_validation:
            self._report(trainer)
        if self._saver is not None and Path(self._saver.best_model_path).is_file() and trainer.is_global_zero:
            self._training.saved()

    def _report(self, trainer: Trainer) -> None:
        self.metrics = self._selection.of(trainer.callback_metrics)
        step = trainer.current_epoch + 1 if self._by == "epoch" else trainer.global_step
        stop = trainer.is_global_zero and self._training.report(self.metrics, step=step)
        if trainer.strategy.broadcast(stop):
            trainer.should_stop = True


def _plain(path: Path) -> dict[str, Any]:
    """A checkpoint, whose tensors are not read from the disk and which runs no code."""
    try:
        return dict(torch.load(path, map_location="cpu", mmap=True, weights_only=True))
    except pickle.UnpicklingError as error:
        raise FailedPrecondition(
            f"{path} has more than tensors and plain values: where the parent stood cannot be read from it ({error})",
            reason="OTHER_CHECKPOINT",
        ) from error


def _saver(directory: Path | None) -> ModelCheckpoint | None:
    """Saves the state after each epoch, in one file that is replaced as a whole."""
    if directory is None:
        return None
    return ModelCheckpoint(
        dirpath=directory, filename=NAME, save_on_train_epoch_end=True, every_n_epochs=1, enable_version_counter=False
    )
