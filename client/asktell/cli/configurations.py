"""Configurations and results as they are typed or stand in files: each value of the kind that the study's parameter has."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asktell.cli import dials
from asktell.cli.dials import Unreadable
from asktell.client import Bool, Float, Int, MetricValue, TrialState
from asktell.client.spec import Categorical, Ordinal, ParameterSpec, ParameterValue

STANDARD_ERROR = " standard error"
"""How the column of a metric's standard error ends in a table of `asktell study export`."""
_OF_EXPORTS = frozenset({"number", "state", "message", "create_time", "start_time", "end_time"})
_PARAMETER, _METRIC, _ERROR = "parameters.", "metrics.", ".standard_error"
"""How the columns of `Study.to_dataframe` begin, and how that of a standard error ends."""
_GAPS = ("nan", "na", "<na>", "nat")
"""What tables have in the cell of a parameter that was not active, if it is not empty."""


@dataclass(frozen=True, slots=True)
class Row:
    """A configuration, and what became of it if it says so. `place` is where it stands in a file, for people; empty if it was typed."""

    place: str
    parameters: Mapping[str, ParameterValue]
    metrics: Mapping[str, MetricValue] = field(default_factory=dict)
    state: TrialState | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads configurations of a study with these parameters; with `results`, what is no parameter is a metric, else it is passed over."""

    parameters: Sequence[ParameterSpec]
    results: bool = False

    def assignments(self, texts: Iterable[str]) -> Row:
        """The configuration of words such as `rate=0.1`, and with results `loss=0.3` or `loss=0.3±0.01`. Unreadable for other words."""
        return self._of_cells("", dict(map(_assignment, texts))) if self.results else Row("", self.fixed(texts))

    def file(self, path: Path) -> list[Row]:
        """The configurations of a file: JSON, or a table (CSV) with a column a parameter. Unreadable if there are none."""
        text = path.read_text("utf-8-sig")
        if not text.strip():
            raise Unreadable(f"{path} is empty")
        documents = _documents(text, path.name) if text.lstrip().startswith(("{", "[")) else None
        rows = list(self._of_table(text, path.name)) if documents is None else list(map(self._of_document, *documents))
        if not rows:
            raise Unreadable(
                f"{path} has a heading and nothing below it" if documents is None else f"{path} has no configurations"
            )
        return rows

    def value(self, name: str, text: str, *, place: str = "") -> ParameterValue:
        """The value that a text stands for; Unreadable if there is no such parameter, or the text is none of its kind."""
        for parameter in self.parameters:
            if parameter.name == name:
                return _typed(parameter, text, place=place)
        known = ", ".join(parameter.name for parameter in self.parameters)
        raise Unreadable(f"{_at(place)}{name} is no parameter of the study; there are: {known}")

    def fixed(self, texts: Iterable[str]) -> dict[str, ParameterValue]:
        """Some parameters with their values, of words such as `rate=0.1`."""
        return {name: self.value(name, text) for name, text in map(_assignment, texts)}

    def _of_table(self, text: str, file: str) -> Iterator[Row]:
        # Not str.splitlines: it also ends lines at characters that a cell may hold, such as U+2028.
        lines = csv.reader(io.StringIO(text, newline=""))
        columns = self._columns(next(lines, []))
        if not self._names & set(columns):
            known = ", ".join(parameter.name for parameter in self.parameters)
            raise Unreadable(f"{file} line 1: the heading names no parameter of the study; there are: {known}")
        for cells in filter(None, lines):
            place = f"{file} line {lines.line_num}"
            if len(cells) > len(columns):
                raise Unreadable(f"{place}: it has more cells than the heading")
            given = {name: cell for name, cell in zip(columns, cells, strict=False) if name and cell}
            yield self._of_cells(place, self._without_gaps(given))

    def _columns(self, heading: Sequence[str]) -> list[str]:
        """What stands in each column: a parameter, a metric, a column of an export; empty for what is passed over, as an index.

        A heading of `Study.to_dataframe` says which is which by `parameters.` and `metrics.`; all else there is about the trial.
        """
        if self._names & set(heading) or not any(self._of_parameter(column) for column in heading):
            return list(heading)
        return [self._of_parameter(column) or _of_trial(column) for column in heading]

    def _of_parameter(self, column: str) -> str:
        """The parameter that a column of `to_dataframe` has; empty for any other column."""
        name = column.removeprefix(_PARAMETER)
        return name if name != column and name in self._names else ""

    def _without_gaps(self, cells: Mapping[str, str]) -> dict[str, str]:
        """The cells but those that say, as pandas may be told to write it, that there is nothing."""
        bare = cells.get("state") in (TrialState.FAILED, TrialState.INFEASIBLE)
        return {name: cell for name, cell in cells.items() if not self._is_absent(name, cell, bare=bare)}

    def _is_absent(self, name: str, cell: str, *, bare: bool) -> bool:
        """Whether a cell is a parameter that was not active, a standard error that is not known, or a metric of a trial that has none."""
        written = cell.strip().lower()
        if written not in _GAPS:
            return False
        if name in self._names:
            return self._may_be_absent(name, cell)
        # That a metric was NaN is a result.
        return bare or written != "nan" or name.endswith(STANDARD_ERROR)

    def _may_be_absent(self, name: str, content: object) -> bool:
        """Whether a parameter is under a condition, and has no such choice."""
        return any(
            parameter.name == name and parameter.when is not None and content not in _choices(parameter)
            for parameter in self.parameters
        )

    def _of_cells(self, place: str, cells: Mapping[str, str]) -> Row:
        """The row of a table: empty cells are left out, and what is no parameter and no column of an export is a metric."""
        parameters = {name: self.value(name, cell, place=place) for name, cell in cells.items() if name in self._names}
        if not self.results:
            return Row(place, parameters)
        others = {name: cell for name, cell in cells.items() if name not in self._names | _OF_EXPORTS}
        return Row(
            place, parameters, _metrics(others, place), _state(cells.get("state"), place), cells.get("message", "")
        )

    def _of_document(self, place: str, document: Any) -> Row:
        """A JSON object, as `asktell study trials --json` prints it, or flat as a row of a table."""
        if not isinstance(document, dict):
            raise Unreadable(f'{place}: a configuration is an object, such as {{"rate": 0.1}}')
        if not isinstance(document.get("parameters"), dict) or "parameters" in self._names:
            inside, metrics = self._of_flat(document)
        else:
            inside, metrics = document["parameters"], document.get("metrics") or {}
        if not self.results:
            return Row(place, inside)
        state = _state(document.get("state"), place)
        return Row(place, inside, _measured(metrics, place), state, str(document.get("message") or ""))

    def _of_flat(self, document: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Parameters and metrics of an object that has all side by side; null is a parameter that was not active, or no metric."""
        given = dict(zip(self._columns(list(document)), document.values(), strict=True))
        inside = {name: value for name, value in given.items() if name in self._names}
        metrics = {name: value for name, value in given.items() if name and name not in self._names | _OF_EXPORTS}
        idle = {name for name, value in inside.items() if value is None and self._may_be_absent(name, value)}
        return {name: value for name, value in inside.items() if name not in idle}, metrics

    @property
    def _names(self) -> set[str]:
        return {parameter.name for parameter in self.parameters}


def _of_trial(column: str) -> str:
    """The metric, or the column of an export, that a column of `to_dataframe` has; empty for all else that it says of a trial."""
    if not column.startswith(_METRIC):
        return column if column in _OF_EXPORTS else ""
    name = column.removeprefix(_METRIC)
    return f"{name.removesuffix(_ERROR)}{STANDARD_ERROR}" if name.endswith(_ERROR) else name


def _choices(parameter: ParameterSpec) -> Sequence[ParameterValue]:
    match parameter:
        case Categorical():
            return parameter.choices
        case Ordinal():
            return parameter.values
        case _:
            return ()


def _assignment(text: str) -> tuple[str, str]:
    name, equals, rest = text.partition("=")
    if not (name.strip() and equals and rest.strip()):
        instead = f"; a file is given as --file {text}" if Path(text).suffix in {".csv", ".json", ".jsonl"} else ""
        raise Unreadable(f"{text!r}: expected NAME=VALUE, such as learning_rate=0.01{instead}")
    return name.strip(), rest.strip()


def _typed(parameter: ParameterSpec, text: str, *, place: str) -> ParameterValue:
    try:
        match parameter:
            case Float():
                return float(text)
            case Int():
                return _whole(text)
            case Bool():
                return _choice((False, True), text.lower())
            case Categorical():
                return _choice(parameter.choices, text)
            case Ordinal():
                return _choice(parameter.values, text)
    except ValueError as error:
        raise Unreadable(f"{_at(place)}{parameter.name}: {error}") from error


def _whole(text: str) -> int:
    """A whole number; tables have `3.0` for 3 where a column has gaps."""
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not number.is_integer():
            raise ValueError(f"{text!r} is not a whole number") from None
        return int(number)


def _choice(choices: Sequence[ParameterValue], text: str) -> ParameterValue:
    """The choice that a text stands for: by its kind, as `16`, `true` and `"16"` have in a command line, or as it is written."""
    typed = dials.value(text)
    for meant in (typed, text):
        if any(type(choice) is type(meant) and choice == meant for choice in choices):
            return meant
    written = [choice for choice in choices if str(choice) == text or _equal(choice, typed)]
    if len(written) == 1:
        return written[0]
    raise ValueError(f"{text!r} is none of: {', '.join(map(json.dumps, choices))}")


def _equal(choice: ParameterValue, typed: ParameterValue) -> bool:
    """Whether two numbers are equal, of whatever kind."""
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (choice, typed))
    return numbers and choice == typed


def _documents(text: str, file: str) -> tuple[list[str], list[Any]]:
    """The objects of a JSON list, or of lines with an object each, and their places."""
    if text.lstrip().startswith("["):
        try:
            documents = json.loads(text)
        except ValueError as error:
            raise Unreadable(f"{file}: is no JSON: {error}") from error
        return [f"{file} entry {place}" for place in range(1, len(documents) + 1)], documents
    lines = [(f"{file} line {number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    return [place for place, _ in lines], [_document(line, place) for place, line in lines]


def _document(line: str, place: str) -> Any:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise Unreadable(f"{place}: is no JSON: {error}") from error
    if isinstance(found, dict) and "header" in found:
        raise Unreadable(f"{place}: the file is a whole study: asktell study import")
    return found


def _metrics(cells: Mapping[str, str], place: str) -> dict[str, MetricValue]:
    """Metrics by name, of cells such as `0.3`, with another for the standard error or not; `0.3±0.01` or `0.3+-0.01` is both in one."""
    found = {}
    for name, cell in cells.items():
        if not name.endswith(STANDARD_ERROR):
            mean, _, error = cell.replace("+-", "±").partition("±")
            error = error or cells.get(f"{name}{STANDARD_ERROR}", "")
            spread = _number(f"{name}{STANDARD_ERROR}", error, place) if error.strip() else None
            found[name] = MetricValue(_number(name, mean, place), spread)
    return found


def _measured(metrics: Mapping[str, Any], place: str) -> dict[str, MetricValue]:
    """Metrics by name, of JSON: a number, a pair of value and standard error, or an object with the two."""
    found = {}
    for name, content in metrics.items():
        match content:
            case {"value": number, **rest}:
                spread = rest.get("standard_error")
            case [number, spread]:
                pass
            case None:
                continue
            case number:
                spread = None
        found[name] = MetricValue(
            _number(name, number, place), None if spread is None else _number(name, spread, place)
        )
    return found


def _number(name: str, content: Any, place: str) -> float:
    if isinstance(content, bool) or not isinstance(content, int | float | str):
        raise Unreadable(f"{_at(place)}{name}: {content!r} is not a number")
    try:
        return float(content)
    except (ValueError, OverflowError) as error:
        raise Unreadable(f"{_at(place)}{name}: {content!r} is not a number, and {name} is no parameter") from error


def _state(content: Any, place: str) -> TrialState | None:
    if content in (None, ""):
        return None
    try:
        return TrialState(content)
    except ValueError as error:
        known = ", ".join(state.value for state in TrialState)
        raise Unreadable(f"{_at(place)}the state {content!r} is none of: {known}") from error


def _at(place: str) -> str:
    return f"{place}: " if place else ""
