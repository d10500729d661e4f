"""`asktell study watch`: a line for each change, as it comes."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from contextlib import closing
from datetime import datetime
from typing import Literal

from rich.console import Console
from rich.text import Text

from asktell.cli import document, tables
from asktell.client import Change, Study, StudyChanged, StudyRecord, StudyState, TrialChanged, TrialRecord

Lines = Literal["table", "jsonl"]


def printer(lines: Lines) -> Callable[[Change], None]:
    """What prints a change at once: a line for people, or a JSON document for programs."""
    if lines == "jsonl":
        return lambda change: print(json.dumps(of_change(change), ensure_ascii=False), flush=True)
    return _Table().show


class _Table:
    """Prints changes for people: one that looks as what was printed last of its trial, such as another report, is left out."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._shown: dict[int, str] = {}

    def show(self, change: Change) -> None:
        """Print a line, if it says something new."""
        number = change.trial.number if isinstance(change, TrialChanged) else 0
        words = line(change)
        if self._shown.get(number) != words.plain:
            self._shown[number] = words.plain
            self._console.print(words)


def of_change(change: Change) -> document.Document:
    """The document of a change: its sequence number, and the trial or the study."""
    if isinstance(change, StudyChanged):
        return {"sequence": change.sequence, "study": document.of_study(change.study)}
    trial = document.of_trial(change.trial)
    del trial["measurements"]
    return {"sequence": change.sequence, "trial": trial}


def line(change: Change) -> Text:
    """Such as `12:30:01  trial 17  succeeded  accuracy=0.97  lr=0.001, batch=64  gpu-0`."""
    if isinstance(change, StudyChanged):
        record = change.study
        words = [f"{record.state.value:<10}", tables.counted(record.counts)]
        if record.stopping_rule is not None:
            words.append(f"stops: {tables.stopping_rule(record.stopping_rule)}")
        return _line(record.update_time, "study", Text("  ".join(words)))
    return _line(_changed(change.trial), f"trial {change.trial.number}", _trial(change.trial))


def _line(time: datetime | None, what: str, words: Text) -> Text:
    clock = "" if time is None else time.astimezone().strftime("%H:%M:%S")
    return Text.assemble((f"{clock:<8}", "dim"), f"  {what:<10}  ", words)


def _changed(trial: TrialRecord) -> datetime | None:
    """The latest time that a trial shows."""
    times = (trial.create_time, trial.start_time, trial.end_time)
    return max((time for time in times if time is not None), default=None)


def _trial(trial: TrialRecord) -> Text:
    metrics = ", ".join(f"{name}={tables.metric(value)}" for name, value in trial.metrics.items())
    parameters = ", ".join(f"{name}={tables.value(value)}" for name, value in trial.parameters.items())
    words = Text(f"{trial.state.value:<10}", style=tables.STYLES.get(trial.state, ""))
    for part in filter(None, (metrics, parameters, trial.worker_id)):
        words.append(f"  {part}", style="bold" if part is metrics else "default")
    message = tables.gist(trial.message)
    return words.append(f"  {message}", style="red") if message else words


def changes_until_over(study: Study, after: int) -> Generator[Change, None, None]:
    """The changes after a sequence number, up to those that end the study, or none if it is over."""
    if not is_over(study.record):
        with closing(study.watch(after)) as watch:
            for change in watch:
                yield change
                after = change.sequence
                if _may_be_last(change):
                    study.refresh()
                    if is_over(study.record):
                        break
    yield from study.watch(after, until=study.sequence)


def is_over(record: StudyRecord) -> bool:
    """Whether no trial is under way and none will be handed out: the study is finished, or its number of trials is spent."""
    counts, most = record.counts, record.budget.max_trials
    if counts.active:
        return False
    done = counts.succeeded + counts.stopped + counts.infeasible + counts.failed
    return record.state is StudyState.FINISHED or (most is not None and not counts.queued and done >= most)


def _may_be_last(change: Change) -> bool:
    return not isinstance(change, TrialChanged) or change.trial.state.terminal
