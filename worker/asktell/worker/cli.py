"""The command line of the worker: `asktell work`, or `python -m asktell.worker`."""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, NoReturn

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number

from asktell.cli import places
from asktell.cli.configurations import Reader
from asktell.cli.dials import Unreadable
from asktell.cli.failure import explain
from asktell.client import AskTellError, Client, InvalidArgument, Study
from asktell.client.trust import FAILURES_IN_A_ROW
from asktell.worker.checkpoints import Unwritable, kept_at
from asktell.worker.cluster.fleet import Fleet, Misplaced
from asktell.worker.cluster.options import HERE, Cluster, command_line, is_of_this_machine, option_name
from asktell.worker.command import CHECKPOINT_DIR, TRIAL_NUMBER, Template, TemplateError
from asktell.worker.course import Notices, Summary
from asktell.worker.devices import Devices, NoSuchGpu, find
from asktell.worker.evaluation import Evaluator, Limits, Unfit, Unusable
from asktell.worker.interruption import Interruption
from asktell.worker.logs import Logs
from asktell.worker.loop import Options, Retry, Undelivered, Worker
from asktell.worker.objective import Objective
from asktell.worker.pool import Pool
from asktell.worker.program import Program
from asktell.worker.slots import Slot, Unshareable, share, usable_cpus, variables
from asktell.worker.workplace import Passage, Workplace

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

    worker_id: Annotated[
        str | None,
        _help("The name of this worker; by default host and process id. Each of several slots adds its number."),
    ] = None
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
    max_failures_in_a_row: Annotated[
        int,
        NotNegative,
        _help(
            "Failed trials in a row after which this worker ends, if none of the study has ever succeeded: the objective is broken, most"
            " likely, and would spend the budget. What else broke at once goes back to the queue. 0 goes on."
        ),
    ] = FAILURES_IN_A_ROW
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
            "A directory that all workers see, or a URL such as `s3://bucket/path` (extra `checkpoints`), where each trial has a place of its"
            " own for its state, from which another worker resumes it."
        ),
    ] = None
    patience: Annotated[float, NotNegative, _help("Seconds to go on trying while the service is away.")] = 86_400.0
    interrupted_status: Annotated[
        int,
        Parameter(validator=Number(gte=0, lte=255)),
        _help(
            "Exit status after SIGTERM, for what starts a worker again only if it failed, such as a Job of Kubernetes."
        ),
    ] = 0
    end_with_stdin: Annotated[
        bool,
        Parameter(negative=(), show_default=False),
        _help("Give the trial back and end when standard input ends, as whoever started this worker does."),
    ] = False

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
            max_failures_in_a_row=self.max_failures_in_a_row,
            retry=self.retry,
            patience=self.patience,
            farewell=self.grace,
            fixed=Reader(study.parameters).fixed(self.fixed),
        )


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """How many trials at a time, and what each of them has of the machine."""

    slots: Annotated[
        int | None,
        Parameter(validator=Number(gte=1)),
        _help(
            "Trials at a time; by default one for each GPU, or one. They share the GPUs, and the CPUs, in equal parts."
        ),
    ] = None
    gpus: Annotated[
        str,
        _help(
            "The GPUs for trials: `auto` for all that are visible, `none`, or numbers and UUIDs separated by commas. A trial sees its own in"
            " CUDA_VISIBLE_DEVICES."
        ),
    ] = "auto"
    cpus_per_trial: Annotated[
        int | None,
        Parameter(validator=Number(gte=1)),
        _help("CPUs that a trial's libraries shall use (OMP_NUM_THREADS and its like); by default an equal part."),
    ] = None

    def devices(self) -> Devices:
        """The GPUs for trials, or NoSuchGpu."""
        return find(self.gpus, os.environ)

    def slots_on(self, devices: Devices) -> tuple[Slot, ...]:
        """The slots, or Unshareable."""
        several = self.slots != 1 and (self.slots or len(devices.names)) > 1
        return share(
            devices.names,
            slots=self.slots,
            cpus_per_trial=self.cpus_per_trial,
            usable_cpus=usable_cpus() if several else 1,
        )


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What becomes of the output of trials."""

    logs: Annotated[
        str | None,
        Parameter(env_var="ASKTELL_LOGS"),
        _help(
            "The directory for what trials write, as `PROJECT/STUDY/trial-N.log`; `none` for no logs. By default one of this user's."
            " `asktell study logs` shows them."
        ),
    ] = None
    log_limit: Annotated[
        float, Positive, _help("Megabytes that are kept of what one attempt writes: the beginning and the end.")
    ] = 100.0
    quiet: Annotated[
        bool,
        Parameter(negative=(), show_default=False),
        _help(
            "Pass no output of trials on. By default it is, with the trial's number before each line if there are several slots."
        ),
    ] = False

    @property
    def root(self) -> Path | None:
        """The directory of the logs."""
        return None if self.logs == places.NO_LOGS else places.logs(self.logs)

    def logs_of(self, worker_id: str) -> Logs | None:
        """The logs of a slot's trials."""
        return None if self.root is None else Logs(self.root, worker_id, limit=int(self.log_limit * 1e6))

    def passage(self, slots: int) -> Passage:
        """How output comes to the worker's own."""
        return "none" if self.quiet else "plain" if slots == 1 else "prefixed"


AS_USUAL, ONE_EACH, WRITTEN = Manner(), Sharing(), Written()


def work(
    *objective: str,
    place: Place,
    manner: Manner = AS_USUAL,
    sharing: Sharing = ONE_EACH,
    written: Written = WRITTEN,
    cluster: Cluster = HERE,
) -> int:
    """Work on a study: ask for a trial, evaluate it, tell the result, until the study hands out no more.

    OBJECTIVE is a Python function as `module:function`, or a command line of any language after `--`.

    For example:

    `asktell work --study digits train:objective`

    `asktell work --study digits -- python train.py --lr {learning_rate}`

    `asktell work --study digits -- ./run.sh {batch_size} '[--momentum {momentum}]'`

    The function is called as `objective(parameters, trial)`. It returns a number, a mapping of metrics to numbers or to pairs of value and
    standard error, or None after `trial.tell`; `trial.report(step=3, accuracy=0.9).should_stop` says whether to end early.

    In a command line `{name}` is a parameter, `{trial.number}` the trial's number, `{metrics_file}` a file for the metrics,
    `{checkpoint_dir}` a directory for its state; brackets are left out when a parameter in them is inactive. The command prints JSON:
    `{"step": 3, "accuracy": 0.9}` on the way, `{"accuracy": 0.93}` in the end. It finds the same in ASKTELL_PARAMETERS (JSON),
    ASKTELL_PARAM_LEARNING_RATE and so on, ASKTELL_TRIAL, ASKTELL_METRICS_FILE and ASKTELL_CHECKPOINT_DIR; values of 100 kB and more are
    only in the JSON of ASKTELL_PARAMETERS_FILE. It exits with 0, or the trial has failed.

    With `--checkpoints ROOT` each trial has a directory for its state, a function's in `trial.checkpoint_dir`. What an attempt leaves there
    the next one finds there, wherever it runs.

    Several trials run side by side in `--slots`, each with its part of the GPUs: `asktell work --slots 4 --gpus 0,1 …` runs two on each.
    What they write is in log files, which `asktell study logs STUDY TRIAL --follow` shows.

    On a cluster, Ray or Slurm runs such workers: `asktell work --on ray --workers 8 --gpus-per-trial 1 --study digits train:objective`.

    SIGTERM, SIGHUP or Ctrl-C ends the trials and gives them back; a second Ctrl-C ends the worker at once.

    Until a trial of the study has succeeded, three that fail in a row end the worker (`--max-failures-in-a-row`), with the last output.
    NaN is no result: a trial whose objective is NaN has failed.

    The exit status is 0, or 1 if trials failed and none brought metrics, or if the service refused or could not be reached.

    Parameters
    ----------
    objective
        `module:function`, or a command line after `--`.
    """
    if cluster.misplaced:
        where = "goes only with --on" if cluster.on is None else f"does not go with --on {cluster.on}"
        return _complain(Misused(f"{option_name(cluster.misplaced)} {where}"), 2)
    _log_to_stderr()
    # The worker says itself when the service is away, once and on standard error.
    logging.getLogger("asktell.client.retries").setLevel(logging.ERROR)
    command = Command(objective, place, manner, sharing, written)
    return _work_here(command) if cluster.on is None else _work_elsewhere(command, cluster)


@dataclass(frozen=True, slots=True)
class Command:
    """The command line of one worker."""

    objective: tuple[str, ...]
    place: Place
    manner: Manner
    sharing: Sharing
    written: Written

    def crew(self, client: Client, interruption: Interruption) -> Crew:
        """What works on it. AskTellError if there is no such study, Unreadable for parameters that it does not have."""
        study = client.get_study(self.place.study)
        return Crew(
            study=study,
            objective=self.objective,
            manner=self.manner,
            options=self.manner.options(study),
            interruption=interruption,
            client=client,
        )

    def client(self) -> Client:
        """A client of the service."""
        return Client(self.place.target, project=self.place.project, retry_for=RETRY_SECONDS)


def _work_here(command: Command) -> int:
    interruption = Interruption()
    if command.manner.end_with_stdin:
        interruption.on_end_of(sys.stdin.fileno())
    with interruption.on_signals(), command.client() as client:
        try:
            summary = command.crew(client, interruption).work(command.sharing, command.written)
        except (Misused, TemplateError, Unreadable, NoSuchGpu, Unshareable, Unfit, places.Homeless) as error:
            return _complain(error, 2)
        except (AskTellError, Unusable, Unwritable, Undelivered) as error:
            return _complain(error, 1)
    logging.getLogger("asktell.worker").info("done: %s", summary)
    if interruption.wished:
        return 130 if interruption.by_keyboard else command.manner.interrupted_status
    _say_why_it_gave_up(summary)
    only_failures = _only_failures(summary, command.place.study)
    return 1 if summary.stopped_by_failure or only_failures else 0


def _work_elsewhere(command: Command, cluster: Cluster) -> int:
    """Place workers on a cluster and follow them to their end."""
    from asktell.worker.cluster.lead import lead

    command = replace(command, sharing=replace(command.sharing, slots=command.sharing.slots or 1))
    try:
        fleet = _fleet(command, cluster)
        if cluster.may_be_elsewhere and is_of_this_machine(command.place.target):
            logging.getLogger("asktell.worker").warning(
                "workers on other machines do not reach the service at %s, which each takes for its own machine: give --target the name"
                " or the address of this one",
                command.place.target,
            )
        with command.client() as client:
            crew = command.crew(client, Interruption())
            # What each worker would refuse is refused here, once.
            crew.check(slots=command.sharing.slots or 1)
            return lead(fleet, cluster, study=crew.study)
    except (Misused, TemplateError, Unreadable) as error:
        return _complain(error, 2)
    except (AskTellError, Misplaced) as error:
        return _complain(error, 1)


def _fleet(command: Command, cluster: Cluster) -> Fleet:
    manner, sharing = command.manner, command.sharing
    if manner.worker_id is not None:
        raise Misused("--worker-id is for one worker: on a cluster each is named by its host and process")
    if manner.max_trials is not None:
        raise Misused(
            "--max-trials counts the trials of one worker, and anew after each of its starts: on a cluster bound the study, by"
            f" asktell study update {command.place.study} --max-trials N"
        )
    root = manner.checkpoints
    if root is not None and "://" not in root and not Path(root).is_absolute():
        raise Misused(
            f"--checkpoints {root} is relative, and workers elsewhere have other directories: give the whole path"
        )
    slots = sharing.slots or 1
    return Fleet(
        study=command.place.study,
        # To end when it is told to is no failure on an engine that does the telling.
        arguments=command_line(
            command.objective, command.place, replace(manner, interrupted_status=0), sharing, command.written
        ),
        workers=cluster.workers,
        cpus=(sharing.cpus_per_trial or 1) * slots,
        gpus=cluster.gpus_per_trial * slots,
        grace=manner.grace,
        whole=manner.on_error == "continue",
    )


def _say_why_it_gave_up(summary: Summary) -> None:
    if summary.last_failure:
        print(
            f"asktell work: {summary.reason}: this worker ends, lest all of them do; --max-failures-in-a-row 0 goes on."
            f"\nThe last one was {summary.last_failure}",
            file=sys.stderr,
        )


def _only_failures(summary: Summary, study: str) -> bool:
    """Whether no trial came to metrics while some failed: most likely all that will come here do. It is said, for a log is easily missed."""
    failed, good = summary.outcomes["failed"], summary.outcomes["succeeded"] + summary.outcomes["stopped"]
    if good or not failed:
        return False
    total = summary.outcomes.total() - summary.outcomes["released"]
    print(
        f"asktell work: {failed} of {total} attempts failed and none succeeded; why: asktell study trials {study} --state failed",
        file=sys.stderr,
    )
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """Makes the slots of a worker and what each of them needs."""

    study: Study
    objective: Sequence[str]
    manner: Manner
    options: Options
    interruption: Interruption
    client: Client

    def work(self, sharing: Sharing, written: Written) -> Summary:
        """Work until all slots have ended. Misused, TemplateError, NoSuchGpu or Unshareable if they cannot even begin."""
        devices = sharing.devices()
        slots = sharing.slots_on(devices)
        self.check(slots=len(slots))
        _announce(slots, devices, written)
        course, notices, trust = self.options.course(), Notices(), self.options.trust(self.study)
        workers = []
        for slot in slots:
            options = self.options if len(slots) == 1 else self.options.of_slot(slot.index)
            workplace = Workplace(
                {**variables(slot, devices, os.environ), **self._place()},
                written.passage(len(slots)),
                written.logs_of(options.worker_id),
            )
            workers.append(
                Worker(
                    self.study,
                    self._evaluator(workplace),
                    options=options,
                    interruption=self.interruption,
                    course=course,
                    notices=notices,
                    trust=trust,
                )
            )
        Pool(workers, interruption=self.interruption).run()
        return course.summary

    def _place(self) -> dict[str, str]:
        """Where a training finds the service itself."""
        return {"ASKTELL_TARGET": self.client.target, "ASKTELL_PROJECT": self.client.project}

    @property
    def _function(self) -> str:
        """The objective, if it is a Python function."""
        only = self.objective[0] if len(self.objective) == 1 else ""
        return only if _FUNCTION.fullmatch(only) else ""

    def check(self, *, slots: int) -> None:
        """Misused or TemplateError if no trial of the study could be evaluated so."""
        if not self.objective:
            raise Misused("name an objective: module:function, or a command line after --")
        if self._function:
            self._check_function()
            return
        command = Template.parse(self.objective)
        _check(command, self.study)
        if command.mentions(CHECKPOINT_DIR) and self.manner.checkpoints is None:
            raise Misused(f"{{{CHECKPOINT_DIR}}} has a value only with --checkpoints ROOT")
        if self.manner.metrics_file is None:
            return
        template = Template.parse([self.manner.metrics_file])
        _check(template, self.study)
        if slots > 1 and TRIAL_NUMBER not in template.groups[0].fields:
            raise Misused(
                f"--metrics-file {self.manner.metrics_file} would be that of {slots} trials at a time: put {{trial.number}} into it"
            )

    def _check_function(self) -> None:
        if self.manner.metrics_file is not None:
            raise Misused(
                f"--metrics-file is for command lines; {self._function} is a function and returns its metrics"
            )
        if self.manner.infeasible_exit_code:
            raise Misused(
                f"--infeasible-exit-code is for command lines; {self._function} is a function: trial.infeasible"
            )

    def _evaluator(self, workplace: Workplace) -> Evaluator:
        checkpoints = kept_at(self.manner.checkpoints, project=self.client.project, study=self.study.id)
        if self._function:
            return Objective(
                self._function,
                objectives=self.study.metrics,
                limits=self.manner.limits,
                interruption=self.interruption,
                checkpoints=checkpoints,
                workplace=workplace,
            )
        return Program(
            Template.parse(self.objective),
            objectives=self.study.metrics,
            limits=self.manner.limits,
            interruption=self.interruption,
            study=self.study.id,
            metrics_file=self.manner.metrics_file,
            infeasible=frozenset(self.manner.infeasible_exit_code),
            checkpoints=checkpoints,
            workplace=workplace,
        )


def _announce(slots: Sequence[Slot], devices: Devices, written: Written) -> None:
    parts = [f"{len(slots)} slots" if len(slots) > 1 else "1 slot"]
    if devices.names:
        parts.append(f"GPU {', '.join(devices.names)}")
    if slots[0].cpus is not None:
        parts.append(f"{slots[0].cpus} CPU{'s' if slots[0].cpus > 1 else ''} a trial")
    parts.append("no logs" if written.root is None else f"logs in {written.root}")
    logging.getLogger("asktell.worker").info("%s", "; ".join(parts))


def _check(template: Template, study: Study) -> None:
    conditions = {
        parameter.name: f"{parameter.when[0]} is {' or '.join(map(str, parameter.when[1]))}"
        for parameter in study.parameters
        if parameter.when is not None
    }
    always = [parameter.name for parameter in study.parameters if parameter.name not in conditions]
    template.check(always=always, sometimes=conditions)


def _complain(error: Exception, status: int) -> int:
    explained = explain(error)
    print(f"asktell work: {error if explained is None else explained[0]}", file=sys.stderr)
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
    except (CycloptsError, InvalidArgument) as error:  # Of the client: a target that is none.
        status = _complain(error, 2)
    sys.exit(status)
