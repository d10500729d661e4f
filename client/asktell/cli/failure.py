"""What went wrong, in one line."""

from __future__ import annotations

from asktell.cli.dials import Unreadable
from asktell.cli.document import Malformed
from asktell.cli.places import Homeless
from asktell.client import AskTellError, InvalidArgument
from asktell.client.errors import Unavailable


class Refused(Exception):
    """There is nothing to show or do, as the message says."""


def explain(error: Exception) -> tuple[str, bool] | None:
    """The line for an error, and whether it was the service that said no rather than the command line that made no sense.

    None for an error that is none of the user's: a fault of this program.
    """
    match error:
        case Unavailable():
            return f"the service could not be reached: {_line(error)}; --target says where it is", True
        case InvalidArgument(reason="BAD_TARGET"):
            return _line(error), False
        case AskTellError() | Refused():
            return _line(error), True
        case Unreadable() | Malformed() | Homeless():
            return _line(error), False
        case OSError(filename=str() as name):
            return f"{name}: {error.strerror}", False
    return None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
