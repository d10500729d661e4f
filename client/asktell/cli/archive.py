"""Whole studies in files, to keep or to carry to another service.

`jsonl` is one line of `{"study": ...}` and then one of `{"trial": ...}` for each trial; `json` is one object of `study` and `trials`; `csv` is
one row a trial for a spreadsheet, and cannot be imported. Numbers, times, leases, attempts, origins, checkpoints and cancelled trials are
written but not imported; queued and active trials become queued ones.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, TextIO

from asktell.cli import document
from asktell.cli.document import Document, Draft, Malformed
from asktell.client import Client, FinishedTrial, Study, StudyState, TrialState

Format = Literal["jsonl", "json", "csv"]


@dataclass(frozen=True, slots=True)
class Archive:
    """A study and its trials, as documents."""

    study: Document
    trials: Sequence[Document]

    @classmethod
    def of(cls, study: Study) -> Archive:
        """Read a study with all its trials and their measurements."""
        trials = [document.of_trial(study.get_trial(trial.number).record) for trial in study.list_trials()]
        return cls(document.of_study(study.record), trials)

    @classmethod
    def read(cls, path: Path) -> Archive:
        """Read a file.

        Raises:
            Malformed: It is no archive; the message names the file and the place.
            OSError: It cannot be read.
        """
        text = path.read_text("utf-8", "replace")
        try:
            documents = list(_documents(text))
        except ValueError as error:
            raise Malformed(f"{path} holds no JSON: {error}") from error
        studies = [each["study"] for each in documents if "study" in each]
        trials = [trial for each in documents for trial in each.get("trials", [])]
        trials += [each["trial"] for each in documents if "trial" in each]
        if len(studies) != 1:
            raise Malformed(
                f"{path} holds {len(studies)} studies: it was not written by asktell study export as jsonl or json"
            )
        return cls(studies[0], trials)

    def write(self, file: TextIO, form: Format) -> None:
        """Write a file."""
        _WRITERS[form](self, file)

    def restore(self, client: Client, name: str) -> Study:
        """Create the study and add its trials. AlreadyExists if there is one of that name with other parameters or settings."""
        draft = document.draft(self.study)
        additions = [
            _addition(place, each) for place, each in enumerate(self.trials) if each.get("state") != "cancelled"
        ]
        study = create(client, draft, name=name)
        for finished, group in groupby(additions, key=lambda each: isinstance(each, FinishedTrial)):
            if finished:
                study.import_trials([each for each in group if isinstance(each, FinishedTrial)])
            else:
                for each in group:
                    study.enqueue(each.parameters, metadata=each.metadata)
        _set_state(study, StudyState(self.study.get("state", "active")))
        study.refresh()
        return study


@dataclass(frozen=True, slots=True)
class Waiting:
    """A trial that a worker shall evaluate."""

    parameters: Mapping[str, Any]
    metadata: Mapping[str, str]


def create(client: Client, draft: Draft, *, name: str) -> Study:
    """Create the study that a draft describes."""
    budget = draft.budget
    return client.create_study(
        name,
        parameters=draft.parameters,
        objectives=draft.objectives,
        max_trials=budget.max_trials,
        max_duration=budget.max_duration,
        max_failures=budget.max_failures,
        max_parallel=budget.max_parallel,
        labels=draft.labels,
        **draft.settings,
    )


def _addition(place: int, trial: Document) -> FinishedTrial | Waiting:
    def build(trial: Document) -> FinishedTrial | Waiting:
        if document.trial_state(trial) in (TrialState.QUEUED, TrialState.ACTIVE):
            return Waiting(trial["parameters"], trial.get("metadata") or {})
        return document.finished_trial(trial)

    addition: FinishedTrial | Waiting = document.at(f"trials[{place}]", build, trial)
    return addition


def _set_state(study: Study, state: StudyState) -> None:
    match state:
        case StudyState.PAUSED:
            study.pause()
        case StudyState.FINISHED:
            study.finish()


def _documents(text: str) -> Iterator[Document]:
    """The one object of a `json` file, or those of the lines of a `jsonl` file."""
    try:
        yield json.loads(text)
    except ValueError:
        yield from (json.loads(line) for line in text.splitlines() if line.strip())


def _write_jsonl(archive: Archive, file: TextIO) -> None:
    for line in ({"study": archive.study}, *({"trial": trial} for trial in archive.trials)):
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _write_json(archive: Archive, file: TextIO) -> None:
    json.dump({"study": archive.study, "trials": archive.trials}, file, ensure_ascii=False, indent=2)
    file.write("\n")


def _write_csv(archive: Archive, file: TextIO) -> None:
    names = [parameter["name"] for parameter in archive.study["parameters"]]
    metrics = _distinct(name for trial in archive.trials for name in trial["metrics"])
    writer = csv.writer(file)
    times = ("create_time", "start_time", "end_time")
    writer.writerow(
        ["number", "state", *names, *metrics, *(f"{name} standard error" for name in metrics), "message", *times]
    )
    for trial in archive.trials:
        values = [trial["metrics"].get(name, {}) for name in metrics]
        writer.writerow(
            [
                trial["number"],
                trial["state"],
                *(trial["parameters"].get(name, "") for name in names),
                *(each.get("value", "") for each in values),
                *(each.get("standard_error", "") for each in values),
                trial["message"],
                *(trial[time] for time in times),
            ]
        )


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


_WRITERS: Mapping[Format, Callable[[Archive, TextIO], None]] = {
    "jsonl": _write_jsonl,
    "json": _write_json,
    "csv": _write_csv,
}
