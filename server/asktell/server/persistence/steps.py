"""What runs the steps of the use cases."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, TypeVar

from asktell.server.persistence.transaction import SqlTransaction

T = TypeVar("T")


class Steps(Protocol):
    """Runs steps, each in a transaction, on threads of its own."""

    def submit(self, step: Callable[[SqlTransaction], T]) -> Future[T]:
        """The step's result, once it is durable if the step wrote."""
