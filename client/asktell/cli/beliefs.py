"""`asktell study predict`, `importance`, `validate` and `plot`: what the surrogate believes, and pictures."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from asktell.cli import document, tables
from asktell.cli.configurations import Reader
from asktell.cli.dials import Unreadable
from asktell.cli.failure import Refused
from asktell.cli.service import ANYWHERE, Json, Service
from asktell.client import Float, Int, InvalidArgument, LeaveOneOut, Ordinal, Prediction, Study, Trial, TrialRecord
from asktell.client.spec import Bool, ParameterSpec, ParameterValue

if TYPE_CHECKING:
    from asktell.cli.plots import Slice

STEPS = 61
"""Points along a range."""
MOST_CHOICES = 24
WORST = 10
BATCH = 1_000
METHODS = {"sobol": "total Sobol indices of the surrogate", "ped-anova": "PED-ANOVA: the best tenth of the trials"}

Picture = Annotated[
    Path | None,
    Parameter(
        name=["--output", "-o"],
        show_default=False,
        help="Also draw a picture: PNG, SVG or PDF by the ending of its name. Takes the `plot` extra.",
    ),
]
Point = dict[str, ParameterValue]


def predict(
    name: str,
    /,
    *values: str,
    like: Annotated[str, Parameter(show_default=False)] = "",
    file: Annotated[Path | None, Parameter(show_default=False)] = None,
    along: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = (),
    output: Picture = None,
    service: Service = ANYWHERE,
    as_json: Json = False,
) -> None:
    """Show what the surrogate expects of configurations: mean and standard deviation of each objective and bounded metric.

    For example:

    `asktell study predict digits learning_rate=0.01 batch_size=64 optimizer=adam`

    `asktell study predict digits --like best learning_rate=0.02`

    `asktell study predict digits --like best --output around-the-best.png`

    Parameters
    ----------
    name
        The study.
    values
        Parameters as `NAME=VALUE`.
    like
        A trial's number, or `best`: what has that trial's values but for those given.
    file
        Configurations, as `asktell study enqueue` takes them.
    along
        With `--output`: draw along these parameters only, by default along all that no others depend on. May be repeated.
    """
    _check(output)
    with service.study(name) as study:
        points = dict(_points(study, values, like=like, file=file))
        found = [each for batch in _batches(list(points.values())) for each in study.predict(batch)]
        if output is not None:
            _draw_slices(study, points, along=along, output=output)
    if as_json:
        _print_json([_of_point(*pair) for pair in zip(points.values(), found, strict=True)])
    else:
        tables.show(tables.predictions(list(zip(points, found, strict=True))))


def importance(
    name: str,
    /,
    *,
    method: Literal["sobol", "ped-anova"] = "sobol",
    output: Picture = None,
    service: Service = ANYWHERE,
    as_json: Json = False,
) -> None:
    """Show how much each parameter matters for each objective.

    For example: `asktell study importance digits --output importance.png`

    Parameters
    ----------
    name
        The study.
    method
        `sobol`: the share of the surrogate's variance over the whole space that a parameter takes part in. `ped-anova`: without a
        surrogate, what distinguishes the best tenth of the trials; takes ten results.
    """
    _check(output)
    with service.study(name) as study:
        shares = study.importance(method=method)
    if output is not None:
        from asktell.cli import plots

        plots.importance(shares, study=name, method=METHODS[method], path=output)
    if as_json:
        _print_json(shares)
    else:
        tables.show(tables.importance(shares), METHODS[method])


def validate(name: str, /, *, output: Picture = None, service: Service = ANYWHERE, as_json: Json = False) -> None:
    """Show how well the surrogate predicts each result from all others (leave-one-out), and whether it is as sure as it should be.

    For example: `asktell study validate digits --output validation.png`

    Parameters
    ----------
    name
        The study.
    """
    _check(output)
    with service.study(name) as study:
        found = study.cross_validate()
        metrics = study.metrics
    if output is not None:
        from asktell.cli import plots

        plots.validation(found, study=name, path=output)
    if as_json:
        _print_json([_of_left_out(left) for left in found])
        return
    worst = sorted(found, key=tables.surprise, reverse=True)[:WORST]
    lines = [_verdict(metric, [left for left in found if left.metric == metric]) for metric in metrics]
    tables.show("\n".join(lines), tables.left_out(worst, title="the most surprising"))


def plot(
    name: str, /, *, output: Annotated[Path, Parameter(name=["--output", "-o"])], service: Service = ANYWHERE
) -> None:
    """Draw what each trial came to, and the best so far; of several objectives the Pareto front, and its hypervolume. Takes the `plot` extra.

    For example: `asktell study plot digits --output history.png`

    Parameters
    ----------
    name
        The study.
    output
        The picture: PNG, SVG or PDF by the ending of its name.
    """
    from asktell.cli import plots

    plots.require_format(output)
    with service.study(name) as study:
        records = [trial.record for trial in study.list_trials()]
        if not records:
            raise Refused(f"{name} has no trials yet")
        if len(study.objectives) == 1:
            plots.history(records, study.record, path=output)
        else:
            _draw_front(study, records, output)
    print(f"{name}: {len(records)} trials in {output}", file=sys.stderr)


def _draw_front(study: Study, records: Sequence[TrialRecord], output: Path) -> None:
    from asktell.cli.fronts import Picture

    front = [trial.number for trial in study.optimal_trials()]
    Picture(study.record, records, front, study.hypervolume()).draw(output)


def _check(output: Path | None) -> None:
    """Before anything is computed: whether a picture can be drawn."""
    if output is not None:
        from asktell.cli import plots

        plots.require_format(output)


def _points(study: Study, values: Sequence[str], *, like: str, file: Path | None) -> Iterator[tuple[str, Point]]:
    """The points that are asked about, each with its words for people."""
    reader = Reader(study.parameters)
    if values or like:
        given, start = reader.fixed(values), _start(study, like) if like else None
        words = [f"trial {start.number}"] if start is not None else []
        yield " ".join([*words, *values]), _overlaid(study, {} if start is None else start.parameters, given)
    elif file is None:
        raise Unreadable("which configuration? give NAME=VALUE for each parameter, --like best, or --file FILE")
    for row in reader.file(file) if file is not None else ():
        yield row.place, dict(row.parameters)


def _start(study: Study, like: str) -> Trial:
    if like.isdecimal():
        return study.get_trial(int(like))
    if like != "best":
        raise Unreadable(f"--like {like}: expected a trial's number, or best")
    optimal = study.optimal_trials()
    if not optimal:
        raise Refused(tables.no_best(study.record))
    return optimal[0]


def _overlaid(study: Study, start: Mapping[str, ParameterValue], given: Mapping[str, ParameterValue]) -> Point:
    """The start with given values, without what is inactive then. What becomes active has to be given."""
    values, kept = {**start, **given}, dict[str, ParameterValue]()
    waiting = [spec for spec in study.parameters if spec.name in values]
    while ready := [spec for spec in waiting if spec.when is None or _holds(spec, kept)]:
        kept |= {spec.name: values[spec.name] for spec in ready}
        waiting = [spec for spec in waiting if spec.name not in kept]
    return {**kept, **given}


def _holds(spec: ParameterSpec, kept: Point) -> bool:
    parent, options = spec.when or ("", ())
    return parent in kept and any(repr(option) == repr(kept[parent]) for option in options)


def _draw_slices(study: Study, points: Mapping[str, Point], *, along: Sequence[str], output: Path) -> None:
    from asktell.cli import plots

    words, point = next(iter(points.items()))
    specs = [spec for spec in _sliced(study, along) if spec.name in point]
    if not specs:
        raise Refused(f"there is nothing to draw along: {words} has none of these parameters")
    slices = [_slice(study, point, spec) for spec in specs]
    plots.slices(slices, study=study.id, around=words, path=output)


def _slice(study: Study, point: Point, spec: ParameterSpec) -> Slice:
    """What is expected along a parameter, where the study's constraints allow it."""
    from asktell.cli import plots

    grid = _grid(spec)
    moved = [{**point, spec.name: option} for option in grid]
    # The service checks the constraints, and refuses all if one point breaks one.
    if study.constraints:
        found = [each for one in moved for each in _if_allowed(study, one)]
        grid = [option for option, each in zip(grid, found, strict=True) if each]
    else:
        found = study.predict(moved)
    return plots.Slice(spec, grid, [each for each in found if each], point[spec.name])


def _if_allowed(study: Study, point: Point) -> list[dict[str, Prediction]]:
    try:
        return study.predict([point])
    except InvalidArgument:
        return [{}]


def _sliced(study: Study, along: Sequence[str]) -> list[ParameterSpec]:
    """Parameters to draw along: with a parent's value others would come and go."""
    parents = {spec.when[0] for spec in study.parameters if spec.when is not None}
    for name in along:
        if name in parents or name not in {spec.name for spec in study.parameters}:
            why = "other parameters depend on it" if name in parents else "there is no such parameter"
            raise Unreadable(f"--along {name}: {why}")
    return [spec for spec in study.parameters if spec.name not in parents and (not along or spec.name in along)]


def _grid(spec: ParameterSpec) -> Sequence[ParameterValue]:
    """Values all along a parameter."""
    match spec:
        case Float():
            return _floats(spec)
        case Int():
            step = spec.step or 1
            reals = _spread(float(spec.low), float(spec.high), log=spec.log)
            return sorted({min(spec.low + round((real - spec.low) / step) * step, spec.high) for real in reals})
        case Bool():
            return [False, True]
        case Ordinal():
            return list(spec.values)[:MOST_CHOICES]
    return list(spec.choices)[:MOST_CHOICES]


def _floats(spec: Float) -> list[ParameterValue]:
    reals = _spread(spec.low, spec.high, log=spec.log)
    if spec.step is None:
        return list(reals)
    last = int((spec.high - spec.low) / spec.step + 1e-9)
    return [
        spec.low + rank * spec.step for rank in sorted({min(round((r - spec.low) / spec.step), last) for r in reals})
    ]


def _spread(low: float, high: float, *, log: bool) -> list[float]:
    shares = [place / (STEPS - 1) for place in range(STEPS)]
    inner = [low * (high / low) ** share if log else low + share * (high - low) for share in shares[1:-1]]
    return [low, *inner, high]


def _batches(points: Sequence[Point]) -> Iterator[Sequence[Point]]:
    return (points[start : start + BATCH] for start in range(0, len(points), BATCH))


def _verdict(metric: str, found: Sequence[LeaveOneOut]) -> str:
    """Such as `loss: 40 results, 70 % within 1 standard deviation (68 % were promised), ...`."""
    within = [sum(tables.surprise(left) <= radius for left in found) / len(found) for radius in (1.0, 2.0)]
    errors = _root_mean_square([left.observed - left.predicted.mean for left in found])
    centre = sum(left.observed / len(found) for left in found)
    spread = _root_mean_square([left.observed - centre for left in found])
    return (
        f"{metric}: {len(found)} results, {within[0]:.0%} within 1 standard deviation (68% promised), {within[1]:.0%} within 2"
        f" (95% promised); root mean square error {errors:.3g}, of their mean {spread:.3g}"
    )


def _root_mean_square(errors: Sequence[float]) -> float:
    largest = max(map(abs, errors), default=0.0)
    return largest * (sum((error / largest) ** 2 for error in errors) / len(errors)) ** 0.5 if largest else 0.0


def _of_point(point: Point, found: Mapping[str, Prediction]) -> dict[str, Any]:
    return {"parameters": point, "predictions": {metric: asdict(prediction) for metric, prediction in found.items()}}


def _of_left_out(left: LeaveOneOut) -> dict[str, Any]:
    return {
        "number": left.number,
        "metric": left.metric,
        "observed": document.number(left.observed),
        "predicted": asdict(left.predicted),
    }


def _print_json(content: object) -> None:
    print(json.dumps(content, ensure_ascii=False, indent=2))
