"""The command line: `asktell`."""

from asktell.cli.app import main

__all__ = ["main"]
