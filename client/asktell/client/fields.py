"""What the service refuses of a study, in the words of who described it: `parameter rate, low` for a path into the request."""

from __future__ import annotations

import re

from google.protobuf.message import Message

from asktell.client.errors import AlreadyExists, AskTellError, InvalidArgument
from asktell.v1 import study_service_pb2

_ENTRY = re.compile(
    r"study\.spec\.(parameters|objectives|outcome_constraints)\[(\d+)\](?:\.\w+_spec(?=\.))?\.?([\w.\[\]]*)"
)
_ARGUMENT = re.compile(r"^study\.(?:spec\.|budget\.)?(?:input_(?=constraints))?")
_WAYS_OUT = (
    "; study.update(...), or `asktell study update` and `widen`, can change the budget and widen parameters;"
    " else take another name, or delete it"
)


def in_words(error: AskTellError, request: Message) -> AskTellError:
    """The error of a request that creates or changes a study, with names of parameters and metrics, or of arguments, for paths.

    `field_violations` stay as they are. What cannot be created under a name that is taken says what can be done.
    """
    match error, request:
        case InvalidArgument(), study_service_pb2.CreateStudyRequest() | study_service_pb2.UpdateStudyRequest():
            said = _ENTRY.sub(lambda found: _entry(found, request.study.spec), str(error))
            return error.saying(_ARGUMENT.sub("", said))
        case AlreadyExists(reason="STUDY_EXISTS"), study_service_pb2.CreateStudyRequest():
            return error.saying(f"{error}{_WAYS_OUT}")
    return error


def _entry(found: re.Match[str], spec: study_service_pb2.StudySpec) -> str:
    """Such as `parameter rate, low`; the path itself for an entry that is not in the request or has no name."""
    kind, place, part = found.groups()
    entries = {
        "parameters": [parameter.name for parameter in spec.parameters],
        "objectives": [objective.metric for objective in spec.objectives],
        "outcome_constraints": [constraint.metric for constraint in spec.outcome_constraints],
    }[kind]
    name = entries[int(place)] if int(place) < len(entries) else ""
    if not name:
        return found[0]
    within = "" if part in ("", "name", "metric") else f", {part}"
    return f"{kind.removesuffix('s').replace('_', ' ')} {name}{within}"
