"""A callback for Keras 3 that reports, stops, saves and resumes.

asktell = AskTellCallback(trial, {"accuracy": "val_accuracy"})
model.fit(x, y, epochs=20, initial_epoch=asktell.initial_epoch, callbacks=[asktell])
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from asktell.client import FailedPrecondition, MissingExtra
from asktell.integrations.missing import missing_extra
from asktell.integrations.training import MetricNames, ReportingTrial, Selection, Training

try:
    import keras
except ModuleNotFoundError as error:
    if error.name == "keras":
        raise missing_extra("Keras", "keras", error) from error
    raise MissingExtra(
        f"Keras computes with a library that is not there: set KERAS_BACKEND to torch, jax or tensorflow ({error})",
        reason="MISSING_EXTRA",
    ) from error

_NAME: Final = re.compile(r"keras-trial-(\d+)(?:-after-(\d+))?-epoch-(\d+)\.weights\.h5")


class _Saved(NamedTuple):
    epoch: int
    trial: int
    began_after: int
    path: Path


class AskTellCallback(keras.callbacks.Callback):
    """Reports metrics after each epoch, and stops the training when the service says so.

    Args:
        trial: The trial.
        metrics: Names that Keras logs and the study has in common, or a mapping of the study's name to Keras'.
        checkpoints: A directory under which each trial gets one of its own, on a file system that all workers share. By default the
            trial's `checkpoint_dir`, which a worker with `--checkpoints` provides; without either nothing is saved.

    The weights and the optimizer's state are saved after each epoch. Keras' own BackupAndRestore replaces two files one after
    the other, and a crash between them repeats an epoch; here the epoch is in the name of one file. The order of the examples
    and dropout are drawn anew when a training goes on: Keras saves no state of its random numbers.
    """

    def __init__(self, trial: ReportingTrial, metrics: MetricNames, *, checkpoints: str | Path | None = None) -> None:
        super().__init__()
        self._training = Training(trial, checkpoints=checkpoints)
        self._selection = Selection(metrics)
        self._saved = self._latest()
        self._began_after = self._beginning(self._saved)
        self._trained = self._reported = False

    @property
    def initial_epoch(self) -> int:
        """How many epochs the checkpoint has behind it, for `fit`; 0 to start afresh."""
        return 0 if self._saved is None else self._saved.epoch

    def after_parent(self, epochs: int) -> int:
        """The number of the last epoch, for `fit(epochs=...)`, if the trial trains so many more than its parent's checkpoint has behind it.

        For population based training, where each trial trains so many epochs more; the same in each attempt of the trial.
        """
        return self._began_after + epochs

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Load the checkpoint. FailedPrecondition for a model that is not built yet."""
        if self._saved is None:
            return
        if not self.model.built:
            raise FailedPrecondition("build the model before fit: it goes on from a checkpoint", reason="NOT_BUILT")
        optimizer = self.model.optimizer
        own = _learning_rate(optimizer)
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        self.model.load_weights(self._saved.path)
        if self._saved.trial != self._training.number and own is not None:
            optimizer.learning_rate = own

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """See that the epochs are counted on. FailedPrecondition if `fit` was not given the initial epoch."""
        if epoch < self.initial_epoch:
            raise FailedPrecondition(
                f"the checkpoint has {self.initial_epoch} epochs behind it: fit(initial_epoch=asktell.initial_epoch)",
                reason="INITIAL_EPOCH",
            )
        self._trained = True

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Stop after this epoch's batch where the lease is lost."""
        if self._training.should_stop:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Report, save, and stop if so told."""
        logs = logs or {}
        if not self._between_validations(logs):
            self._reported = True
            if self._training.report(self._selection.of(logs), step=epoch + 1):
                self.model.stop_training = True
        self._save(epoch + 1)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Raise InvalidArgument if epochs were trained and not one had the metrics, as without validation data.

        A training that was cut off after its last epoch has none left.
        """
        if self._trained and not self._reported and not self.model.stop_training:
            self._selection.of(logs or {})

    def _between_validations(self, logs: Mapping[str, Any]) -> bool:
        """Whether what is missing may come with a later epoch: `validation_freq` leaves epochs without any validation."""
        missing = self._selection.missing(logs)
        validated = any(name.startswith("val_") for name in logs)
        return bool(missing) and not validated and all(name.startswith("val_") for name in missing)

    def _save(self, epoch: int) -> None:
        directory = self._training.directory
        if directory is None:
            return
        directory.mkdir(parents=True, exist_ok=True)
        whose = f"trial-{self._training.number}" + (f"-after-{self._began_after}" if self._began_after else "")
        path = directory / f"keras-{whose}-epoch-{epoch}.weights.h5"
        part = directory / "part.weights.h5"
        self.model.save_weights(part, overwrite=True)
        part.replace(path)
        for saved in _found(directory):
            if saved.path != path:
                saved.path.unlink(missing_ok=True)
        self._training.saved()

    def _beginning(self, saved: _Saved | None) -> int:
        if saved is None:
            return 0
        return saved.began_after if saved.trial == self._training.number else saved.epoch

    def _latest(self) -> _Saved | None:
        found = [saved for place in self._training.places() for saved in sorted(_found(place), reverse=True)]
        return found[0] if found else None


def _found(place: Path) -> list[_Saved]:
    matches = [(path, _NAME.fullmatch(path.name)) for path in place.iterdir()]
    return [_Saved(int(match[3]), int(match[1]), int(match[2] or 0), path) for path, match in matches if match]


def _learning_rate(optimizer: Any) -> float | None:
    """The optimizer's learning rate; None where a schedule, which no checkpoint changes, gives it."""
    if isinstance(optimizer._learning_rate, keras.optimizers.schedules.LearningRateSchedule):  # noqa: SLF001
        return None
    return float(optimizer.learning_rate)
