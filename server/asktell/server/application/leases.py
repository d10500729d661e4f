"""Keep, give back and lose leases; take measurements on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import accumulate, takewhile

import structlog

from asktell.server.application.change import Change, Draft
from asktell.server.application.clerk import Clerk
from asktell.server.application.failpoints import reach
from asktell.server.application.ports import Request, Store, Transaction
from asktell.server.application.studies import locked_study, missing_study
from asktell.server.domain.errors import STUDY_BUSY, InvalidArgument, Unavailable
from asktell.server.domain.metric import Measurement, check_measurements, count_metrics
from asktell.server.domain.study import Study, StudyName
from asktell.server.domain.text import check_checkpoint_uri, check_lease_token
from asktell.server.domain.trial import Lease, Trial, TrialName

MAX_RENEWALS = 1_000
MAX_MEASUREMENTS = 1_000
MAX_EXPIRING_STUDIES = 1_000
GATHER = 0.1
"""Seconds that a renewal waits for others. The shortest lease is 1 s, and is renewed with a third of that to spare."""
LARGEST_BATCH = 1_000
"""Leases in one transaction, unless the first call alone has more: a statement has only so many parameters."""
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
    """What a worker says of a trial on the way: measurements, where its checkpoint lies, or both."""

    trial: TrialName
    lease_token: str
    measurements: Sequence[Measurement]
    checkpoint_uri: str = ""

    def validate(self) -> None:
        """Raise InvalidArgument with a path relative to the request."""
        check_lease_token("lease_token", self.lease_token)
        count = len(self.measurements)
        if not (count >= 1 or self.checkpoint_uri):
            raise InvalidArgument("measurements", "is empty, and so is checkpoint_uri: a report has one or the other")
        if count > MAX_MEASUREMENTS:
            raise InvalidArgument("measurements", f"has {count:,} measurements; 1 to {MAX_MEASUREMENTS:,} are allowed")
        check_measurements(self.measurements)
        check_checkpoint_uri("checkpoint_uri", self.checkpoint_uri)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A worker gives a trial back."""

    trial: TrialName
    lease_token: str
    checkpoint_uri: str = ""
    request: Request | None = None

    def validate(self) -> None:
        """Raise InvalidArgument with a path relative to the request."""
        check_lease_token("lease_token", self.lease_token)
        check_checkpoint_uri("checkpoint_uri", self.checkpoint_uri)


@dataclass(frozen=True, slots=True)
class _Waiting:
    command: Renew
    renewed: asyncio.Future[Mapping[int, Lease]]

    def settle(self, outcome: Mapping[int, Lease] | Exception) -> None:
        if self.renewed.done():
            return
        if isinstance(outcome, Exception):
            self.renewed.set_exception(outcome)
        else:
            self.renewed.set_result(outcome)


class Renewals:
    """Renews leases; calls that come within a moment of each other, for whatever studies, share a transaction of two statements, which
    locks no study. Used from the event loop alone.
    """

    def __init__(self, store: Store, clerk: Clerk) -> None:
        self._store, self._clerk = store, clerk
        self._waiting: list[_Waiting] = []
        self._task: asyncio.Task[None] | None = None

    async def renew(self, command: Renew) -> list[Verdict]:
        """Renew the leases; the verdicts are in the order of the renewals. A lost lease is a verdict, an unknown study NotFound.

        After an outage, workers whose leases expired go on with what nobody has taken from them.
        """
        command.validate()
        renewed = await self._queue(command)
        verdicts = {number: _renewed(number, lease) for number, lease in renewed.items()}
        lost = [renewal for renewal in command.renewals if renewal.number not in renewed]
        if lost:
            late: dict[int, Verdict] = await self._clerk.make(_resumption(command.study, lost))
            verdicts |= late
        return [verdicts[renewal.number] for renewal in command.renewals]

    def _queue(self, command: Renew) -> asyncio.Future[Mapping[int, Lease]]:
        waiting = _Waiting(command, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), name="renew-leases")
        return waiting.renewed

    async def _work(self) -> None:
        while self._waiting:
            await asyncio.sleep(GATHER)
            batch = self._next_batch()
            for waiting, outcome in zip(batch, await self._renew(batch), strict=True):
                waiting.settle(outcome)

    def _next_batch(self) -> list[_Waiting]:
        waiting = [each for each in self._waiting if not each.renewed.done()]
        sums = accumulate(len(each.command.renewals) for each in waiting)
        length = max(sum(1 for _ in takewhile(lambda total: total <= LARGEST_BATCH, sums)), 1)
        self._waiting = waiting[length:]
        return waiting[:length]

    async def _renew(self, batch: Sequence[_Waiting]) -> Sequence[Mapping[int, Lease] | Exception]:
        try:
            return await self._store.write(_Renewal([waiting.command for waiting in batch]))
        except Exception as error:  # noqa: BLE001 - each caller gets the error; those that come after are renewed
            return [error] * len(batch)


@dataclass(frozen=True, slots=True)
class _Renewal:
    """The transaction that renews what is live: for each call the renewed leases by number, or NotFound."""

    commands: Sequence[Renew]

    def __call__(self, tx: Transaction) -> list[Mapping[int, Lease] | Exception]:
        ids = tx.find_study_ids({command.study for command in self.commands})
        tokens: dict[tuple[int, int], list[str]] = {}
        for command in self.commands:
            if command.study in ids:
                for renewal in command.renewals:
                    tokens.setdefault((ids[command.study], renewal.number), []).append(renewal.token)
        renewed = tx.renew_leases(tokens)
        return [self._of(command, ids.get(command.study), renewed) for command in self.commands]

    @staticmethod
    def _of(
        command: Renew, study_id: int | None, renewed: Mapping[tuple[int, int], Lease]
    ) -> Mapping[int, Lease] | Exception:
        if study_id is None:
            return missing_study(command.study)
        found = {renewal.number: renewed.get((study_id, renewal.number)) for renewal in command.renewals}
        tokens = {renewal.number: renewal.token for renewal in command.renewals}
        return {number: lease for number, lease in found.items() if lease is not None and lease.token == tokens[number]}


def _resumption(study: StudyName, renewals: Sequence[Renewal]) -> Change[dict[int, Verdict]]:
    """The change that looks at leases which are not live, one by one."""

    def amend(draft: Draft) -> dict[int, Verdict]:
        return {renewal.number: _resume(draft, renewal) for renewal in renewals}

    return Change(study=study, numbers=[renewal.number for renewal in renewals], amend=amend)


def _resume(draft: Draft, renewal: Renewal) -> Verdict:
    trial = draft.find(renewal.number)
    if trial is not None and trial.resumable(renewal.token) and draft.may_resume():
        trial = draft.change(trial.resumed(now=draft.now))
    return _verdict(trial, renewal)


def _verdict(trial: Trial | None, renewal: Renewal) -> Verdict:
    if trial is None:
        return Verdict(renewal.number, Directive.ABANDON, f"there is no trial {renewal.number}")
    if trial.holds(renewal.token) and trial.lease is not None:
        return _renewed(trial.number, trial.lease)
    message = f"the lease is lost: trial {trial.number} is {trial.state.value} at attempt {trial.attempt}"
    return Verdict(trial.number, Directive.ABANDON, message)


def _renewed(number: int, lease: Lease) -> Verdict:
    """A worker that did not hear the reply to its report, or did not heed it, hears again that it shall stop."""
    return Verdict(number, Directive.STOP if lease.stop else Directive.CONTINUE, lease.stop, lease)


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a report, the study as it stands in an incarnation of the database, and the lease that it renewed; None if that is lost.

    The verdict is that of an earlier report, as long as no stopping rule has judged this one.
    """

    verdict: Verdict
    study: Study
    incarnation: str
    lease: Lease | None = None


def report(command: Report) -> Change[Taken]:
    """The change that keeps what is reported and renews the lease. A lost lease keeps nothing and is an answer, not an error."""
    command.validate()
    number = command.trial.number

    def amend(draft: Draft) -> Taken:
        trial = draft.trial(number)
        if trial.resumable(command.lease_token) and draft.may_resume():
            trial = trial.resumed(now=draft.now)
        if not trial.holds(command.lease_token):
            return Taken(_verdict(trial, Renewal(number, command.lease_token)), draft.study, draft.incarnation)
        if command.measurements:
            draft.record(number, command.measurements)
        kept = draft.change(trial.renewed(now=draft.now).noted(checkpoint_uri=command.checkpoint_uri))
        return Taken(_verdict(kept, Renewal(number, command.lease_token)), draft.study, draft.incarnation, kept.lease)

    return Change(study=command.trial.study, numbers=[number], metrics=count_metrics(command.measurements), amend=amend)


def remember(command: Report, stop: str) -> Change[None]:
    """The change after which renewals say why the trial shall stop, or, if that is "", that it may go on. Nothing if the lease is lost."""
    number = command.trial.number

    def amend(draft: Draft) -> None:
        trial = draft.find(number)
        if trial is not None and trial.holds(command.lease_token):
            draft.change(trial.judged(stop))

    return Change(study=command.trial.study, numbers=[number], amend=amend)


def release(command: Release, *, pack: Callable[[Trial], bytes]) -> Change[bytes]:
    """The change that queues the trial for the next worker; its reply is packed.

    A lease that expired gives back too, as long as nobody has taken the trial: the checkpoint is kept, and the expiry counts for nothing. A
    trial that this lease, its latest, has given back already stays as it is; with another checkpoint the lease is lost.
    """
    command.validate()

    def amend(draft: Draft) -> bytes:
        trial = draft.trial(command.trial.number)
        if trial.gave_back(command.lease_token) and command.checkpoint_uri in ("", trial.checkpoint_uri):
            return pack(trial)
        if trial.resumable(command.lease_token):
            trial = trial.resumed(now=draft.now)
        trial.require_lease(command.lease_token)
        return pack(draft.change(trial.released().noted(checkpoint_uri=command.checkpoint_uri)))

    return Change(study=command.trial.study, numbers=[command.trial.number], amend=amend, request=command.request)


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
        locked = locked_study(tx, self.study, changes=len(trials))
        attempts = locked.study.spec.max_attempts
        expired = [
            replace(trial.expired(max_attempts=attempts, now=locked.now), sequence=locked.first_sequence + index)
            for index, trial in enumerate(trials)
        ]
        tx.update_trials(locked.study.id, expired)
        reach("leases.expired")
        return len(expired)
