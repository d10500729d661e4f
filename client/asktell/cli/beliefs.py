"""`asktell study predict`, `importance` and `validate`: what the surrogate believes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from asktell.cli import document, tables
from asktell.cli.configurations import Reader
from asktell.cli.dials import Unreadable
from asktell.cli.failure import Refused
from asktell.cli.plots import require_format
from asktell.cli.service import ANYWHERE, Json, Service
from asktell.client import LeaveOneOut, Prediction, Study, Trial
from asktell.client.pictures import METHODS
from asktell.client.points import Point, holds
from asktell.client.spec import ParameterValue

WORST = 10
BATCH = 1_000

Picture = Annotated[
    Path | None,
    Parameter(
        name=["--output", "-o"],
        show_default=False,
        help="Also draw a picture: PNG, SVG or PDF by the ending of its name. Takes the `plot` extra.",
    ),
]


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
        With `--output`: draw along these parameters only, by default along all that are active. May be repeated.
    """
    _check(output)
    with service.study(name) as study:
        _require_parameters(study, along)
        points = dict(_points(study, values, like=like, file=file))
        found = [each for batch in _batches(list(points.values())) for each in study.predict(batch)]
        if output is not None:
            words, point = next(iter(points.items()))
            study.plot_slices(point, along=along, title=words).savefig(output)
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
        from asktell.client import plots

        plots.importance(shares, study=name, method=METHODS[method]).savefig(output)
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
        from asktell.client import plots

        plots.validation(found, study=name).savefig(output)
    if as_json:
        _print_json([_of_left_out(left) for left in found])
        return
    worst = sorted(found, key=tables.surprise, reverse=True)[:WORST]
    lines = [_verdict(metric, [left for left in found if left.metric == metric]) for metric in metrics]
    tables.show("\n".join(lines), tables.left_out(worst, title="the most surprising"))


def _check(output: Path | None) -> None:
    """Before anything is computed: whether a picture can be drawn."""
    if output is not None:
        require_format(output)


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
    while ready := [spec for spec in waiting if holds(spec, kept)]:
        kept |= {spec.name: values[spec.name] for spec in ready}
        waiting = [spec for spec in waiting if spec.name not in kept]
    return {**kept, **given}


def _require_parameters(study: Study, along: Sequence[str]) -> None:
    for name in along:
        if name not in {spec.name for spec in study.parameters}:
            raise Unreadable(f"--along {name}: there is no such parameter")


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
