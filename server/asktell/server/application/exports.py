"""Read a study out whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import groupby, islice

from asktell.server.application.archive import MAX_MEASUREMENTS, Digest, End, Header, Record, Reported, archived
from asktell.server.application.ports import FIRST_METRIC, StoredMetric, Transaction
from asktell.server.application.studies import CountedStudy, get_study
from asktell.server.domain.metric import Measurement
from asktell.server.domain.study import StudyName
from asktell.server.domain.trial import Trial

PAGE = 500
METRICS_PAGE = 5_000


def export_study(tx: Transaction, name: StudyName, *, emit: Callable[[Record], None]) -> None:
    """Give the records of a study to `emit`, in order, a page at a time in memory; NotFound if there is none.

    The transaction lasts as long as this takes, so `emit` must not wait for a slow client.
    """
    counted = get_study(tx, name)
    emit(_header(counted))
    steps = groupby(_measurements(tx, counted.study.id), key=lambda step: step[0])
    ahead = next(steps, None)
    trials = 0
    for trial in _trials(tx, counted.study.id):
        emit(archived(trial))
        trials += 1
        if ahead is not None and ahead[0] == trial.number:
            _emit_measurements(trial.number, (measurement for _, measurement in ahead[1]), emit)
            ahead = next(steps, None)
    emit(End(trials))


def digest_of(tx: Transaction, name: StudyName) -> str:
    """The digest of the archive that an export would write now; NotFound if there is no such study."""
    digest = Digest()
    export_study(tx, name, emit=digest.add)
    return digest.text()


def _header(counted: CountedStudy) -> Header:
    counts = counted.counts
    return Header(counted.study, replace(counts, queued=counts.queued + counts.active, active=0))


def _trials(tx: Transaction, study_id: int) -> Iterator[Trial]:
    after = 0
    while page := tx.list_trials(study_id, after=after, limit=PAGE, states=(), worker_id=""):
        yield from page
        after = page[-1].number


def _measurements(tx: Transaction, study_id: int) -> Iterator[tuple[int, Measurement]]:
    """The measurements of all trials with the trials' numbers. A step is as old as the latest of its metrics."""
    for (number, step), metrics in groupby(_metrics(tx, study_id), key=lambda each: (each.number, each.step)):
        of_step = list(metrics)
        values = {each.metric: each.value for each in of_step}
        yield number, Measurement(step, values, max(each.create_time for each in of_step))


def _metrics(tx: Transaction, study_id: int) -> Iterator[StoredMetric]:
    after = FIRST_METRIC
    while page := tx.metrics_after(study_id, after, limit=METRICS_PAGE):
        yield from page
        after = page[-1].key


def _emit_measurements(number: int, measurements: Iterator[Measurement], emit: Callable[[Record], None]) -> None:
    while part := list(islice(measurements, MAX_MEASUREMENTS)):
        emit(Reported(number, part))
