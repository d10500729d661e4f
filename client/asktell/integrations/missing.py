"""The error for a framework that is not installed."""

from __future__ import annotations

from asktell.client import MissingExtra


def missing_extra(library: str, extra: str, cause: ModuleNotFoundError) -> MissingExtra:
    """Say which extra brings a library."""
    return MissingExtra(f"this needs {library}: pip install 'asktell[{extra}]' ({cause})", reason="MISSING_EXTRA")
