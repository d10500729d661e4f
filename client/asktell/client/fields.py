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
_LIMIT = re.compile(r" exists with (max_trials|max_duration|max_failures|max_parallel) ([^;]*)")
"""What the service says of a study that has but another budget, before its own words for who has no client."""


def in_words(error: AskTellError, request: Message) -> AskTellError:
    """The error of a request that creates or changes a study, with names of parameters and metrics, or of arguments, for paths.

    `field_violations` stay as they are. What cannot be created under a name that is taken says what can be done.
    """
    match error, request:
        case InvalidArgument(), study_service_pb2.CreateStudyRequest() | study_service_pb2.UpdateStudyRequest():
            said = _ENTRY.sub(lambda found: _entry(found, request.study.spec), str(error))
            return error.saying(_ARGUMENT.sub("", said))
        case AlreadyExists(reason="STUDY_EXISTS"), study_service_pb2.CreateStudyRequest():
            return error.saying(_with_ways_out(str(error), request.study_id, request.study.budget))
    return error


def _with_ways_out(said: str, study_id: str, budget: study_service_pb2.Budget) -> str:
    """What the service said, and what can be done; where only a limit differs, the call that changes it."""
    found = _LIMIT.search(said)
    if found is None:
        return f"{said}{_WAYS_OUT}"
    limit, wanted = found[1], None
    if budget.HasField(limit):  # type: ignore[arg-type]  # It is one of the four.
        value = getattr(budget, limit)
        wanted = value.ToTimedelta().total_seconds() if limit == "max_duration" else value
    call = f'study = client.get_study("{study_id}"); study.update({limit}={wanted})'
    option = (
        "" if wanted is None else f", or `asktell study update {study_id} --{limit.replace('_', '-')} {wanted:.15g}`,"
    )
    return f"{said[: found.end()]}: {call}{option} changes it"


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
