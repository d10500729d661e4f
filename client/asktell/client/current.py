"""The trial that this process was started for by `asktell work`, as its environment names it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from asktell.client.errors import FailedPrecondition
from asktell.client.values import TrialRecord

PROJECT = "ASKTELL_PROJECT"
STUDY, TRIAL, TOKEN = "ASKTELL_STUDY", "ASKTELL_TRIAL", "ASKTELL_LEASE_TOKEN"
UPLOAD = "ASKTELL_CHECKPOINT_UPLOAD"
"""A file by which the worker is asked to upload the state now, where states lie in an object store."""
POLL = 0.05


@dataclass(frozen=True, slots=True)
class Current:
    """Which trial, the token of the worker's lease on it, and the file that asks for an upload; None where nothing is uploaded."""

    study: str
    number: int
    token: str
    upload: Path | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Current:
        """The trial that the variables name. FailedPrecondition (NO_TRIAL) if they name none."""
        missing = [name for name in (STUDY, TRIAL, TOKEN) if not environment.get(name)]
        if missing or not environment[TRIAL].isdecimal():
            wrong = f"{', '.join(missing)} not set" if missing else f"{TRIAL} is {environment[TRIAL]!r}"
            raise FailedPrecondition(f"this process works on no trial of `asktell work`: {wrong}", reason="NO_TRIAL")
        upload = Path(environment[UPLOAD]) if environment.get(UPLOAD) else None
        return cls(environment[STUDY], int(environment[TRIAL]), environment[TOKEN], upload)

    def held(self, record: TrialRecord) -> TrialRecord:
        """The record with the token of the lease, as if it had been asked for here. FailedPrecondition if nobody holds the trial."""
        if record.lease is None:
            raise FailedPrecondition(f"trial {self.number} is {record.state.value}, not active", reason="LEASE_LOST")
        return replace(record, lease=replace(record.lease, token=self.token))


def uploading(request: Path | None) -> Iterator[float]:
    """Ask the worker to upload the state, and yield seconds to sleep until it has, and the service knows; nothing if there is no need.

    A trial that has ended takes no word of its state any more. The worker answers by removing the file, also where an upload was in vain.
    Who cannot write there, in a container or as another user, has left no state there either.
    """
    if request is None or not request.parent.is_dir():
        return
    try:
        request.touch()
    except OSError:
        return
    while request.exists():
        yield POLL


def project() -> str:
    """The project that the environment names, else `default`."""
    return os.environ.get(PROJECT) or "default"
