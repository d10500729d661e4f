"""Whole studies in files: `jsonl` to keep or to carry to another service, `csv` for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from asktell.cli import tables
from asktell.cli.document import number, time
from asktell.client import Study, StudyRecord, TrialRecord
from asktell.client.archive import OnProgress

Format = Literal["jsonl", "csv"]

_TIMES = ("create_time", "start_time", "end_time")


def write(study: Study, file: BinaryIO, form: Format) -> None:
    """Write a study as it comes; a broken connection leaves a file without its end."""
    file.writelines(study.export_lines() if form == "jsonl" else [_table(study)[1]])


def save(study: Study, path: Path, form: Format, *, progress: OnProgress) -> int:
    """Write a study to a file; how many trials."""
    if form == "jsonl":
        return study.export(path, progress=progress)
    count, content = _table(study)
    path.write_bytes(content)
    return count


@contextmanager
def progress_bar(what: str) -> Iterator[OnProgress]:
    """A bar on a terminal, nothing elsewhere; what it yields takes how many trials are through, and how many there are."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _table(study: Study) -> tuple[int, bytes]:
    trials = [trial.record for trial in study.list_trials()]
    text = io.StringIO(newline="")
    csv.writer(text).writerows(_rows(study.record, trials))
    return len(trials), text.getvalue().encode()


def _rows(study: StudyRecord, trials: list[TrialRecord]) -> Iterator[list[Any]]:
    names, metrics = [parameter.name for parameter in study.parameters], tables.metric_names(trials, study)
    errors = [f"{name} standard error" for name in metrics]
    yield ["number", "state", *names, *metrics, *errors, "message", *_TIMES]
    for trial in trials:
        values = [trial.metrics.get(name) for name in metrics]
        yield [
            trial.number,
            trial.state.value,
            *(trial.parameters.get(name, "") for name in names),
            *("" if each is None else number(each.value) for each in values),
            *("" if each is None or each.standard_error is None else each.standard_error for each in values),
            trial.message,
            *(time(getattr(trial, name)) for name in _TIMES),
        ]
