"""Studies and trials as tables for people."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import dropwhile

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from asktell.cli import document
from asktell.client import (
    AtMost,
    Categorical,
    Fidelity,
    Float,
    Hypervolume,
    Int,
    LeaveOneOut,
    MetricValue,
    Ordinal,
    Population,
    Prediction,
    StudyRecord,
    StudyState,
    TrialRecord,
    TrialState,
)
from asktell.client.spec import NO_DEFAULT, Objective, OutcomeConstraint, ParameterSpec, ParameterValue
from asktell.client.stopping import StoppingRule
from asktell.client.values import TrialCounts

STYLES = {
    TrialState.SUCCEEDED: "green",
    TrialState.ACTIVE: "cyan",
    TrialState.FAILED: "red",
    TrialState.INFEASIBLE: "yellow",
    TrialState.STOPPED: "yellow",
}
NONE = "–"
UNBOUNDED = 10_000
"""Columns of what is no terminal: a table takes as many as it needs."""


def show(*parts: RenderableType) -> None:
    """Print to standard output, with an empty line between the parts."""
    console = _console(highlight=False)
    for place, part in enumerate(parts):
        if place:
            console.print()
        console.print(part)


def _console(*, width: int | None = None, highlight: bool = True) -> Console:
    """A console on standard output. What is not a terminal, as a pipe to `grep`, has lines as long as they come, unless COLUMNS says."""
    console = Console(width=width, highlight=highlight)
    if width is None and not console.is_terminal and not os.environ.get("COLUMNS", "").isdecimal():
        console.width = UNBOUNDED
    return console


def studies(records: Sequence[StudyRecord], *, best: Mapping[str, TrialRecord | None] | None = None) -> Table:
    """One row a study; with `best`, by the studies' names, also the value of the best trial. All that ended is done, failed or not."""
    last = [] if best is None else ["best"]
    table = _table("study", "state", "objectives", "done", "active", "failed", *last, "changed")
    for record in records:
        counts = record.counts
        table.add_row(
            record.name.rpartition("/")[2],
            "spent" if is_spent(record) else record.state.value,
            ", ".join(f"{objective.goal[:3]} {objective.metric}" for objective in record.objectives),
            *(_done(record), str(counts.active), str(counts.failed)),
            *([] if best is None else [_best(best.get(record.name), record)]),
            _age(record.update_time),
        )
    _right(table, *range(3, len(table.columns)))
    table.columns[1].no_wrap = True
    return table


def _done(record: StudyRecord) -> str:
    """How many trials have ended, of how many there may be; those that were withdrawn are none."""
    counts, limit = record.counts, record.budget.max_trials
    ended = counts.succeeded + counts.stopped + counts.infeasible + counts.failed
    return f"{ended}" if limit is None else f"{ended} of {limit}"


def _best(trial: TrialRecord | None, study: StudyRecord) -> str:
    return NONE if trial is None else metric(trial.metrics.get(study.objectives[0].metric))


def is_spent(record: StudyRecord) -> bool:
    """Whether an active study hands out no new trials, because its budget is used up."""
    counts, budget = record.counts, record.budget
    used = {
        budget.max_trials: sum(asdict(counts).values()) - counts.cancelled,
        budget.max_failures: counts.failed,
    }
    over = any(limit is not None and number >= limit for limit, number in used.items())
    late = budget.max_duration is not None and (_since(record.create_time) or timedelta()) >= budget.max_duration
    return record.state is StudyState.ACTIVE and (over or late)


def objectives(record: StudyRecord) -> str:
    """Such as `maximize accuracy, minimize latency`."""
    return ", ".join(map(_objective, record.objectives))


def _objective(objective: Objective) -> str:
    reference = "" if objective.reference is None else f" (reference {objective.reference:.6g})"
    return f"{objective.goal} {objective.metric}{reference}"


def constraint(constraint: OutcomeConstraint) -> str:
    """Such as `latency_ms <= 50`."""
    return f"{constraint.metric} {'<=' if isinstance(constraint, AtMost) else '>='} {constraint.bound:.6g}"


def stopping_rule(rule: StoppingRule) -> str:
    """Such as `percentile: percentile 25, warmup_steps 3`."""
    parts = document.of_stopping_rule(rule)
    kind = parts.pop("kind")
    given = ", ".join(f"{name} {part}" for name, part in parts.items())
    return f"{kind}: {given}" if given else kind


def fidelity(raised: Fidelity) -> str:
    """Such as `epochs, by rungs: the best 1/3 of each go on`."""
    return f"{raised.parameter}, by rungs: the best 1/{raised.reduction_factor} of each go on"


def population(crowd: Population) -> str:
    """Such as `8 trainings, of which the worst 2 go on from the states of the best 2`."""
    worst = int(crowd.exploit_fraction * crowd.size + 1e-9)
    ways = f"{worst} go on from the states of the best {worst}" if worst > 1 else "goes on from the state of the best"
    return f"{crowd.size} trainings, of which the worst {ways}"


def heading(record: StudyRecord) -> Table:
    """What a study is, in pairs of word and value."""
    budget = record.budget
    limits = {
        "trials": budget.max_trials,
        "failures": budget.max_failures,
        "at one time": budget.max_parallel,
        "duration": budget.max_duration,
    }
    pairs = {
        "study": record.name,
        "state": f"{record.state.value}{', its budget is spent' if is_spent(record) else ''}",
        "objectives": objectives(record),
        "constraints": ", ".join(record.constraints),
        "feasible if": ", ".join(map(constraint, record.outcome_constraints)),
        "results": "noisy" if record.noisy else "",
        "stops": "" if record.stopping_rule is None else stopping_rule(record.stopping_rule),
        "population": "" if record.population is None else population(record.population),
        "raises": "" if record.fidelity is None else fidelity(record.fidelity),
        "starts from": ", ".join(record.warm_start),
        "policy": f"{record.policy}, seed {record.seed}",
        "budget": ", ".join(f"{word} {limit}" for word, limit in limits.items() if limit is not None) or "unlimited",
        "trials": counted(record.counts),
        "leases": f"{_span(record.lease_duration)}, {record.max_attempts} attempts",
        "labels": ", ".join(f"{key}={text}" for key, text in record.labels.items()),
        "created": _time(record.create_time),
    }
    table = Table.grid(padding=(0, 2))
    for word, text in pairs.items():
        if text:
            table.add_row(Text(word, style="bold"), Text(text))
    return table


def counted(counts: TrialCounts) -> str:
    """Such as `12 succeeded, 1 failed`."""
    states = ("succeeded", "active", "queued", "stopped", "infeasible", "failed", "cancelled")
    return ", ".join(f"{count} {state}" for state in states if (count := getattr(counts, state))) or "none yet"


def space(parameters: Sequence[ParameterSpec]) -> Table:
    """One row a parameter."""
    table = _table("parameter", "kind", "range", "default", "when")
    for parameter in parameters:
        table.add_row(
            Text(parameter.name, style="bold"),
            type(parameter).__name__.lower(),
            Text(_range(parameter)),
            Text(NONE if parameter.default is NO_DEFAULT else value(parameter.default)),
            Text(_condition(parameter)),
        )
    return table


def _range(parameter: ParameterSpec) -> str:
    match parameter:
        case Float() | Int():
            spacing = ", log" if parameter.log else "" if parameter.step is None else f", step {value(parameter.step)}"
            return f"{value(parameter.low)} to {value(parameter.high)}{spacing}"
        case Categorical():
            return " | ".join(map(value, parameter.choices))
        case Ordinal():
            return " < ".join(map(value, parameter.values))
    return "true | false"


def _condition(parameter: ParameterSpec) -> str:
    if parameter.when is None:
        return ""
    parent, values = parameter.when
    return f"{parent} is {' or '.join(map(value, values))}"


def trials(
    records: Sequence[TrialRecord], study: StudyRecord, *, width: int | None = None, title: str | None = None
) -> RenderableType:
    """One row a trial, with a column a parameter if that fits, else with all parameters in one."""
    console = _console(width=width)
    wide = _trials(records, study, title=title, folded=False)
    if console.measure(wide, options=console.options.update(max_width=UNBOUNDED)).maximum <= console.width:
        return wide
    return _trials(records, study, title=title, folded=True)


def _trials(records: Sequence[TrialRecord], study: StudyRecord, *, title: str | None, folded: bool) -> Table:
    parameters = [parameter.name for parameter in study.parameters]
    metrics = metric_names(records, study)
    messages = not folded and any(record.message for record in records)
    last = ["parameters"] if folded else [*parameters, *(["message"] if messages else [])]
    descent = [name for name in ("member", "parent") if any(getattr(record, name) for record in records)]
    table = _table("trial", "state", *descent, *metrics, *last)
    table.title = title
    table.title_justify = "left"
    for record in records:
        table.add_row(
            str(record.number),
            Text(record.state.value, style=STYLES.get(record.state, "")),
            *(str(getattr(record, name) or NONE) for name in descent),
            *(metric(record.metrics.get(name)) for name in metrics),
            *([_folded(record, parameters)] if folded else _unfolded(record, parameters, messages=messages)),
        )
    _right(table, 0, *range(2, 2 + len(descent) + len(metrics)))
    table.columns[1].no_wrap = True
    return table


def _unfolded(record: TrialRecord, names: Sequence[str], *, messages: bool) -> list[Text]:
    values = [Text(value(record.parameters[name]) if name in record.parameters else NONE) for name in names]
    return [*values, *([Text(gist(record.message))] if messages else [])]


def _folded(record: TrialRecord, names: Sequence[str]) -> Text:
    """All parameters, and below them the message if there is one."""
    text = Text(", ".join(f"{name}={value(record.parameters[name])}" for name in names if name in record.parameters))
    return text.append(f"\n{gist(record.message)}", style="red") if record.message else text


def metric_names(records: Iterable[TrialRecord], study: StudyRecord) -> list[str]:
    """The metrics that were told: objectives in the study's order, then the others by name."""
    wanted = [objective.metric for objective in study.objectives]
    others = {name for record in records for name in record.metrics} - set(wanted)
    return [*wanted, *sorted(others)]


def best(record: TrialRecord, study: StudyRecord) -> RenderableType:
    """The best trial: its metrics, then its parameters one a row."""
    table = _table("parameter", "value")
    for parameter in study.parameters:
        if parameter.name in record.parameters:
            table.add_row(parameter.name, Text(value(record.parameters[parameter.name])))
    numbers = ", ".join(f"{name} = {metric(record.metrics[name])}" for name in metric_names([record], study))
    return Group(Text(f"trial {record.number}: {numbers}", style="bold"), table)


def no_best(study: StudyRecord) -> str:
    """Why a study has no best trial yet."""
    succeeded = study.counts.succeeded
    name = study.name.rpartition("/")[2]
    if not succeeded:
        return f"no trial of {name} has succeeded yet"
    bounds = ", ".join(map(constraint, study.outcome_constraints))
    lacking = f"is known to be feasible: {bounds}" if bounds else "has finite objectives"
    return f"{name} has no best trial yet: none of {succeeded} that succeeded {lacking}"


def hypervolume(found: Hypervolume, study: StudyRecord) -> Text:
    """A front's hypervolume, and what it is measured from."""
    names = [objective.metric for objective in study.objectives]
    return Text(
        f"hypervolume {found.value:.6g}, measured from "
        + ", ".join(f"{name} {found.reference[name]:.6g}" for name in names)
    )


def predictions(rows: Sequence[tuple[str, Mapping[str, Prediction]]]) -> Table:
    """One row a point, by its words: what is expected of each metric, with its standard deviation."""
    table = _table("at", *rows[0][1])
    for words, found in rows:
        table.add_row(Text(words), *map(prediction, found.values()))
    _right(table, *range(1, len(table.columns)))
    return table


def prediction(prediction: Prediction) -> str:
    """A mean in six digits, with its standard deviation in two."""
    return f"{prediction.mean:.6g} ± {prediction.standard_deviation:.2g}"


def importance(shares: Mapping[str, Mapping[str, float]]) -> Table:
    """One row a parameter with its share of each objective, those first that matter most over all objectives."""
    table = _table("parameter", *shares)
    totals = {name: sum(found[name] for found in shares.values()) for name in next(iter(shares.values()))}
    for name in sorted(totals, key=lambda name: -totals[name]):
        table.add_row(Text(name, style="bold"), *(f"{100.0 * found[name]:.1f} %" for found in shares.values()))
    _right(table, *range(1, len(table.columns)))
    return table


def left_out(found: Sequence[LeaveOneOut], *, title: str) -> Table:
    """One row a result, beside what was expected without it."""
    table = _table("trial", "metric", "observed", "predicted", "off by")
    table.title, table.title_justify = title, "left"
    for left in found:
        off = f"{surprise(left):.1f} sd"
        table.add_row(str(left.number), left.metric, f"{left.observed:.6g}", prediction(left.predicted), off)
    _right(table, 0, 2, 3, 4)
    return table


def surprise(left: LeaveOneOut) -> float:
    """How many predicted standard deviations a result is away from what was expected."""
    return abs(left.observed - left.predicted.mean) / (left.predicted.standard_deviation or math.inf)


def metric(value: MetricValue | None) -> str:
    """A metric's value in six digits, with its standard error in two."""
    if value is None:
        return NONE
    error = "" if value.standard_error is None else f" ± {value.standard_error:.2g}"
    return f"{value.value:.6g}{error}"


def value(value: ParameterValue | Sequence[ParameterValue]) -> str:
    """A parameter's value; numbers in six digits."""
    match value:
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.6g}"
        case None:
            return "null"
    return str(value)


def gist(message: str) -> str:
    """A message in one line: its first and its last, of a traceback those of the exception, not the places."""
    lines = [line.strip() for line in _exception(message) if line.strip()]
    return "" if not lines else lines[0] if len(lines) == 1 else f"{lines[0]} … {lines[-1]}"


def _exception(message: str) -> list[str]:
    lines = message.strip().splitlines()
    if not lines or not lines[0].startswith("Traceback"):
        return lines
    return list(dropwhile(lambda line: line.startswith(" "), lines[1:])) or lines


def checkpoints(rows: Iterable[tuple[str, str, str, str]]) -> Table:
    """One row a state: trial, attempt, size, what becomes of it."""
    table = _table("trial", "attempt", "size", "kept as")
    for row in rows:
        table.add_row(*row)
    _right(table, 0, 2)
    return table


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _right(table: Table, *columns: int) -> None:
    for column in columns:
        table.columns[column].justify = "right"
        table.columns[column].no_wrap = True


def _span(duration: timedelta | None) -> str:
    return NONE if duration is None else f"{duration.total_seconds():g} s"


def _time(time: datetime | None) -> str:
    return NONE if time is None else time.astimezone().strftime("%Y-%m-%d %H:%M")


def _since(time: datetime | None) -> timedelta | None:
    return None if time is None else datetime.now(UTC) - time


def _age(time: datetime | None) -> str:
    """Such as `3 h ago`."""
    passed = _since(time)
    if passed is None:
        return NONE
    seconds = max(int(passed.total_seconds()), 0)
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"
