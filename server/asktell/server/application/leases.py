"""Keep, give back and lose leases; take measurements on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import structlog

from asktell.server.application.clerk import Change, Draft
from asktell.server.application.failpoints import reach
from asktell.server.application.ports import Locked, Store, Transaction
from asktell.server.application.requests import Unchanged, write_once
from asktell.server.application.studies import missing_study, require_study
from asktell.server.domain.errors import STUDY_BUSY, InvalidArgument, Unavailable
from asktell.server.domain.metric import Measurement, check_measurements
from asktell.server.domain.study import StudyName
from asktell.server.domain.text import check_checkpoint_uri, check_lease_token
from asktell.server.domain.trial import Lease, Trial, TrialName, TrialState

MAX_RENEWALS = 1_000
MAX_MEASUREMENTS = 1_000
MAX_EXPIRING_STUDIES = 1_000
# Each failure of the database may take seconds: a round that met this many would only be late to say so.
_ENOUGH_LOST = 3

log = structlog.get_logger("asktell.leases")


class Directive(Enum):
    """Whether a worker should go on with a trial."""

    CONTINUE = "continue"
    STOP = "stop"
    ABANDON = "abandon"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a worker is told about a trial it works on; `lease` is None when it is no longer its own."""

    number: int
    directive: Directive
    message: str = ""
    lease: Lease | None = None


@dataclass(frozen=True, slots=True)
class Renewal:
    """One lease to renew."""

    number: int
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Renew:
    """A worker's call that keeps leases."""

    study: StudyName
    renewals: Sequence[Renewal]

    def validate(self) -> None:
        """Raise InvalidArgument with a path relative to the request."""
        if not 1 <= len(self.renewals) <= MAX_RENEWALS:
            raise InvalidArgument("renewals", f"has {len(self.renewals):,} renewals; 1 to {MAX_RENEWALS:,} are allowed")
        seen: set[int] = set()
        for index, renewal in enumerate(self.renewals):
            if renewal.number in seen:
                raise InvalidArgument(f"renewals[{index}].number", f"trial {renewal.number} stands there twice")
            check_lease_token(f"renewals[{index}].lease_token", renewal.token)
            seen.add(renewal.number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A worker's measurements of a trial."""

    trial: TrialName
    lease_token: str
    measurements: Sequence[Measurement]
    checkpoint_uri: str = ""

    def validate(self) -> None:
        """Raise InvalidArgument with a path relative to the request."""
        check_lease_token("lease_token", self.lease_token)
        count = len(self.measurements)
        if not 1 <= count <= MAX_MEASUREMENTS:
            raise InvalidArgument("measurements", f"has {count:,} measurements; 1 to {MAX_MEASUREMENTS:,} are allowed")
        check_measurements(self.measurements)
        check_checkpoint_uri("checkpoint_uri", self.checkpoint_uri)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A worker gives a trial back."""

    trial: TrialName
    lease_token: str
    checkpoint_uri: str = ""

    def validate(self) -> None:
        """Raise InvalidArgument with a path relative to the request."""
        check_lease_token("lease_token", self.lease_token)
        check_checkpoint_uri("checkpoint_uri", self.checkpoint_uri)


async def renew(store: Store, command: Renew) -> list[Verdict]:
    """Renew the leases, in the order of the renewals. The usual case takes one UPDATE and no lock of the study."""
    command.validate()

    def renew_live(tx: Transaction) -> dict[int, Trial]:
        study = require_study(tx, command.study)
        return tx.renew_leases(study.id, [renewal.token for renewal in command.renewals])

    trials = await store.write(renew_live)
    live = {r.number: _going_on(trials[r.number]) for r in command.renewals if r.number in trials}
    lost = [renewal for renewal in command.renewals if renewal.number not in live]
    late = await write_once(store, lambda tx: _renew_late(tx, command.study, lost)) if lost else {}
    return [(live | late)[renewal.number] for renewal in command.renewals]


def _renew_late(tx: Transaction, name: StudyName, renewals: Sequence[Renewal]) -> dict[int, Verdict]:
    locked = _lock(tx, name, changes=len(renewals))
    trials = tx.find_trials(locked.study.id, [renewal.number for renewal in renewals])
    resumed = _resume(locked, trials, renewals)
    verdicts = {renewal.number: _verdict({**trials, **resumed}.get(renewal.number), renewal) for renewal in renewals}
    if not resumed:
        raise Unchanged(verdicts)
    tx.update_trials(locked.study.id, list(resumed.values()))
    return verdicts


def _resume(locked: Locked, trials: Mapping[int, Trial], renewals: Sequence[Renewal]) -> dict[int, Trial]:
    """After an outage, workers whose leases expired go on with what nobody has taken from them."""
    return {
        renewal.number: replace(trials[renewal.number].resumed(now=locked.now), sequence=locked.first_sequence + index)
        for index, renewal in enumerate(renewals)
        if renewal.number in trials and trials[renewal.number].resumable(renewal.token)
    }


def _verdict(trial: Trial | None, renewal: Renewal) -> Verdict:
    if trial is None:
        return Verdict(renewal.number, Directive.ABANDON, f"there is no trial {renewal.number}")
    if trial.holds(renewal.token):
        return _going_on(trial)
    message = f"the lease is lost: trial {trial.number} is {trial.state.value} at attempt {trial.attempt}"
    return Verdict(trial.number, Directive.ABANDON, message)


def _going_on(trial: Trial) -> Verdict:
    return Verdict(trial.number, Directive.CONTINUE, lease=trial.lease)


def report(command: Report) -> Change[Verdict]:
    """The change that keeps the measurements and renews the lease; its reply says whether to go on. A lost lease keeps nothing and is an
    answer, not an error.
    """
    command.validate()
    number = command.trial.number

    def amend(draft: Draft) -> Verdict:
        trial = draft.trial(number)
        if trial.resumable(command.lease_token):
            trial = trial.resumed(now=draft.now)
        if not trial.holds(command.lease_token):
            return _verdict(trial, Renewal(number, command.lease_token))
        draft.record(number, command.measurements)
        return _going_on(draft.change(trial.renewed(now=draft.now).noted(checkpoint_uri=command.checkpoint_uri)))

    return Change(study=command.trial.study, numbers=[number], amend=amend)


def release(command: Release) -> Change[Trial]:
    """The change that queues the trial for the next worker. One that this lease has given back already stays as it is."""
    command.validate()

    def amend(draft: Draft) -> Trial:
        trial = draft.trial(command.trial.number)
        if trial.state is TrialState.QUEUED and trial.held(command.lease_token):
            return trial
        trial.require_lease(command.lease_token)
        return draft.change(trial.released().noted(checkpoint_uri=command.checkpoint_uri))

    return Change(study=command.trial.study, numbers=[command.trial.number], amend=amend)


async def expire_leases(store: Store) -> int:
    """Queue or fail the trials of all studies whose leases have run out by the database's clock; how many.

    A study that is busy or breaks is left for the next time. Unavailable if the database cannot be used, for any study.
    """
    names = await store.read(lambda tx: tx.studies_with_expired_leases(MAX_EXPIRING_STUDIES))
    expired: list[int] = []
    lost: list[Unavailable] = []
    for name in names:
        try:
            expired.append(await _expire(store, name))
        except Unavailable as error:
            lost.append(error)
        if len(lost) == _ENOUGH_LOST:
            break
    if lost and not expired:
        raise lost[0]
    return sum(expired)


async def _expire(store: Store, name: StudyName) -> int:
    """How many trials of the study; 0 for one that is busy or broken, which says nothing against the database. Or Unavailable."""
    try:
        return await store.write(_Expiry(name))
    except Unavailable as error:
        log.warning("leases_not_expired", study=str(name), error=str(error))
        if error.reason != STUDY_BUSY:
            raise
    except Exception:
        log.exception("leases_not_expired", study=str(name))
    return 0


@dataclass(frozen=True, slots=True)
class _Expiry:
    """The transaction that expires one study's leases."""

    study: StudyName

    def __call__(self, tx: Transaction) -> int:
        locked = tx.lock_study(self.study, changes=0)
        trials = tx.expired_trials(locked.study.id) if locked else []
        if not trials:
            return 0
        locked = _lock(tx, self.study, changes=len(trials))
        attempts = locked.study.spec.max_attempts
        expired = [
            replace(trial.expired(max_attempts=attempts, now=locked.now), sequence=locked.first_sequence + index)
            for index, trial in enumerate(trials)
        ]
        tx.update_trials(locked.study.id, expired)
        reach("leases.expired")
        return len(expired)


def _lock(tx: Transaction, name: StudyName, *, changes: int) -> Locked:
    locked = tx.lock_study(name, changes=changes)
    if locked is None:
        raise missing_study(name)
    return locked
