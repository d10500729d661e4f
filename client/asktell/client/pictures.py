"""Each picture of a study: what it asks the service for, and how it is drawn of that.

A picture is a generator that yields calls, is sent their replies, and returns the figure: threads and asyncio carry it out alike. Its first
step loads matplotlib, so that MissingExtra comes before any call.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from asktell.client import calls, wire
from asktell.client.calls import Call
from asktell.client.errors import AskTellError, FailedPrecondition, InvalidArgument, Unavailable
from asktell.client.lineage import lineage
from asktell.client.points import Point, completed, grid
from asktell.client.spec import Objective, ParameterSpec, ParameterValue
from asktell.client.values import LeaveOneOut, Measurement, Prediction, StudyRecord, TrialRecord, TrialState
from asktell.v1 import study_service_pb2

if TYPE_CHECKING:
    from asktell.client.plots import Picture, Slice

T = TypeVar("T")

Around: TypeAlias = Mapping[str, ParameterValue] | int | None
"""A configuration, the number of a trial, or None for the best trial."""

METHODS = {"sobol": "total Sobol indices of the surrogate", "ped-anova": "PED-ANOVA: the best tenth of the trials"}
SLICE_STEPS = 61
CONTOUR_STEPS = 25
FEWER_STEPS = 13
"""Where constraints are to be asked about, point by point."""
_POINT = re.compile(r"^points\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class Stream:
    """A call whose replies are wanted all together, as a list."""

    call: Call[Any]


Plan: TypeAlias = Generator[Call[Any] | Stream, Any, T]


def carry_out(plan: Plan[T], answer: Callable[[Call[Any] | Stream], object]) -> T:
    """The picture, each of its calls answered in turn; the plan hears of their errors."""
    step: Callable[[], Call[Any] | Stream] = partial(next, plan)
    while True:
        try:
            call = step()
        except StopIteration as end:
            found: T = end.value
            return found
        try:
            step = partial(plan.send, answer(call))
        except AskTellError as error:
            step = partial(plan.throw, error)


async def carry_out_async(plan: Plan[T], answer: Callable[[Call[Any] | Stream], Awaitable[object]]) -> T:
    """As `carry_out`; what takes the processor, as drawing does, is done on a thread, so that the loop goes on."""
    step: Callable[[], Call[Any] | Stream] = partial(next, plan)
    while True:
        call, found = await asyncio.to_thread(_taken, step)
        if call is None:
            picture: T = found
            return picture
        try:
            step = partial(plan.send, await answer(call))
        except AskTellError as error:
            step = partial(plan.throw, error)


def _taken(step: Callable[[], Call[Any] | Stream]) -> tuple[Call[Any] | Stream | None, Any]:
    """A step's call, or what the plan came to: no future can hold a StopIteration."""
    try:
        return step(), None
    except StopIteration as end:
        return None, end.value


def course(study: StudyRecord) -> Plan[Picture]:
    """What each trial came to and the best so far; of several objectives the front."""
    from asktell.client import plots  # noqa: PLC0415 - takes the extra `plot`.

    if len(study.objectives) > 1:
        return (yield from front(study))
    return plots.course((yield from _trials(study)), study)


def front(study: StudyRecord) -> Plan[Picture]:
    """The Pareto front, and its hypervolume."""
    from asktell.client import plots  # noqa: PLC0415

    if len(study.objectives) == 1:
        raise FailedPrecondition(
            f"study {_id(study)!r} has one objective, and so no front: see plot", reason="ONE_OBJECTIVE"
        )
    trials = yield from _trials(study)
    optimal = yield from _ask(calls.list_optimal_trials(study.name))
    hypervolume = yield from _ask(calls.read_hypervolume(study.name))
    return plots.Front(study, trials, [trial.number for trial in optimal], hypervolume).draw()


def importance(study: StudyRecord, *, method: Literal["sobol", "ped-anova"]) -> Plan[Picture]:
    """How much each parameter matters."""
    from asktell.client import plots  # noqa: PLC0415

    shares = yield from _ask(calls.importance(study.name, method=method))
    return plots.importance(shares, study=_id(study), method=METHODS[method])


def validation(study: StudyRecord) -> Plan[Picture]:
    """How well the surrogate predicts each result from the others."""
    from asktell.client import plots  # noqa: PLC0415

    found: Sequence[LeaveOneOut] = yield from _ask(calls.cross_validate(study.name))
    return plots.validation(found, study=_id(study))


def schedule(study: StudyRecord, *, number: int | None) -> Plan[Picture]:
    """Through which trials a training came, among all others."""
    from asktell.client import plots  # noqa: PLC0415

    last = number
    if last is None:
        last = (yield from _best(study)).number
    trials = yield from _trials(study)
    return plots.schedule(trials, lineage(trials, last), study)


def curves(study: StudyRecord, *, metric: str | None) -> Plan[Picture]:
    """What the trials reported on the way."""
    from asktell.client import plots  # noqa: PLC0415

    trials = _read_archive((yield Stream(calls.export_study(study.name))))
    wanted = metric or _reported(study, trials)
    names = sorted({name for trial in trials for each in trial.measurements for name in each.metrics})
    if wanted not in names:
        there = f"; they reported {', '.join(names)}" if names else ""
        raise FailedPrecondition(
            f"no trial of study {_id(study)!r} reported {wanted!r}{there}", reason="NO_MEASUREMENTS"
        )
    optimal = yield from _ask(calls.list_optimal_trials(study.name))
    return plots.curves(trials, study, metric=wanted, optimal={trial.number for trial in optimal})


def parallel(study: StudyRecord, *, metric: str | None) -> Plan[Picture]:
    """A line for each trial with a result, through its parameters."""
    from asktell.client import plots  # noqa: PLC0415

    objective = _objective(study, metric)
    trials = yield from _trials(study)
    if not any(_is_measured(trial, study) for trial in trials):
        raise FailedPrecondition(
            f"no trial of study {_id(study)!r} has succeeded yet with finite results", reason="NO_RESULTS"
        )
    optimal = yield from _ask(calls.list_optimal_trials(study.name))
    return plots.parallel(trials, study, objective=objective, optimal={trial.number for trial in optimal})


def slices(study: StudyRecord, *, around: Around, along: Sequence[str], title: str) -> Plan[Picture]:
    """What is expected along each parameter, the others held."""
    from asktell.client import plots  # noqa: PLC0415

    words, point = yield from _start(study, around)
    specs = [spec for spec in _named(study, along) or study.parameters if spec.name in point]
    if not specs:
        raise FailedPrecondition(
            f"there is nothing to draw along: {title or words} has none of these parameters", reason="INACTIVE"
        )
    found: list[Slice] = []
    for spec in specs:
        each = yield from _slice(study, point, spec)
        found += [each] if each.predictions else []
    if not found:
        raise FailedPrecondition("the study's constraints allow nothing that could be drawn", reason="NOTHING_ALLOWED")
    trials = yield from _trials(study)
    return plots.slices(found, trials, study=_id(study), around=title or words)


def _slice(study: StudyRecord, point: Point, spec: ParameterSpec) -> Plan[Slice]:
    """What is expected along a parameter, where the study's constraints allow it. With a parent's value others come and go."""
    from asktell.client import plots  # noqa: PLC0415

    values = grid(spec, SLICE_STEPS)
    moved = [completed({**point, spec.name: value}, study.parameters) for value in values]
    found = yield from _predictions(study, moved)
    kept = [(value, each) for value, each in zip(values, found, strict=True) if each is not None]
    came = {name: value for one in moved for name, value in one.items() if name not in point}
    return plots.Slice(spec, [value for value, _ in kept], [each for _, each in kept], point[spec.name], came)


def contour(
    study: StudyRecord, *, across: str | None, up: str | None, around: Around, metric: str | None
) -> Plan[Picture]:
    """What is expected of two parameters together, by default of the two that matter most."""
    from asktell.client import plots  # noqa: PLC0415

    wanted = metric or study.objectives[0].metric
    words, point = yield from _start(study, around)
    pair = yield from _pair(study, across, up, point, wanted)
    steps = FEWER_STEPS if study.constraints else CONTOUR_STEPS
    values = tuple(grid(spec, steps) for spec in pair)
    cells: list[Prediction | None] = []
    moved = [
        completed({**point, pair[0].name: x, pair[1].name: y}, study.parameters) for y in values[1] for x in values[0]
    ]
    for one, found in zip(moved, (yield from _predictions(study, moved)), strict=True):
        active = all(spec.name in one for spec in pair)
        cells.append(_of_metric(found, wanted) if found is not None and active else None)
    width = len(values[0])
    rows = [cells[start : start + width] for start in range(0, len(cells), width)]
    surface = plots.Surface(wanted, pair[0], pair[1], (values[0], values[1]), rows, point)
    return plots.contour(surface, (yield from _trials(study)), study=_id(study), around=words)


def _of_metric(found: Mapping[str, Prediction], metric: str) -> Prediction:
    if metric not in found:
        raise InvalidArgument.at("metric", f"{metric!r} has no surrogate; there are: {', '.join(found)}")
    return found[metric]


def _pair(
    study: StudyRecord, across: str | None, up: str | None, point: Point, metric: str
) -> Plan[tuple[ParameterSpec, ParameterSpec]]:
    """The two parameters of a contour: active at the point or made so by each other, with two values or more."""
    given = [name for name in (across, up) if name is not None]
    specs = _named(study, given)
    if len(given) == 1 or across == up is not None:
        raise InvalidArgument.at("up", "give two parameters, or none for the two that matter most")
    if not given:
        shares = yield from _ask(calls.importance(study.name, method="sobol"))
        order = shares.get(metric) or next(iter(shares.values()))
        ranked = _named(study, list(order))
        specs = [spec for spec in ranked if spec.name in point and len(grid(spec, CONTOUR_STEPS)) > 1][:2]
    if len(specs) < 2:
        raise FailedPrecondition("a contour takes two parameters that are active there", reason="INACTIVE")
    for spec in specs:
        if len(grid(spec, CONTOUR_STEPS)) < 2:
            raise InvalidArgument.at(spec.name, "has one value only")
    return specs[0], specs[1]


def _predictions(study: StudyRecord, points: Sequence[Point]) -> Plan[list[dict[str, Prediction] | None]]:
    """What is expected at each point; None where a constraint forbids it. The service refuses all for the first that it forbids."""
    allowed = list(range(len(points)))
    while allowed:
        try:
            found = yield from _ask(calls.predict(study.name, [points[index] for index in allowed]))
        except InvalidArgument as error:
            refused = _POINT.match(error.field_violations[0][0]) if error.field_violations else None
            if refused is None or not study.constraints:
                raise
            del allowed[int(refused[1])]
        else:
            by_index = dict(zip(allowed, (_in_order(study, each) for each in found), strict=True))
            return [by_index.get(index) for index in range(len(points))]
    return [None] * len(points)


def _in_order(study: StudyRecord, found: Mapping[str, Prediction]) -> dict[str, Prediction]:
    first = [objective.metric for objective in study.objectives if objective.metric in found]
    return {name: found[name] for name in [*first, *sorted(set(found) - set(first))]}


def _start(study: StudyRecord, around: Around) -> Plan[tuple[str, Point]]:
    """The configuration to start from, and its words."""
    if isinstance(around, Mapping):
        words = ", ".join(
            f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in around.items()
        )
        return words, dict(around)
    if around is None:
        trial = yield from _best(study)
    else:
        trial = yield from _ask(calls.get_trial(study.name, around))
    return f"trial {trial.number}", {
        spec.name: trial.parameters[spec.name] for spec in study.parameters if spec.name in trial.parameters
    }


def _best(study: StudyRecord) -> Plan[TrialRecord]:
    optimal = yield from _ask(calls.list_optimal_trials(study.name))
    if not optimal:
        raise FailedPrecondition(f"study {_id(study)!r} has no best trial yet", reason="NO_BEST_TRIAL")
    return optimal[0]


def _named(study: StudyRecord, names: Sequence[str]) -> list[ParameterSpec]:
    """The parameters of these names, in the order of the names."""
    by_name = {spec.name: spec for spec in study.parameters}
    for name in names:
        if name not in by_name:
            raise InvalidArgument.at(name, f"is no parameter of the study; there are: {', '.join(by_name)}")
    return [by_name[name] for name in names]


def _objective(study: StudyRecord, metric: str | None) -> Objective:
    for objective in study.objectives:
        if metric in (None, objective.metric):
            return objective
    there = ", ".join(objective.metric for objective in study.objectives)
    raise InvalidArgument.at("metric", f"{metric!r} is no objective of the study; there are: {there}")


def _is_measured(trial: TrialRecord, study: StudyRecord) -> bool:
    told = [trial.metrics.get(objective.metric) for objective in study.objectives]
    return trial.state is TrialState.SUCCEEDED and all(each is not None and math.isfinite(each.value) for each in told)


def _reported(study: StudyRecord, trials: Sequence[TrialRecord]) -> str:
    """The first objective that trials reported, else what the stopping rule watches."""
    rule = study.stopping_rule
    watched = [rule.metric] if rule is not None and rule.metric else []
    told = {name for trial in trials for each in trial.measurements for name in each.metrics}
    wanted = [*(objective.metric for objective in study.objectives), *watched]
    return next((name for name in wanted if name in told), wanted[0])


def _trials(study: StudyRecord) -> Plan[list[TrialRecord]]:
    """All trials, without measurements; FailedPrecondition if there are none."""
    found: list[TrialRecord] = []
    call: Call[calls.Page[TrialRecord]] | None = calls.list_trials(study.name, states=[], worker_id="")
    while call is not None:
        page = yield from _ask(call)
        found += page.items
        call = page.following
    if not found:
        raise FailedPrecondition(f"{_id(study)} has no trials yet", reason="NO_TRIALS")
    return found


def _read_archive(replies: Sequence[study_service_pb2.ExportStudyResponse]) -> list[TrialRecord]:
    """The trials of an export, with their measurements; an active one stands there as queued. Unavailable if it was cut off."""
    trials: list[TrialRecord] = []
    reported: dict[int, list[Measurement]] = {}
    ended = False
    for record in (record for reply in replies for record in reply.records):
        match record.WhichOneof("record"):
            case "trial":
                trials.append(wire.unpack_trial(record.trial))
            case "reported":
                found = reported.setdefault(record.reported.number, [])
                found += [wire.unpack_measurement(each) for each in record.reported.measurements]
            case "end":
                ended = True
    if not ended:
        raise Unavailable("the archive was cut off before its end: draw the picture again", reason="ARCHIVE_CUT_OFF")
    return [replace(trial, measurements=tuple(reported.get(trial.number, ()))) for trial in trials]


def _ask(call: Call[T]) -> Plan[T]:
    reply: T = yield call
    return reply


def _id(study: StudyRecord) -> str:
    return study.name.rpartition("/")[2]
