"""Create, read, change and remove studies."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from asktell.server.application.ports import Locked, NewStudy, Request, Transaction
from asktell.server.application.requests import Unchanged
from asktell.server.application.sources import unlike
from asktell.server.domain.errors import AlreadyExists, Conflict, InvalidArgument, NotFound
from asktell.server.domain.space import ParameterSpec
from asktell.server.domain.stopping import NewRule
from asktell.server.domain.study import LIMITS, Budget, Study, StudyName, StudySpec, StudyState, TrialCounts
from asktell.server.domain.text import check_notes, excerpt


@dataclass(frozen=True, slots=True)
class CountedStudy:
    """A study and how many of its trials stand where."""

    study: Study
    counts: TrialCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateStudy:
    """What a new study is to be. `drawn_seed` is used if the spec has none."""

    name: StudyName
    spec: StudySpec
    budget: Budget
    labels: Mapping[str, str] = field(default_factory=dict)
    drawn_seed: int

    def validate(self, policies: Collection[str]) -> None:
        """Raise InvalidArgument with a path relative to the request's `study`."""
        try:
            self.spec.validate()
            if self.spec.policy not in policies:
                known = ", ".join(sorted(policies))
                raise InvalidArgument("policy", f"{excerpt(self.spec.policy)} is no policy; there are: {known}")
        except InvalidArgument as error:
            raise error.within("spec") from None
        validate_limits(self.budget, self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateStudy:
    """What of a study is to change; None leaves it. Of the budget the `limits` change, of the labels all, or by `label_changes` single ones,
    of which None removes one.
    """

    name: StudyName
    state: StudyState | None = None
    budget: Budget | None = None
    limits: Collection[str] = LIMITS
    labels: Mapping[str, str] | None = None
    label_changes: Mapping[str, str | None] | None = None
    parameters: Sequence[ParameterSpec] | None = None
    stopping_rule: NewRule | None = None

    def validate(self) -> None:
        """Raise InvalidArgument with a path relative to the request's `study`."""
        validate_limits(self.budget or Budget(), self.labels or {})
        check_notes("labels", {key: text for key, text in (self.label_changes or {}).items() if text is not None})


def validate_limits(budget: Budget, labels: Mapping[str, str]) -> None:
    """Raise InvalidArgument with a path relative to the study."""
    try:
        budget.validate()
    except InvalidArgument as error:
        raise error.within("budget") from None
    check_notes("labels", labels)


def create_study(tx: Transaction, command: CreateStudy) -> CountedStudy:
    """Create the study, or return the one that is there if it is the same; AlreadyExists names what differs. Conflict asks for another run."""
    new = NewStudy(
        name=command.name,
        spec=command.spec,
        seed=command.drawn_seed if command.spec.seed is None else command.spec.seed,
        budget=command.budget,
        labels=command.labels,
    )
    created = tx.insert_study(new)
    if created is not None:
        _require_sources(tx, command)
        return CountedStudy(created, TrialCounts())
    existing = _existing(tx, command.name)
    difference = existing.difference(command.spec, command.budget)
    if difference is not None:
        raise AlreadyExists(f"study {command.name.study!r} exists with {difference}", reason="STUDY_EXISTS")
    return counted(tx, existing)


def _existing(tx: Transaction, name: StudyName) -> Study:
    """The study whose name was taken; Conflict if it was deleted since."""
    found = tx.find_study(name)
    if found is None:
        raise Conflict(f"study {name} was there and is gone")
    return found.study


def _require_sources(tx: Transaction, command: CreateStudy) -> None:
    """Raise InvalidArgument, relative to the request, for sources that are missing or have nothing in common with the new study."""
    for index, source in enumerate(command.spec.warm_start):
        path = f"study.spec.warm_start[{index}]"
        found = None if source == command.name.study else tx.find_study(StudyName(command.name.project, source))
        if found is None:
            raise InvalidArgument(
                path, f"there is no study {excerpt(source)} in project {excerpt(command.name.project)}"
            )
        reason = unlike(command.spec, found.study.spec)
        if reason is not None:
            raise InvalidArgument(path, f"study {excerpt(source)} {reason}")


def get_study(tx: Transaction, name: StudyName) -> CountedStudy:
    """The study, or NotFound."""
    return counted(tx, require_study(tx, name))


def list_studies(tx: Transaction, *, project: str, after: str, limit: int) -> Sequence[CountedStudy]:
    """A page of a project's studies, by name."""
    studies = tx.list_studies(project, after=after, limit=limit)
    counts = tx.count_trials([study.id for study in studies])
    return [CountedStudy(study, counts.get(study.id, TrialCounts())) for study in studies]


def update_study(tx: Transaction, command: UpdateStudy) -> CountedStudy:
    """Change state, budget, labels, search space or stopping rule; NotFound if there is no such study. What is so already is Unchanged.

    What is not named is as the lock finds it, so that of changes at one time none is lost. InvalidArgument for more labels than are kept, for
    parameters that do not make the study's search space wider, and for a rule that makes no sense.
    """
    before = locked_study(tx, command.name, changes=0).study
    try:
        changed = before.changed(
            state=command.state,
            budget=command.budget,
            limits=command.limits,
            labels=command.labels,
            label_changes=command.label_changes,
            parameters=command.parameters,
            stopping_rule=command.stopping_rule,
        )
    except InvalidArgument as error:
        raise error.within("study") from None
    # A default that becomes True instead of 1 is another spec, but Python holds it for equal.
    if changed == before and changed.spec is before.spec:
        raise Unchanged(counted(tx, before))
    locked = locked_study(tx, command.name, changes=1)
    study = replace(
        changed,
        own_sequence=locked.first_sequence,
        sequence=locked.study.sequence,
        update_time=locked.study.update_time,
    )
    tx.update_study(study)
    if study.spec.stopping_rule != before.spec.stopping_rule:
        _follow_rule(tx, before, study)
    return counted(tx, study)


def _follow_rule(tx: Transaction, before: Study, study: Study) -> None:
    """Forget what the earlier rule said of trials under way, and have the curves be those of what the new one looks at."""
    tx.forget_stops(study.id)
    charted = study.spec.charted
    if charted is not None and charted != before.spec.charted:
        tx.chart_anew(study.id, metric=charted.metric, sequence=study.own_sequence)


def locked_study(
    tx: Transaction, name: StudyName, *, changes: int, new_trials: int = 0, request: Request | None = None
) -> Locked:
    """The study, locked as `Transaction.lock_study` does, or NotFound."""
    locked = tx.lock_study(name, changes=changes, new_trials=new_trials, request=request)
    if locked is None:
        raise missing_study(name)
    return locked


def delete_study(tx: Transaction, name: StudyName) -> None:
    """Remove the study with all its trials; NotFound if there is none."""
    if not tx.delete_study(name):
        raise missing_study(name)


def require_study(tx: Transaction, name: StudyName) -> Study:
    """The study without a lock, or NotFound."""
    found = tx.find_study(name)
    if found is None:
        raise missing_study(name)
    return found.study


def missing_study(name: StudyName) -> NotFound:
    """The error for a study that is not there."""
    return NotFound(f"there is no study {name}", reason="STUDY_NOT_FOUND")


def counted(tx: Transaction, study: Study) -> CountedStudy:
    """The study with its counts."""
    return CountedStudy(study, tx.count_trials([study.id]).get(study.id, TrialCounts()))
