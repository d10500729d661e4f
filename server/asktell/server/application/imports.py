"""Make a study from its archive, all or none.

The trials go into a staged study, which no name reaches, in many short transactions, so that nobody waits long for the one writer of
SQLite; the last transaction gives the study its name, and only that makes it visible. What a call leaves behind that never came to its end
is removed later, an hour after its last record.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from asktell.server.application.archive import Header, Inspection, Record, Reported
from asktell.server.application.curves import chart
from asktell.server.application.exports import digest_of
from asktell.server.application.ports import Request, Store, Transaction
from asktell.server.application.requests import replay_of
from asktell.server.application.studies import CountedStudy, counted
from asktell.server.domain.errors import AlreadyExists, Conflict, Unavailable
from asktell.server.domain.metric import count_metrics
from asktell.server.domain.study import StudyName, StudySpec
from asktell.server.domain.text import check_identifier
from asktell.server.domain.trial import Trial

TRIALS_AT_ONCE = 100
METRICS_AT_ONCE = 1_000
NOTHING = 0
"""No study's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportStudy:
    """Where an archive goes: `study_id` may be empty for that of the archive; `request_id` too, for a call that is not repeated."""

    project: str
    study_id: str
    request_id: str

    def target(self, header: Header) -> StudyName:
        """The name of the new study."""
        return StudyName(self.project, check_identifier("study_id", self.study_id or header.study.name.study))


@dataclass(frozen=True, slots=True, kw_only=True)
class Importer:
    """Where archives are taken in. `pack` makes the reply that is kept for repetitions."""

    store: Store
    policies: Collection[str]
    new_nonce: Callable[[], str]
    pack: Callable[[CountedStudy], bytes]

    async def take(self, command: ImportStudy, batches: AsyncIterator[Sequence[Record]]) -> bytes:
        """The packed study, once it is there; AlreadyExists if there is another of that name."""
        inspection = Inspection(self.policies)
        staged = NOTHING
        try:
            async for batch in batches:
                # Checking a thousand trials takes a while, which other callers must not wait for.
                records = await asyncio.to_thread(inspection.take_all, batch)
                if not records:
                    continue
                if staged == NOTHING:
                    staged = await self._stage(command, inspection.header)
                await self._store(staged, records, inspection.header)
            inspection.require_end()
            return await self._publish(command, inspection, staged)
        finally:
            if staged != NOTHING:
                await self._discard(staged)

    async def _stage(self, command: ImportStudy, header: Header) -> int:
        name = command.target(header)
        await self.store.read(lambda tx: _refuse_other(tx, command, name, header))
        key = self.new_nonce()
        return await self.store.write(lambda tx: tx.stage_study(header.study, key=key))

    async def _store(self, staged: int, records: Sequence[Record], header: Header) -> None:
        for part in _portions(records):
            named = [replace(each, nonce=self.new_nonce()) if isinstance(each, Trial) else each for each in part]
            await self.store.write(partial(_insert, staged=staged, spec=header.study.spec, records=named))

    async def _publish(self, command: ImportStudy, inspection: Inspection, staged: int) -> bytes:
        study = replace(inspection.header.study, id=staged, name=command.target(inspection.header))
        digest = inspection.digest.text()
        request = Request("ImportStudy", command.request_id, digest) if command.request_id else None

        def publish(tx: Transaction) -> bytes:
            if not tx.keep_staged(staged) or counted(tx, study).counts != inspection.counts:
                raise _given_up()
            now = tx.publish_study(study)
            reply = self.pack(counted(tx, study))
            if request is not None:
                tx.save_replies(staged, [(request, reply)], now=now)
            return reply

        try:
            return await self.store.write(publish)
        except Conflict:
            return await self.store.read(lambda tx: self._existing(tx, study.name, digest, request))

    def _existing(self, tx: Transaction, name: StudyName, digest: str, request: Request | None) -> bytes:
        """The reply if the study that is there came of the same archive; AlreadyExists otherwise."""
        found = tx.find_study(name, request=request)
        if found is None:
            raise Unavailable(f"study {name} was removed during its import; try again", reason="IMPORT_CONFLICT")
        earlier = replay_of(request, found.replay)
        if earlier is not None:
            return earlier
        if digest_of(tx, name) != digest:
            raise _other(name)
        return self.pack(counted(tx, found.study))

    async def _discard(self, staged: int) -> None:
        """Remove what is still staged; nothing, if it was published. What cannot be removed now is removed later."""
        discarding = asyncio.create_task(self._try_to_discard(staged))
        try:
            await asyncio.shield(discarding)
        except asyncio.CancelledError:
            # The caller has gone, perhaps in the midst of this.
            await discarding
            raise

    async def _try_to_discard(self, staged: int) -> None:
        with contextlib.suppress(Unavailable):
            await discard_staged(self.store, staged)


def _refuse_other(tx: Transaction, command: ImportStudy, name: StudyName, header: Header) -> None:
    """Raise AlreadyExists at once if a study of that name cannot be the archived one, and is not that of an earlier copy of this call."""
    request = Request("ImportStudy", command.request_id, "") if command.request_id else None
    found = tx.find_study(name, request=request)
    if found is not None and found.replay is None and found.study.sequence != header.study.sequence:
        raise _other(name)


def _other(name: StudyName) -> AlreadyExists:
    return AlreadyExists(f"study {name.study!r} exists and is not equal to the archive", reason="STUDY_EXISTS")


def _given_up() -> Unavailable:
    return Unavailable("the import stood still for too long and was given up; try again", reason="IMPORT_GIVEN_UP")


def _insert(tx: Transaction, *, staged: int, spec: StudySpec, records: Sequence[Record]) -> None:
    if not tx.keep_staged(staged):
        raise _given_up()
    tx.insert_trials(staged, [record for record in records if isinstance(record, Trial)])
    for record in records:
        if isinstance(record, Reported):
            # Their trials' changes are of the exported study; the new one's own all come after its first.
            charted = chart(spec, {record.number: 1})
            tx.insert_measurements(staged, record.number, record.measurements, charted=charted)


def _portions(records: Sequence[Record]) -> Iterator[list[Record]]:
    """The records in portions that each take the writer some hundredths of a second."""
    portion: list[Record] = []
    weight = 0.0
    for record in records:
        portion.append(record)
        weight += _weight(record)
        if weight >= 1:
            yield portion
            portion, weight = [], 0.0
    if portion:
        yield portion


def _weight(record: Record) -> float:
    if isinstance(record, Reported):
        return count_metrics(record.measurements) / METRICS_AT_ONCE
    return 1 / TRIALS_AT_ONCE


async def discard_staged(store: Store, staged: int) -> None:
    """Remove a staged study, a portion at a time. One that was published, or is gone, is left alone."""
    while await store.write(lambda tx: tx.discard_trials(staged, limit=TRIALS_AT_ONCE)):
        pass
    await store.write(lambda tx: tx.discard_study(staged))


async def discard_abandoned(store: Store) -> int:
    """Remove the studies whose imports were given up an hour ago; how many."""
    abandoned = await store.read(lambda tx: tx.abandoned_studies(limit=100))
    for staged in abandoned:
        await discard_staged(store, staged)
    return len(abandoned)
