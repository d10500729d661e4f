"""`asktell study`: create, look at and change studies."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.text import Text

from asktell.cli import beliefs, dials, document, plots, tables
from asktell.cli.archive import Format, progress_bar, save, write
from asktell.cli.checkpoints import checkpoints
from asktell.cli.create import Dials, Goals, Labels, Limits, Order, Settings, labels
from asktell.cli.create import create as create_study
from asktell.cli.dials import Unreadable
from asktell.cli.enqueue import enqueue
from asktell.cli.failure import Refused
from asktell.cli.lineage import lineage
from asktell.cli.logs import logs
from asktell.cli.service import ANYWHERE, Json, Service
from asktell.cli.watching import Lines, changes_until_over, printer
from asktell.cli.widening import widened
from asktell.client import Study, StudyRecord, Trial, TrialRecord, TrialState

LATEST = 10
WATCH_RETRY_SECONDS = 300.0
"""How long a watch waits for a service that is away: nobody stands by."""
NO_DIALS, NO_GOALS, NO_LIMITS, NO_SETTINGS = Dials(), Goals(), Limits(), Settings()

HELP = """Create, look at and change studies.

For example: `asktell study list`
"""

app = App(name="study", help=HELP, help_format="markdown")
for _command in (
    enqueue,
    lineage,
    logs,
    checkpoints,
    beliefs.predict,
    beliefs.importance,
    beliefs.validate,
    plots.plot,
    plots.plot_curves,
    plots.plot_parallel,
    plots.plot_contour,
):
    app.command(_command)


@app.command
def create(
    name: str,
    /,
    *,
    spec: Path | None = None,
    dials: Dials = NO_DIALS,
    goals: Goals = NO_GOALS,
    limits: Limits = NO_LIMITS,
    settings: Settings = NO_SETTINGS,
    service: Service = ANYWHERE,
    as_json: Json = False,
) -> None:
    """Create a study.

    From a file, from options, or from both: the options add to the file's parameters and objectives, and stand in place of its other
    settings. The same study again is left as it is; one of the same name that differs is an error.

    A parameter that exists only under another says so:

    `--float "momentum=0:0.99 when optimizer=sgd"`

    For example:

    `asktell study create digits --float learning_rate=1e-5:1e-1:log --minimize loss`

    `asktell study show digits --json > digits.json`

    `asktell study create digits-2 --spec digits.json --max-trials 50 --seed 0`

    Parameters
    ----------
    name
        The study's name: letters, digits and `_ . -`.
    spec
        TOML or JSON, with the names that `asktell study show --json` prints.
    """
    draft = Order(spec=spec, dials=dials, goals=goals, limits=limits, settings=settings).draft()
    with service.client() as client:
        study = create_study(client, draft, name=name)
    # Its creation is a study's first change.
    _print_study(
        study, as_json=as_json, done="is created" if study.sequence == 1 else "was there already, and stays as it is"
    )


@app.command(name="list")
def list_(
    *,
    best: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    service: Service = ANYWHERE,
    as_json: Json = False,
) -> None:
    """List the studies of the project: how many trials are done, failed ones among them, and, with `--best`, what they came to.

    For example: `asktell study list --best`

    Parameters
    ----------
    best
        Show the value of each study's best trial too, of those with one objective: a call for each study.
    """
    with service.client() as client:
        studies = client.list_studies()
        found = {study.name: _best_of(study) for study in studies} if best else None
    records = [study.record for study in studies]
    if as_json:
        _print_json([{**document.of_study(record), **_document_of_best(record, found)} for record in records])
    elif records:
        tables.show(tables.studies(records, best=found))
    else:
        tables.show(f"project {service.project} has no studies: asktell study create --help")


def _best_of(study: Study) -> TrialRecord | None:
    """The best trial; None while there is none, and of several objectives."""
    best = study.best_trial if study.counts.succeeded and len(study.objectives) == 1 else None
    return None if best is None else best.record


def _document_of_best(study: StudyRecord, found: Mapping[str, TrialRecord | None] | None) -> dict[str, Any]:
    if found is None:
        return {}
    best = found[study.name]
    return {"best": None if best is None else document.of_trial(best)}


@app.command
def show(name: str, /, *, service: Service = ANYWHERE, as_json: Json = False) -> None:
    """Show a study: what is searched, how it stands, the best so far, and the latest trials.

    With `--json`, the study without its trials, as `--spec` takes it.

    For example: `asktell study show digits`

    Parameters
    ----------
    name
        The study.
    """
    with service.study(name) as study:
        if as_json:
            _print_json(document.of_study(study.record))
            return
        optimal, trials = study.optimal_trials(), study.list_trials()
    listed = {"best so far": _records(optimal), "latest trials": _records(trials[-LATEST:])}
    tables.show(
        tables.heading(study.record),
        tables.space(study.parameters),
        *(tables.trials(records, study.record, title=title) for title, records in listed.items() if records),
    )


@app.command
def best(name: str, /, *, service: Service = ANYWHERE, as_json: Json = False) -> None:
    """Show the best trial, or the Pareto front of several objectives, the best of the first objective first, and its hypervolume.

    With `--json`, a list of trials: empty while there is no best, one with one objective.

    For example: `asktell study best digits --json | jq '.[0].parameters'`

    Parameters
    ----------
    name
        The study.
    """
    with service.study(name) as study:
        optimal = _records(study.optimal_trials())
        hypervolume = study.hypervolume() if len(study.objectives) > 1 and not as_json else None
    if as_json:
        _print_json([document.of_trial(record) for record in optimal])
    elif not optimal:
        raise Refused(tables.no_best(study.record))
    elif len(study.objectives) == 1:
        tables.show(tables.best(optimal[0], study.record))
    else:
        first = study.objectives[0]
        ordered = sorted(
            optimal, key=lambda record: record.metrics[first.metric].value, reverse=first.goal == "maximize"
        )
        lines = [] if hypervolume is None else [tables.hypervolume(hypervolume, study.record)]
        tables.show(tables.trials(ordered, study.record, title="Pareto front"), *lines)


@app.command
def trials(
    name: str,
    /,
    *,
    state: Annotated[tuple[TrialState, ...], Parameter(negative=(), show_default=False)] = (),
    worker: Annotated[str, Parameter(show_default=False)] = "",
    service: Service = ANYWHERE,
    as_json: Json = False,
) -> None:
    """List the trials of a study. `asktell study export` has their measurements too.

    For example: `asktell study trials digits --state failed`

    Parameters
    ----------
    name
        The study.
    state
        Only trials in this state. May be repeated.
    worker
        Only trials that this worker holds or held last.
    """
    with service.study(name) as study:
        records = _records(study.list_trials(state, worker_id=worker))
    if as_json:
        _print_json([document.of_trial(record) for record in records])
    elif records:
        tables.show(tables.trials(records, study.record))
    else:
        tables.show(f"{name} has no such trials" if state or worker else f"{name} has no trials yet")


@app.command
def watch(
    name: str,
    /,
    *,
    after: Annotated[int | None, Parameter(show_default=False)] = None,
    format_: Annotated[Lines, Parameter(name="--format")] = "table",
    until_finished: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    service: Service = ANYWHERE,
) -> None:
    """Print each change of a study and its trials as it is made, until Ctrl-C.

    A service that restarts is waited for, up to five minutes, which is said, and nothing is missed.

    For example:

    `asktell study watch digits`

    `asktell study watch digits --after 0 --format jsonl | jq 'select(.trial.state == "succeeded").trial.metrics'`

    Parameters
    ----------
    name
        The study.
    after
        Begin after this sequence number: 0 with every trial that there is, by default with what changes from now on.
    format_
        `table`, a line a change for people, or `jsonl`, a JSON document a line, with the sequence number that `--after` takes.
    until_finished
        End when no trial is under way, and the study is finished or has spent its `--max-trials`.
    """
    with service.study(name):
        pass  # A service that was never there is not waited for.
    with service.study(name, retry_for=WATCH_RETRY_SECONDS) as study, suppress(KeyboardInterrupt):
        begin = study.sequence if after is None else after
        changes = changes_until_over(study, begin) if until_finished else study.watch(begin)
        with closing(changes):
            show_change = printer(format_)
            for change in changes:
                show_change(change)


@app.command
def export(
    name: str,
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"], show_default=False)] = None,
    format_: Annotated[Format, Parameter(name="--format")] = "jsonl",
    service: Service = ANYWHERE,
) -> None:
    """Write a study with all its trials and measurements to a file, as it stands at one moment.

    For example:

    `asktell study export digits --output digits.jsonl`

    `asktell study export digits --format csv > digits.csv`

    Parameters
    ----------
    name
        The study.
    output
        The file to write, which is replaced if it is there; standard output if absent.
    format_
        `jsonl` to be imported again, with everything that the service knows; `csv` for a spreadsheet: a row a trial.
    """
    with service.study(name) as study:
        if output is None:
            write(study, sys.stdout.buffer, format_)
            return
        with progress_bar(f"export {name}") as progress:
            count = save(study, output, format_, progress=progress)
    print(f"{name}: {count} trials in {output}", file=sys.stderr)


@app.command(name="import")
def import_(
    file: Path,
    /,
    *,
    name: str = "",
    service: Service = ANYWHERE,
    as_json: Json = False,
) -> None:
    """Make a study from a file of `asktell study export`, with its trials as they were; all of it or nothing.

    What was active is queued for the next worker. If there is an equal study of that name, it is left as it is.

    For example: `asktell study import digits.jsonl --name digits-2`

    Parameters
    ----------
    file
        The file, as jsonl.
    name
        The new study's name; that of the file if absent.
    """
    if file.suffix.lower() == ".csv":
        raise Unreadable(
            f"{file} is a table, without all that a study is; for its results: asktell study enqueue --help"
        )
    with service.client() as client, progress_bar(f"import {file.name}") as progress:
        study = client.import_study(file, name, progress=progress)
    _print_study(study, as_json=as_json, done="is as in the file")


@app.command
def delete(
    name: str,
    /,
    *,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative=(), show_default=False)] = False,
    service: Service = ANYWHERE,
) -> None:
    """Remove a study with all its trials, for good.

    For example: `asktell study delete digits --yes`

    Parameters
    ----------
    name
        The study.
    yes
        Do not ask.
    """
    with service.client() as client:
        study = client.get_study(name)
        if not yes:
            _confirm(f"Remove {study.name} with {sum(asdict(study.counts).values())} trials for good?")
        client.delete_study(name)
    print(f"{name} is removed", file=sys.stderr)


def _confirm(question: str) -> None:
    if not sys.stdin.isatty():
        raise Refused("nothing was removed: there is nobody to ask, say --yes")
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise Refused("nothing was removed")


@app.command
def update(
    name: str,
    /,
    *,
    limits: Limits = NO_LIMITS,
    stopping: str | None = None,
    label: Labels = (),
    remove_label: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = (),
    service: Service = ANYWHERE,
    as_json: Json = False,
) -> None:
    """Change a study's budget, stopping rule or labels; what is not given stays as it is, also what others change at the same time.

    `--label` adds a note or replaces the one of that key; all other notes stay.

    A study that had spent its budget hands out trials again; one that was paused or finished does so after `asktell study resume`.

    For example:

    `asktell study update digits --max-trials 100`

    `asktell study update digits --max-parallel 4 --label team=vision`

    `asktell study update digits --remove-label team`

    `asktell study update digits --stopping median:warmup_steps=5`

    Parameters
    ----------
    name
        The study.
    stopping
        What decides from now on that a trial may stop early, as for `create`; `none` for nothing.
    remove_label
        The key of a note to remove. May be repeated.
    """
    changes, notes = limits.given(), labels(label)
    both = [key for key in remove_label if key in notes]
    if both:
        raise Unreadable(f"--remove-label {both[0]!r}: --label sets it, give one of the two")
    if stopping is not None:
        changes["stopping_rule"] = None if stopping == "none" else dials.read_stopping_rule(stopping)
    if not (changes or notes or remove_label):
        raise Unreadable(
            "nothing to change: give --max-trials or another limit, --stopping RULE, --label KEY=VALUE or --remove-label KEY"
        )
    with service.study(name) as study:
        study.update(**changes, label_changes={**notes, **dict.fromkeys(remove_label)})
    if as_json:
        _print_json(document.of_study(study.record))
    else:
        tables.show(tables.heading(study.record))


@app.command
def widen(
    name: str,
    parameter: str,
    /,
    *,
    low: Annotated[str | None, Parameter(show_default=False, allow_leading_hyphen=True)] = None,
    high: Annotated[str | None, Parameter(show_default=False, allow_leading_hyphen=True)] = None,
    add_choice: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = (),
    service: Service = ANYWHERE,
    as_json: Json = False,
) -> None:
    """Make the range of a parameter wider while the study runs. Earlier trials stay in the model.

    For example:

    `asktell study widen digits learning_rate --high 1.0`

    `asktell study widen digits optimizer --add-choice lion`

    Parameters
    ----------
    name
        The study.
    parameter
        The parameter.
    low
        Its new lower bound.
    high
        Its new upper bound.
    add_choice
        One more choice, or value of an ordinal parameter: among numbers in order it takes its place, else it comes last. May be repeated.
    """
    with service.study(name) as study:
        study.update(parameters=widened(study.parameters, parameter, low=low, high=high, added=add_choice))
    if as_json:
        _print_json(document.of_study(study.record))
    else:
        tables.show(tables.space(study.parameters))


@app.command
def pause(name: str, /, *, service: Service = ANYWHERE, as_json: Json = False) -> None:
    """Hand out no trials for now; active ones go on.

    For example: `asktell study pause digits`

    Parameters
    ----------
    name
        The study.
    """
    with service.study(name) as study:
        study.pause()
    _print_study(study, as_json=as_json)


@app.command
def resume(name: str, /, *, service: Service = ANYWHERE, as_json: Json = False) -> None:
    """Hand out trials again, also of a finished study.

    For example: `asktell study resume digits`

    Parameters
    ----------
    name
        The study.
    """
    with service.study(name) as study:
        study.resume()
    _print_study(study, as_json=as_json)


@app.command
def finish(name: str, /, *, service: Service = ANYWHERE, as_json: Json = False) -> None:
    """Hand out no trials any more; active ones may still be told.

    For example: `asktell study finish digits`

    Parameters
    ----------
    name
        The study.
    """
    with service.study(name) as study:
        study.finish()
    _print_study(study, as_json=as_json)


def _print_study(study: Study, *, as_json: bool, done: str = "is") -> None:
    record: StudyRecord = study.record
    if as_json:
        _print_json(document.of_study(record))
    else:
        tables.show(Text(f"{study.name} {done}: {record.state.value}, trials: {tables.counted(record.counts)}"))


def _records(trials: Sequence[Trial]) -> list[Any]:
    return [trial.record for trial in trials]


def _print_json(content: object) -> None:
    print(json.dumps(content, ensure_ascii=False, indent=2))
