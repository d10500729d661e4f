"""What is said of trials as they end: the line of a loop in this process, and of a worker."""

from __future__ import annotations

import logging
import math
import sys
import threading
from collections.abc import Iterable, Sequence

from asktell.client import feasibility
from asktell.client.outcomes import metric_values
from asktell.client.spec import Ordinal, ParameterValue
from asktell.client.values import Metrics, MetricValue, StudyRecord, TrialRecord, TrialState
from asktell.client.views import TrialView

logger = logging.getLogger("asktell.client")

SHORT = 120
"""Characters of parameters, and of metrics that are no objectives, in a line."""


def ended(number: int, name: str, *, seconds: float, metrics: str = "", words: str = "") -> str:
    """Such as `trial 7 stopped in 0.3 s: loss=2.96: the median of 6 trials at step 1 is 1.99`; `words` say why it ended so."""
    return ": ".join(part for part in (f"trial {number} {name} in {seconds:.1f} s", metrics, words) if part)


def numbers(metrics: Metrics) -> str:
    """Such as `accuracy=0.97±0.004, seconds=12`."""
    return ", ".join(_numbers(metrics))


def is_wanted(progress: bool | None) -> bool:  # noqa: FBT001 - it is a parameter of `optimize` as it stands there.
    """Whether a loop prints its lines. With None: where a person watches, and no logging is set up that has the say."""
    return progress if progress is not None else _is_watched() and not logger.hasHandlers()


def is_heard(*, shown: bool) -> bool:
    """Whether anybody hears the lines of a loop, which are printed if `shown`."""
    return shown or logger.isEnabledFor(logging.INFO)


class Ticker:
    """Says how each trial of a loop ended: to the log at level INFO, and, if `shown`, to standard error. Safe to share between threads.

    It knows the study as it stood when the loop began, what it is told of the best trial then, and the loop's own trials: no line costs a
    call. A study with several objectives has no best trial; in a noisy one, whose best is a matter of means, none is named.
    """

    def __init__(self, study: StudyRecord, *, shown: bool) -> None:
        self._study = study
        self._shown = shown
        self._lock = threading.Lock()
        counts = study.counts
        self._ended = counts.succeeded + counts.stopped + counts.infeasible + counts.failed
        self._best: tuple[tuple[float, float], TrialRecord] | None = None

    @property
    def speaks(self) -> bool:
        """Whether anybody hears it."""
        return is_heard(shown=self._shown)

    @property
    def wants_best(self) -> bool:
        """Whether it has a use for the best trial of before: for lines that somebody hears."""
        return self.speaks and self._study.counts.succeeded > 0 and self._has_best

    @property
    def _has_best(self) -> bool:
        return len(self._study.objectives) == 1 and not self._study.noisy

    def begin_with(self, best: Iterable[TrialRecord]) -> None:
        """Take in the best trial of before."""
        for trial in best:
            self._compare(trial)

    def ended(self, trial: TrialView, *, seconds: float, why_is_said: bool) -> None:
        """Say that a trial ended here after so long; nothing of one that is still to be evaluated, or that went to somebody else."""
        if not (self.speaks and trial.state.terminal):
            return
        with self._lock:
            self._ended += 1
            self._compare(trial.record)
            self._say(self._line(trial.record, seconds=seconds, why_is_said=why_is_said))

    def _line(self, trial: TrialRecord, *, seconds: float, why_is_said: bool) -> str:
        message = "" if why_is_said else trial.message.strip().partition("\n")[0]
        first = ended(
            trial.number, trial.state.value, seconds=seconds, metrics=self._metrics(trial.metrics), words=message
        )
        given = trial.parameters
        names = [spec.name for spec in self._study.parameters if spec.name in given]
        parameters = _shortened([f"{name}={_value(given[name])}" for name in names])
        return "; ".join(part for part in (first, parameters, self._best_so_far(), self._done()) if part)

    def _metrics(self, metrics: Metrics) -> str:
        """The objectives, then what else there is room for."""
        objectives = [each.metric for each in self._study.objectives if each.metric in metrics]
        others = sorted(metrics.keys() - set(objectives))
        parts = (
            numbers({name: metrics[name] for name in objectives}),
            _shortened(_numbers({name: metrics[name] for name in others})),
        )
        return ", ".join(filter(None, parts))

    def _best_so_far(self) -> str:
        if self._best is None:
            return ""
        _, trial = self._best
        return f"best {trial.metrics[self._study.objectives[0].metric].value:.6g} (trial {trial.number})"

    def _done(self) -> str:
        limit = self._study.budget.max_trials
        return (
            f"{self._ended} {'trial' if self._ended == 1 else 'trials'}"
            if limit is None
            else f"{self._ended} of {limit}"
        )

    def _compare(self, trial: TrialRecord) -> None:
        rank = self._rank(trial)
        if rank is not None and (self._best is None or rank < self._best[0]):
            self._best = rank, trial

    def _rank(self, trial: TrialRecord) -> tuple[float, float] | None:
        """What the best trial has least of, as the service ranks trials: of those at the highest fidelity the loss; None for no candidate."""
        if not self._has_best or feasibility.of(trial, self._study) is not True:
            return None
        objective = self._study.objectives[0]
        told = trial.metrics.get(objective.metric)
        if told is None or trial.state is not TrialState.SUCCEEDED or not math.isfinite(told.value):
            return None
        return -self._level(trial), told.value if objective.goal == "minimize" else -told.value

    def _level(self, trial: TrialRecord) -> float:
        raised = self._study.fidelity
        if raised is None or raised.parameter not in trial.parameters:
            return 0.0
        value = trial.parameters[raised.parameter]
        for spec in self._study.parameters:
            if spec.name == raised.parameter and isinstance(spec, Ordinal) and value in spec.values:
                return float(spec.values.index(value))
        return float(value) if isinstance(value, int | float) else 0.0

    def _say(self, line: str) -> None:
        logger.info("%s", line)
        if self._shown:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()


def _is_watched() -> bool:
    """Whether standard error is a terminal, or this is a notebook."""
    if sys.stderr is not None and sys.stderr.isatty():
        return True
    # The module is there if this is IPython; nobody else has to have it. A shell that has a kernel is a notebook's.
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def _numbers(metrics: Metrics) -> list[str]:
    return [f"{name}={_number(metric)}" for name, metric in metric_values(metrics).items()]


def _number(metric: MetricValue) -> str:
    error = metric.standard_error
    return f"{metric.value:.6g}" if error is None else f"{metric.value:.6g}±{error:.2g}"


def _value(value: ParameterValue) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _shortened(parts: Sequence[str]) -> str:
    """The parts in one text, as many as there is room for, at least one, and how many more there are."""
    shown: list[str] = []
    for part in parts:
        if shown and len(", ".join([*shown, part])) > SHORT:
            return f"{', '.join(shown)} and {len(parts) - len(shown)} more"
        shown.append(part if len(part) <= SHORT else f"{part[:SHORT]}…")
    return ", ".join(shown)
