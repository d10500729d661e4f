"""A callback for the Trainer of Hugging Face transformers that reports, stops and resumes.

asktell = AskTellCallback(trial, {"accuracy": "eval_accuracy"})
arguments = TrainingArguments(asktell.output_dir("output"), eval_strategy="epoch", save_strategy="epoch", ...)
trainer = Trainer(model, arguments, ..., callbacks=[asktell])
trainer.train(resume_from_checkpoint=asktell.checkpoint)
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from asktell.integrations.missing import missing_extra
from asktell.integrations.training import MetricNames, ReportingTrial, Selection, Training

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
    from transformers.trainer_callback import ExportableState
except ModuleNotFoundError as error:
    raise missing_extra("transformers", "transformers", error) from error

from asktell.integrations import ranks

STATE: Final = "trainer_state.json"
"""The file that the trainer writes last: a checkpoint without it was cut off."""
_FOLDER: Final = re.compile(r"checkpoint-(\d+)")


class AskTellCallback(TrainerCallback, ExportableState):
    """Reports metrics after each evaluation, and stops the trainer when the service says so.

    Args:
        trial: The trial, in processes that train together as `ranks.share` gives it; None for a training that reports to nobody.
        metrics: The trainer's names (`eval_` may be left out) that the study has as well, or a mapping of the study's name to the
            trainer's.
        checkpoints: A directory under which each trial gets one of its own, on a file system that all workers share. By default the
            trial's `checkpoint_dir`, which a worker with `--checkpoints` provides. The trainer saves, into `output_dir`.
        by: What a report's step counts. By default epochs where the trainer evaluates after each, else the optimizer's steps.

    Rank zero reports, and its answer is every rank's. Evaluations outside of training are not reported.
    """

    def __init__(
        self,
        trial: ReportingTrial | None,
        metrics: MetricNames,
        *,
        checkpoints: str | Path | None = None,
        by: Literal["epoch", "step"] | None = None,
    ) -> None:
        self._training = Training(trial, checkpoints=checkpoints)
        self._selection = Selection(metrics)
        self._by = by
        self._is_training = False
        self._began_after: float | None = None
        self._evaluated: dict[str, float] = {}

    def output_dir(self, otherwise: str | Path) -> str:
        """The trial's own directory, for the trainer to save into; another one where the trial has none."""
        return str(self._training.directory or otherwise)

    @property
    def checkpoint(self) -> str | None:
        """The newest whole checkpoint, for `train(resume_from_checkpoint=...)`; None to start afresh."""
        found = next((path for place in self._training.places() for path in _checkpoints(place)), None)
        return None if found is None else str(found)

    def after_parent(self, epochs: float) -> float:
        """What to give as `num_train_epochs` if the trial trains so many more than its parent's checkpoint has behind it.

        For population based training, where each trial trains so many epochs more; the same in each attempt of the trial. To be called
        before the training.
        """
        path, self._began_after = self.checkpoint, 0.0
        if path is not None:
            saved = json.loads((Path(path) / STATE).read_text("utf-8"))
            own = _attributes(saved["stateful_callbacks"].get(type(self).__name__))
            ours = own.get("trial") == self._training.number
            self._began_after = own.get("began_after", 0.0) if ours else round(saved["epoch"], 6)
        return self._began_after + epochs

    def state(self) -> dict[str, Any]:
        """What the trainer puts into a checkpoint: whose it is."""
        counted = {} if self._began_after is None else {"began_after": self._began_after}
        return {"args": {}, "attributes": {"trial": self._training.number, **counted}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put the trial's own learning rate and weight decay back after a parent's checkpoint."""
        ranks.require_shared(self._training.number)
        self._is_training = True
        theirs = _attributes(state.stateful_callbacks.get(type(self).__name__)).get("trial")
        if theirs not in {None, self._training.number}:
            _settle(args, kwargs["optimizer"], kwargs["lr_scheduler"])

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Report, once the metrics of all evaluation sets are there."""
        if not self._is_training:
            return
        self._evaluated |= _with_short_names(metrics or {})
        if not self._selection.missing(self._evaluated):
            self._report(args, state, control)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Raise InvalidArgument if the evaluation before had not all metrics."""
        self._require_reported()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Stop at once where the lease is lost; processes that train together only after the next evaluation."""
        if self._training.should_stop and args.world_size == 1:
            control.should_training_stop = True

    def on_save(self, *_: Any, **__: Any) -> None:
        """Tell the service where the state lies."""
        self._training.saved()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Raise InvalidArgument if the last evaluation had not all metrics."""
        self._is_training = False
        self._require_reported()

    def _report(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        values, self._evaluated = self._selection.of(self._evaluated), {}
        by = self._by or ("epoch" if args.eval_strategy == "epoch" else "step")
        step = math.ceil(round(state.epoch or 0, 6)) if by == "epoch" else state.global_step
        stop = self._training.report(values, step=step)
        if ranks.from_first(stop):
            control.should_training_stop = True

    def _require_reported(self) -> None:
        if self._evaluated:
            self._selection.of(self._evaluated)


def _with_short_names(metrics: Mapping[str, float]) -> dict[str, float]:
    """`eval_accuracy` goes by `accuracy` as well, as in the trainer's `metric_for_best_model`."""
    return {name.removeprefix("eval_"): value for name, value in metrics.items()} | dict(metrics)


def _checkpoints(place: Path) -> Iterator[Path]:
    """The whole checkpoints in a directory, the newest first."""
    steps = {path: _FOLDER.fullmatch(path.name) for path in place.iterdir()}
    folders = sorted(((int(match[1]), path) for path, match in steps.items() if match), reverse=True)
    return (path for _, path in folders if _is_whole(path))


def _is_whole(folder: Path) -> bool:
    try:
        json.loads((folder / STATE).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return True


def _attributes(kept: Any) -> Mapping[str, Any]:
    """What the callback kept in a checkpoint; empty where it has none."""
    state = kept[-1] if isinstance(kept, list) and kept else kept
    return state["attributes"] if state else {}


def _settle(args: TrainingArguments, optimizer: Any, scheduler: Any) -> None:
    """Give the optimizer this trial's settings, and the schedule its base; the schedule's function is this trial's already."""
    # Accelerate wraps both.
    inner, groups = getattr(scheduler, "scheduler", scheduler), getattr(optimizer, "optimizer", optimizer).param_groups
    factors = [factor(inner.last_epoch) for factor in getattr(inner, "lr_lambdas", [])] or [1.0] * len(groups)
    for group, factor in zip(groups, factors, strict=True):
        group["initial_lr"] = args.learning_rate
        group["lr"] = args.learning_rate * factor
        group["weight_decay"] = args.weight_decay if group["weight_decay"] else 0.0
    inner.base_lrs = [args.learning_rate] * len(groups)
