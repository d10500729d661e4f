"""The trial that this process was started for by `asktell work`, as its environment names it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from asktell.client.errors import FailedPrecondition
from asktell.client.values import TrialRecord

PROJECT = "ASKTELL_PROJECT"
STUDY, TRIAL, TOKEN = "ASKTELL_STUDY", "ASKTELL_TRIAL", "ASKTELL_LEASE_TOKEN"


@dataclass(frozen=True, slots=True)
class Current:
    """Which trial, and the token of the worker's lease on it."""

    study: str
    number: int
    token: str

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Current:
        """The trial that the variables name. FailedPrecondition (NO_TRIAL) if they name none."""
        missing = [name for name in (STUDY, TRIAL, TOKEN) if not environment.get(name)]
        if missing or not environment[TRIAL].isdecimal():
            wrong = f"{', '.join(missing)} not set" if missing else f"{TRIAL} is {environment[TRIAL]!r}"
            raise FailedPrecondition(f"this process works on no trial of `asktell work`: {wrong}", reason="NO_TRIAL")
        return cls(environment[STUDY], int(environment[TRIAL]), environment[TOKEN])

    def held(self, record: TrialRecord) -> TrialRecord:
        """The record with the token of the lease, as if it had been asked for here. FailedPrecondition if nobody holds the trial."""
        if record.lease is None:
            raise FailedPrecondition(f"trial {self.number} is {record.state.value}, not active", reason="LEASE_LOST")
        return replace(record, lease=replace(record.lease, token=self.token))


def project() -> str:
    """The project that the environment names, else `default`."""
    return os.environ.get(PROJECT) or "default"
