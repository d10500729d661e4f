"""Which service, which project: the options that every command about studies has."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from asktell.client import Client, Study

RETRY_SECONDS = 5.0
"""How long a command tries to reach the service: a person waits."""

Json = Annotated[
    bool, Parameter(name="--json", negative=(), show_default=False, help="Print JSON for scripts, and nothing else.")
]


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Service:
    """Which service, which project.

    Attributes:
        target: Where the service listens.
        project: The namespace of the study.
    """

    target: Annotated[str, Parameter(env_var="ASKTELL_TARGET", help="Where the service listens.")] = "localhost:50051"
    project: Annotated[str, Parameter(env_var="ASKTELL_PROJECT", help="The namespace of studies.")] = "default"

    @contextmanager
    def client(self, *, retry_for: float = RETRY_SECONDS) -> Iterator[Client]:
        """A client, closed in the end."""
        # A short wait for the service goes without saying, since what comes of it is said; a long one does not.
        patient = retry_for > RETRY_SECONDS
        logging.getLogger("asktell.client.retries").setLevel(logging.WARNING if patient else logging.ERROR)
        with Client(self.target, project=self.project, retry_for=retry_for) as client:
            yield client

    @contextmanager
    def study(self, name: str, *, retry_for: float = RETRY_SECONDS) -> Iterator[Study]:
        """A study that exists; NotFound otherwise."""
        with self.client(retry_for=retry_for) as client:
            yield client.get_study(name)


ANYWHERE = Service()
"""What the options and the environment leave as it is."""
