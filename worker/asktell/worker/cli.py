"""The command line of the worker: `asktell work`, or `python -m asktell.worker`."""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NoReturn

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number

from asktell.cli.configurations import Reader
from asktell.cli.dials import Unreadable
from asktell.client import AskTellError, Client, Study
from asktell.worker.checkpoints import kept_at
from asktell.worker.command import CHECKPOINT_DIR, Template, TemplateError
from asktell.worker.evaluation import Evaluator, Limits, Unusable
from asktell.worker.interruption import Interruption
from asktell.worker.loop import Options, Retry, Summary, Undelivered, Worker
from asktell.worker.objective import Objective
from asktell.worker.program import Program

RETRY_SECONDS = 5.0
"""How long one call is repeated while the service is away; beyond that the loop goes on trying, where a signal can end it."""

_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")

Positive = Parameter(validator=Number(gt=0))
NotNegative = Parameter(validator=Number(gte=0))


def _help(text: str) -> Parameter:
    return Parameter(help=text)


class Misused(Exception):
    """The command line makes no sense for this study."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Which study, and where."""

    study: Annotated[str, Parameter(help="The study to work on.")]
    target: Annotated[str, Parameter(env_var="ASKTELL_TARGET", help="Where the service listens.")] = "localhost:50051"
    project: Annotated[str, Parameter(env_var="ASKTELL_PROJECT", help="The namespace of the study.")] = "default"


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How to work."""

    worker_id: Annotated[str | None, _help("The name of this worker; by default host and process id.")] = None
    lease_duration: Annotated[
        float | None,
        Positive,
        _help("Seconds of silence after which the service gives the trial to another worker; by default the study's."),
    ] = None
    fixed: Annotated[
        tuple[str, ...],
        Parameter(negative=(), show_default=False),
        _help("Only trials with this, as `NAME=VALUE`, such as `device=gpu`. May be repeated."),
    ] = ()
    max_trials: Annotated[
        int | None, Parameter(validator=Number(gte=1)), _help("Trials after which this worker ends.")
    ] = None
    on_error: Annotated[Literal["continue", "stop"], _help("Whether to go on after a failed trial.")] = "continue"
    retry: Annotated[
        Retry,
        _help(
            "Which failed trials another worker may try again, while they have attempts left: those whose training was killed by SIGKILL,"
            " SIGTERM, SIGHUP or SIGINT from outside (no memory, preemption), all that failed, or none."
        ),
    ] = "killed"
    infeasible_exit_code: Annotated[
        tuple[int, ...],
        Parameter(negative=(), show_default=False, validator=Number(gte=1, lte=255)),
        _help("An exit status by which the command says that the parameters cannot work. May be repeated."),
    ] = ()
    metrics_file: Annotated[
        str | None, _help("Where the command leaves its metrics as JSON, with fields as in the command line.")
    ] = None
    timeout: Annotated[float | None, Positive, _help("Seconds that a trial may run; a longer one fails.")] = None
    grace: Annotated[float, NotNegative, _help("Seconds between SIGTERM and SIGKILL when a trial has to end.")] = 10.0
    silence: Annotated[
        float | None,
        Positive,
        _help(
            "Seconds without word from the service after which a training is ended, its trial taken for lost; by default it goes on, for"
            " nobody may have taken the trial."
        ),
    ] = None
    checkpoints: Annotated[
        str | None,
        Parameter(env_var="ASKTELL_CHECKPOINTS"),
        _help(
            "A directory that all workers see, where each trial has one of its own for its state, from which another worker resumes it."
        ),
    ] = None
    patience: Annotated[float, NotNegative, _help("Seconds to go on trying while the service is away.")] = 86_400.0

    @property
    def limits(self) -> Limits:
        """How long a trial may run, and how long it may take to end."""
        return Limits(timeout=self.timeout, grace=self.grace, silence=self.silence)

    def options(self, study: Study) -> Options:
        """What the loop goes by. Unreadable for fixed parameters that the study does not have."""
        return Options(
            worker_id=self.worker_id or f"{socket.gethostname()}-{os.getpid()}",
            lease_duration=self.lease_duration,
            max_trials=self.max_trials,
            on_error=self.on_error,
            retry=self.retry,
            patience=self.patience,
            farewell=self.grace,
            fixed=Reader(study.parameters).fixed(self.fixed),
        )


AS_USUAL = Manner()


def work(*objective: str, place: Place, manner: Manner = AS_USUAL) -> int:
    """Work on a study: ask for a trial, evaluate it, tell the result, until the study hands out no more.

    OBJECTIVE is a Python function as `module:function`, or a command line of any language after `--`.

    For example:

    `asktell work --study digits train:objective`

    `asktell work --study digits -- python train.py --lr {lr}`

    `asktell work --study digits -- ./train.sh {lr} '[--momentum {momentum}]'`

    The function is called as `objective(parameters, trial)`. It returns a number, a mapping of metrics to numbers or to pairs of value and
    standard error, or None after `trial.tell`; `trial.report(step=3, accuracy=0.9).should_stop` says whether to end early.

    In a command line `{name}` is a parameter, `{trial.number}` the trial's number, `{metrics_file}` a file for the metrics,
    `{checkpoint_dir}` a directory for its state; brackets are left out when a parameter in them is inactive. The command prints JSON:
    `{"step": 3, "accuracy": 0.9}` on the way, `{"accuracy": 0.93}` in the end. It finds the same in ASKTELL_PARAMETERS (JSON),
    ASKTELL_PARAM_LEARNING_RATE and so on, ASKTELL_TRIAL, ASKTELL_METRICS_FILE and ASKTELL_CHECKPOINT_DIR; values of 100 kB and more are
    only in the JSON of ASKTELL_PARAMETERS_FILE. It exits with 0, or the trial has failed.

    With `--checkpoints ROOT` each trial has a directory for its state, a function's in `trial.checkpoint_dir`. What an attempt leaves there
    the next one finds there, wherever it runs.

    SIGTERM or Ctrl-C ends the trial and gives it back; a second Ctrl-C ends the worker at once.

    The exit status is 0, or 1 if trials failed and none brought metrics, or if the service refused or could not be reached.

    Parameters
    ----------
    objective
        `module:function`, or a command line after `--`.
    """
    _log_to_stderr()
    # The worker says itself when the service is away, once and on standard error.
    logging.getLogger("asktell.client.retries").setLevel(logging.ERROR)
    interruption = Interruption()
    with interruption.on_signals(), Client(place.target, project=place.project, retry_for=RETRY_SECONDS) as client:
        try:
            study = client.get_study(place.study)
            evaluator = _evaluator(study, objective, place=place, manner=manner, interruption=interruption)
            summary = Worker(study, evaluator, options=manner.options(study), interruption=interruption).run()
        except (Misused, TemplateError, Unreadable) as error:
            return _complain(error, 2)
        except (AskTellError, Unusable, Undelivered) as error:
            return _complain(error, 1)
    logging.getLogger("asktell.worker").info("done: %s", summary)
    if interruption.wished:
        return 130 if interruption.by_keyboard else 0
    return 1 if summary.stopped_by_failure or _only_failures(summary, place.study) else 0


def _only_failures(summary: Summary, study: str) -> bool:
    """Whether no trial came to metrics while some failed: most likely all that will come here do. It is said, for a log is easily missed."""
    failed, good = summary.outcomes["failed"], summary.outcomes["succeeded"] + summary.outcomes["stopped"]
    if good or not failed:
        return False
    total = summary.outcomes.total()
    print(
        f"asktell work: {failed} of {total} trials failed and none succeeded; why: asktell study trials {study} --state failed",
        file=sys.stderr,
    )
    return True


def _evaluator(
    study: Study, objective: Sequence[str], *, place: Place, manner: Manner, interruption: Interruption
) -> Evaluator:
    checkpoints = kept_at(manner.checkpoints, project=place.project, study=study.id)
    if not objective:
        raise Misused("name an objective: module:function, or a command line after --")
    if len(objective) == 1 and _FUNCTION.fullmatch(objective[0]):
        if manner.metrics_file is not None:
            raise Misused(f"--metrics-file is for command lines; {objective[0]} is a function and returns its metrics")
        if manner.infeasible_exit_code:
            raise Misused(
                f"--infeasible-exit-code is for command lines; {objective[0]} is a function: trial.infeasible"
            )
        return Objective(
            objective[0],
            objectives=study.metrics,
            limits=manner.limits,
            interruption=interruption,
            checkpoints=checkpoints,
        )
    template = Template.parse(objective)
    _check(template, study)
    if template.mentions(CHECKPOINT_DIR) and manner.checkpoints is None:
        raise Misused(f"{{{CHECKPOINT_DIR}}} has a value only with --checkpoints ROOT")
    if manner.metrics_file is not None:
        _check(Template.parse([manner.metrics_file]), study)
    return Program(
        template,
        objectives=study.metrics,
        limits=manner.limits,
        interruption=interruption,
        study=study.id,
        metrics_file=manner.metrics_file,
        infeasible=frozenset(manner.infeasible_exit_code),
        checkpoints=checkpoints,
    )


def _check(template: Template, study: Study) -> None:
    conditions = {
        parameter.name: f"{parameter.when[0]} is {' or '.join(map(str, parameter.when[1]))}"
        for parameter in study.parameters
        if parameter.when is not None
    }
    always = [parameter.name for parameter in study.parameters if parameter.name not in conditions]
    template.check(always=always, sometimes=conditions)


def _complain(error: Exception, status: int) -> int:
    print(f"asktell work: {error}", file=sys.stderr)
    return status


def _log_to_stderr() -> None:
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("asktell").setLevel(logging.INFO)


app = App(name="asktell-worker", help_format="markdown")
app.default(work)


def main() -> NoReturn:
    """`python -m asktell.worker`."""
    try:
        status = app(sys.argv[1:], print_error=False, exit_on_error=False, result_action="return_value")
    except CycloptsError as error:
        status = _complain(error, 2)
    sys.exit(status)
