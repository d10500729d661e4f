"""The service inside this process."""

from __future__ import annotations

import importlib
import os
from typing import Protocol, cast

from asktell.client.errors import MissingExtra


class EmbeddedServer(Protocol):
    """A running server."""

    @property
    def target(self) -> str:
        """Where it listens."""

    def close(self) -> None:
        """Stop it."""


def start(path: str | os.PathLike[str], *, speculate: bool = True) -> EmbeddedServer:
    """Start a server on a database file. MissingExtra without `asktell[server]`."""
    try:
        # By name, at the call: the client knows no server, and imports nothing of it.
        module = importlib.import_module("asktell.server.embedded")
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"a server in this process needs asktell[server], which is not installed: {error}", reason="MISSING_EXTRA"
        ) from error
    return cast("EmbeddedServer", module.start(os.fspath(path), speculate=speculate))
