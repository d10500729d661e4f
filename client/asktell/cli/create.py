"""`asktell study create`: a study from a file, from options, or from both."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from asktell.cli import dials, specfile
from asktell.cli.dials import Unreadable
from asktell.cli.document import Draft
from asktell.cli.failure import Refused
from asktell.client import AtLeast, AtMost, Client, Fidelity, InvalidArgument, Maximize, Minimize, Population, Study
from asktell.client.spec import Objective, OutcomeConstraint, ParameterSpec
from asktell.client.stopping import STOPPING_RULES, StoppingRule

SPACE = Group("What is searched (each may be repeated)", sort_key=1)
GOALS = Group("For what (each may be repeated)", sort_key=2)
BUDGET = Group("With how much", sort_key=3)

Texts = tuple[str, ...]
Many = Parameter(negative=(), show_default=False)
AtLeastOne = Parameter(validator=Number(gte=1))
Positive = Parameter(validator=Number(gt=0))


def _help(text: str) -> Parameter:
    return Parameter(help=text)


Labels = Annotated[Texts, Many, _help("A note, as `KEY=VALUE`. May be repeated.")]


@Parameter(name="*", group=SPACE)
@dataclass(frozen=True, slots=True, kw_only=True)
class Dials:
    """The parameters, and what holds between them."""

    float_: Annotated[
        Texts,
        Many,
        Parameter(name="--float"),
        _help("Real numbers: `learning_rate=1e-5:1e-1:log`, `dropout=0:0.5:0.1` in steps."),
    ] = ()
    int_: Annotated[
        Texts, Many, Parameter(name="--int"), _help("Whole numbers: `layers=1:4`, `width=16:1024:log`.")
    ] = ()
    ordinal: Annotated[Texts, Many, _help("Values in their order: `batch_size=16,32,64`.")] = ()
    categorical: Annotated[
        Texts,
        Many,
        _help("Choices: `optimizer=sgd,adam`. Numbers, true, false and null are such; in quotes they are text."),
    ] = ()
    bool_: Annotated[
        Texts,
        Many,
        Parameter(name="--bool"),
        _help(
            "True or false: `nesterov`. Any of these may end in `when optimizer=sgd`, as `momentum=0:0.99 when optimizer=sgd`."
        ),
    ] = ()

    constraint: Annotated[
        Texts,
        Many,
        _help("What holds between the parameters of every trial: `a + 2*b <= 1`, `width * depth <= 512`."),
    ] = ()

    def parameters(self) -> tuple[ParameterSpec, ...]:
        """The parameters, or Unreadable."""
        flags = {
            "--float": self.float_,
            "--int": self.int_,
            "--ordinal": self.ordinal,
            "--categorical": self.categorical,
            "--bool": self.bool_,
        }
        return tuple(dials.read(flag, text) for flag, texts in flags.items() for text in texts)


@Parameter(name="*", group=GOALS)
@dataclass(frozen=True, slots=True, kw_only=True)
class Goals:
    """The objectives, and the bounds on other metrics."""

    minimize: Annotated[
        Texts,
        Many,
        _help(
            "A metric of which smaller is better: `loss`, or `latency_ms=100` with the value that is just bad enough to be worthless."
        ),
    ] = ()
    maximize: Annotated[Texts, Many, _help("A metric of which larger is better: `accuracy`, or `accuracy=0.5`.")] = ()
    at_most: Annotated[Texts, Many, _help("A bound that feasible trials keep: `latency_ms=50`.")] = ()
    at_least: Annotated[Texts, Many, _help("A bound that feasible trials keep: `recall=0.9`.")] = ()

    def objectives(self) -> tuple[Objective, ...]:
        """The objectives, those to minimise first; or Unreadable."""
        return (
            *(Minimize(*_reference("--minimize", text)) for text in self.minimize),
            *(Maximize(*_reference("--maximize", text)) for text in self.maximize),
        )

    def constraints(self) -> tuple[OutcomeConstraint, ...]:
        """The bounds, or Unreadable."""
        return (
            *(AtMost(*_bound("--at-most", text)) for text in self.at_most),
            *(AtLeast(*_bound("--at-least", text)) for text in self.at_least),
        )


@Parameter(name="*", group=BUDGET)
@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The budget."""

    max_trials: Annotated[int | None, AtLeastOne, _help("Trials in all.")] = None
    max_failures: Annotated[int | None, AtLeastOne, _help("Failed trials after which no more are handed out.")] = None
    max_parallel: Annotated[int | None, AtLeastOne, _help("Trials at one time.")] = None
    max_duration: Annotated[float | None, Positive, _help("Seconds after which no more trials are handed out.")] = None

    def given(self) -> dict[str, Any]:
        """The limits that were given."""
        duration = None if self.max_duration is None else timedelta(seconds=self.max_duration)
        return _given(
            max_trials=self.max_trials,
            max_failures=self.max_failures,
            max_parallel=self.max_parallel,
            max_duration=duration,
        )


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All else about a study."""

    seed: Annotated[int | None, _help("Makes the choice of candidates repeatable.")] = None
    policy: Annotated[
        str | None,
        _help(
            "What chooses candidates: `auto` (`gp`, or `evolution` for a study too large for it), `gp` (a Gaussian process: the fewest"
            " trials), `gp-botorch` (the same course on BoTorch, on the server's torch device), `evolution` (thousands of trials), `cma-es`"
            " (numbers, hundreds of trials), `grid` (every cell once), `sobol` (an even spread), `random`, `pbt` (population based"
            " training: parameters that change while a training goes on)."
        ),
    ] = None
    lease_duration: Annotated[float | None, Positive, _help("Seconds that a worker's claim lasts without renewal.")] = (
        None
    )
    max_attempts: Annotated[
        int | None, AtLeastOne, _help("How many workers may break on a trial before it has failed.")
    ] = None
    stopping: Annotated[
        str | None,
        _help(
            f"What decides that a trial may stop early: {', '.join(STOPPING_RULES)}, with its options as"
            " `percentile:percentile=25,warmup_steps=3`, `hyperband:max_step=81`, `median:metric=validation_loss,goal=minimize`."
        ),
    ] = None
    fidelity: Annotated[
        str | None,
        _help(
            "The parameter that makes trials cheaper, as `epochs` or `epochs:3`: all start with few epochs, and of those that come to a"
            " rung the best third go on to three times as many."
        ),
    ] = None
    population: Annotated[
        int | None,
        _help(
            "With `--policy pbt`, how many trainings go on side by side; 8 if not given. A file can say more about them."
        ),
    ] = None
    noisy: Annotated[bool, _help("The same parameters give another result each time.")] = False
    warm_start: Annotated[
        Texts,
        Many,
        _help(
            "An earlier study to start from: what it found is tried early, and counts as far as it explains the results."
        ),
    ] = ()
    label: Labels = ()

    def given(self) -> dict[str, Any]:
        """The settings that were given."""
        return _given(
            seed=self.seed,
            policy=self.policy,
            lease_duration=self.lease_duration,
            max_attempts=self.max_attempts,
            noisy=self.noisy or None,
            warm_start=self.warm_start or None,
        )

    def stopping_rule(self) -> StoppingRule | None:
        """The stopping rule, or Unreadable."""
        return None if self.stopping is None else dials.read_stopping_rule(self.stopping)

    def raised(self) -> Fidelity | None:
        """The fidelity, or Unreadable."""
        return None if self.fidelity is None else dials.read_fidelity(self.fidelity)

    def crowd(self, draft: Population | None) -> Population | None:
        """The file's population, of the size that was given."""
        return draft if self.population is None else replace(draft or Population(), size=self.population)

    def labels(self) -> dict[str, str]:
        """The notes, or Unreadable."""
        return labels(self.label)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What was typed."""

    spec: Path | None
    dials: Dials
    goals: Goals
    limits: Limits
    settings: Settings

    def draft(self) -> Draft:
        """The study that was described; Unreadable or Malformed if none was."""
        draft = Draft() if self.spec is None else specfile.read(self.spec)
        return _complete(
            replace(
                draft,
                parameters=(*draft.parameters, *self.dials.parameters()),
                constraints=(*draft.constraints, *self.dials.constraint),
                objectives=(*draft.objectives, *self.goals.objectives()),
                outcome_constraints=(*draft.outcome_constraints, *self.goals.constraints()),
                stopping_rule=self.settings.stopping_rule() or draft.stopping_rule,
                fidelity=self.settings.raised() or draft.fidelity,
                population=self.settings.crowd(draft.population),
                budget=replace(draft.budget, **self.limits.given()),
                labels={**draft.labels, **self.settings.labels()},
                settings={**draft.settings, **self.settings.given()},
            )
        )


def create(client: Client, draft: Draft, *, name: str) -> Study:
    """Create the study; what the service finds wrong with an option is said with its name."""
    budget = draft.budget
    try:
        return client.create_study(
            name,
            parameters=draft.parameters,
            constraints=draft.constraints,
            objectives=draft.objectives,
            outcome_constraints=draft.outcome_constraints,
            stopping_rule=draft.stopping_rule,
            fidelity=draft.fidelity,
            population=draft.population,
            max_trials=budget.max_trials,
            max_duration=budget.max_duration,
            max_failures=budget.max_failures,
            max_parallel=budget.max_parallel,
            labels=draft.labels,
            **draft.settings,
        )
    except InvalidArgument as error:
        raise Refused(_as_typed(str(error))) from error


_OPTION = re.compile(r"^(max_trials|max_failures|max_parallel|max_duration|lease_duration|max_attempts|policy|seed)\b")


def _as_typed(message: str) -> str:
    """A message of the client with the names that were typed in place of its arguments."""
    said = re.sub(r"^constraints\[\d+\]: ", "constraint ", message)
    said = _OPTION.sub(lambda found: f"--{found[1].replace('_', '-')}", said)
    return re.sub(r"^study_id: ", "the name ", re.sub(r"^labels(\[(.*?)\])?", r"--label \2", said))


def labels(texts: Texts) -> dict[str, str]:
    """Notes as they were typed, or Unreadable."""
    return dict(map(_label, texts))


def _given(**options: object) -> dict[str, Any]:
    return {name: option for name, option in options.items() if option is not None}


def _label(text: str) -> tuple[str, str]:
    key, equals, note = text.partition("=")
    if not (key and equals):
        raise Unreadable(f"--label {text!r}: expected KEY=VALUE, such as team=vision")
    return key, note


def _reference(flag: str, text: str) -> tuple[str, float | None]:
    metric, equals, _ = text.partition("=")
    return _bound(flag, text) if equals else (metric, None)


def _bound(flag: str, text: str) -> tuple[str, float]:
    metric, _, number = text.partition("=")
    try:
        return metric, float(number)
    except ValueError:
        raise Unreadable(f"{flag} {text!r}: expected METRIC=NUMBER, such as latency_ms=50") from None


def _complete(draft: Draft) -> Draft:
    if not draft.parameters:
        raise Unreadable(
            "a study has parameters: give --float, --int, --ordinal, --categorical or --bool, or --spec FILE"
        )
    if not draft.objectives:
        raise Unreadable("a study has an objective: give --minimize METRIC or --maximize METRIC")
    return draft
