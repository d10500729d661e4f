"""`asktell study enqueue`: configurations of the user's choice, to be tried next, or with results from elsewhere."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from asktell.cli import document, tables
from asktell.cli.configurations import Reader, Row
from asktell.cli.dials import Unreadable
from asktell.cli.failure import Refused
from asktell.cli.service import ANYWHERE, Json, Service
from asktell.client import AskTellError, FinishedTrial, InvalidArgument, Study, Trial, TrialState

BATCH = 1_000
_UNFINISHED = (TrialState.QUEUED, TrialState.ACTIVE, TrialState.CANCELLED)
_FIELD = re.compile(r"trials\[(\d+)\]\.?(.*)")
_NAMED = re.compile(r"(parameters|metrics)\[(.*)\]")


def enqueue(
    name: str,
    /,
    *values: str,
    file: Annotated[Path | None, Parameter(name=["--file", "-f"], show_default=False)] = None,
    finished: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    service: Service = ANYWHERE,
    as_json: Json = False,
) -> None:
    """Add configurations of your choice: workers get them before any other, in the order given.

    For example:

    `asktell study enqueue digits learning_rate=0.01 batch_size=64 optimizer=adam`

    `asktell study enqueue digits --file favourites.csv`

    `asktell study enqueue digits --finished --file last-year.csv`

    Parameters
    ----------
    name
        The study.
    values
        Every active parameter as `NAME=VALUE`; with `--finished` also the metrics, such as `accuracy=0.97` or `accuracy=0.97±0.01`.
    file
        A table (CSV) with a column a parameter; or JSON: an object a line, or a list of them, as `asktell study trials --json` prints. All
        else in it is passed over.
    finished
        They were tried elsewhere: the study learns from their metrics, and nobody tries them again. In a file, all that is no parameter is
        a metric, but for the columns of `asktell study export --format csv`, of which `state` and `message` count; what is queued, active
        or cancelled there is left out. A file that is given again within a day is not added twice.
    """
    with service.study(name) as study:
        rows = list(_rows(Reader(study.parameters, results=finished), values, file=file))
        kept = [row for row in rows if not (finished and row.state in _UNFINISHED)]
        added = _add(study, kept, finished=finished)
    if as_json:
        print(json.dumps([document.of_trial(trial.record) for trial in added], ensure_ascii=False, indent=2))
    else:
        tables.show(_said(added, left_out=len(rows) - len(kept), finished=finished))


def _rows(reader: Reader, values: Sequence[str], *, file: Path | None) -> Iterator[Row]:
    if values:
        yield reader.assignments(values)
    elif file is None:
        raise Unreadable("which configuration? give NAME=VALUE for each parameter, or --file FILE")
    if file is not None:
        yield from reader.file(file)


def _add(study: Study, rows: Sequence[Row], *, finished: bool) -> list[Trial]:
    """The new trials. The service takes a thousand at once, all or none."""
    added: list[Trial] = []
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        before = f" (the {len(added)} before are added)" if added else ""
        try:
            if finished:
                trials = [_finished(row) for row in batch]
                added += study.import_trials(trials, request_id=_file_id(trials, start) if len(rows) > 1 else None)
            else:
                added += study.enqueue_all(row.parameters for row in batch)
        except InvalidArgument as error:
            raise Refused(f"{_placed(error, batch)}{before}") from error
        except AskTellError as error:
            if not added:
                raise
            raise Refused(f"{error}{before}") from error
    return added


def _file_id(trials: Sequence[FinishedTrial], start: int) -> str:
    """The same for the same part of a file, so that what was added before an error is not added twice when the file is given again."""
    return f"enqueue-{start}-{hashlib.sha256(repr(trials).encode()).hexdigest()[:32]}"


def _finished(row: Row) -> FinishedTrial:
    return FinishedTrial(
        parameters=row.parameters,
        metrics=row.metrics,
        state=row.state or TrialState.SUCCEEDED,
        message=row.message,
    )


def _placed(error: InvalidArgument, rows: Sequence[Row]) -> str:
    """What is wrong, with the row's place and the name of the parameter or metric."""
    for path, description in error.field_violations:
        found = _FIELD.fullmatch(path)
        if found and int(found[1]) < len(rows):
            named = _NAMED.fullmatch(found[2])
            place = rows[int(found[1])].place
            return f"{f'{place}: ' if place else ''}{named[2] if named else found[2]} {description}"
    return str(error)


def _said(added: Sequence[Trial], *, left_out: int, finished: bool) -> str:
    verb = "added as finished" if finished else "queued"
    numbers = f": {_span([trial.number for trial in added])}" if added else ""
    rest = f"; {left_out} that had not finished left out" if left_out else ""
    return f"{len(added)} {'trial' if len(added) == 1 else 'trials'} {verb}{numbers}{rest}"


def _span(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
