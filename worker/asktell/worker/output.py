"""What a command says of its metrics: JSON objects of numbers, one a line.

`{"step": 3, "accuracy": 0.9}` is a measurement at a step, `{"accuracy": 0.93, "loss": [0.2, 0.01]}` the result; a pair is a value with its
standard error. `{"checkpoint_uri": "s3://bucket/7"}`, alone or with numbers, says where a command with a store of its own has left its state.
NaN, Infinity and -Infinity are numbers, as `json.dumps` writes them. Every other line is output like any other.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass

Metric = float | tuple[float, float]
"""A value, or a value with its standard error."""
Metrics = Mapping[str, Metric]

MAX_STEP = 2**63 - 1
EXCERPT = 120


class UnreadableLine(ValueError):
    """A line that names a metric of the study, yet gives no number for it."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """Metrics that one line gives; `step` is None in a result. There are none in a line that gives a checkpoint alone."""

    metrics: Metrics
    step: int | None = None
    checkpoint_uri: str = ""


@dataclass(frozen=True, slots=True)
class Transcript:
    """All measurements of a trial so far, and what could not be read.

    The final metrics are those of the lines without a step, later ones replacing earlier ones of the same name; without such a line,
    those of the last measurement.
    """

    objectives: tuple[str, ...]
    result: Metrics | None = None
    last: Metrics | None = None
    complaint: str = ""

    def read(self, text: str, *, number: int) -> tuple[Transcript, Measurement | None]:
        """Return the transcript with one more line, and the line's measurement if it is one; `number` names the line in complaints."""
        try:
            measurement = parse(text, names=self.objectives)
        except UnreadableLine as error:
            return self._with(complaint=self.complaint or f"line {number}: {error}"), None
        if measurement is None or not measurement.metrics:
            return self, measurement
        if measurement.step is None:
            return self._with(result={**(self.result or {}), **measurement.metrics}), measurement
        return self._with(last=measurement.metrics), measurement

    def _with(
        self, *, result: Metrics | None = None, last: Metrics | None = None, complaint: str | None = None
    ) -> Transcript:
        return Transcript(
            self.objectives,
            self.result if result is None else result,
            self.last if last is None else last,
            self.complaint if complaint is None else complaint,
        )

    @property
    def metrics(self) -> Metrics:
        """The final metrics; empty if there are none."""
        return (self.last or {}) if self.result is None else self.result

    @property
    def shortcoming(self) -> str:
        """Why the final metrics do not do for a result; empty if they do."""
        missing = [name for name in self.objectives if name not in self.metrics]
        if not missing:
            return ""
        wanted = ", ".join(f'"{name}": 0.5' for name in self.objectives)
        none = f"no line of metrics was seen, such as {{{wanted}}}"
        seen = f"the result has {', '.join(self.metrics)}" if self.metrics else none
        complaint = f"; {self.complaint}" if self.complaint else ""
        return f"no value for {', '.join(missing)}: {seen}{complaint}"


def parse(text: str, *, names: Collection[str]) -> Measurement | None:
    """Return the measurement in a line, or None for other output.

    Raises:
        UnreadableLine: The line is a JSON object that names one of `names` or a step of otherwise numbers, but not as a number; or a
            checkpoint, but not as a text.
    """
    members = _object(text)
    if not members:
        return None
    step, uri = members.pop("step", None), members.pop("checkpoint_uri", "")
    metrics = {name: metric for name, value in members.items() if (metric := _metric(value)) is not None}
    strange = [name for name in members if name not in metrics]
    concerned = [name for name in strange if name in names]
    if concerned:
        raise UnreadableLine(f"{concerned[0]} is {_excerpt(members[concerned[0]])}, not a number")
    if strange or not (metrics or uri):
        return None
    if not isinstance(uri, str):
        raise UnreadableLine(f"checkpoint_uri is {_excerpt(uri)}, not a URI")
    return Measurement(metrics, _step(step), uri)


def _object(text: str) -> dict[str, object]:
    stripped = text.strip()
    if not (stripped.startswith("{") and stripped.endswith("}")):
        return {}
    try:
        members = json.loads(stripped)
    except (ValueError, RecursionError):
        return {}
    return members if isinstance(members, dict) else {}


def _metric(value: object) -> Metric | None:
    if isinstance(value, list) and len(value) == 2:
        mean, error = map(_number, value)
        return None if mean is None or error is None else (mean, error)
    return _number(value)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _step(step: object) -> int | None:
    if step is None:
        return None
    # Some languages write every number with a point.
    whole = int(step) if isinstance(step, float) and step.is_integer() else step
    if isinstance(whole, bool) or not isinstance(whole, int) or not 0 <= whole <= MAX_STEP:
        raise UnreadableLine(f"step is {_excerpt(step)}, not a whole number from 0")
    return whole


def _excerpt(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= EXCERPT else text[: EXCERPT - 3] + "..."
