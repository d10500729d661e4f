"""Masks: which parts of a study an update names."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from google.protobuf.field_mask_pb2 import FieldMask

from asktell.server.domain.errors import InvalidArgument
from asktell.server.domain.study import LIMITS
from asktell.server.domain.text import check_key, excerpt

_LIMITS = {f"budget.{limit}": limit for limit in LIMITS}
_FIELDS = ("state", "budget", *_LIMITS, "labels", "spec.parameters", "spec.stopping_rule")
_NAMEABLE = ", ".join((*_FIELDS, "labels.KEY"))
# As in https://google.aip.dev/161: a key that is no plain word stands in backquotes, and a backquote in it twice.
_LABEL = re.compile(r"labels\.(?:([A-Za-z0-9_]+)|`((?:[^`]|``)+)`)")


@dataclass(frozen=True, slots=True)
class StudyMask:
    """The paths, and what they mean: limits of the budget, and keys of labels that are named by themselves."""

    paths: Collection[str]
    limits: Collection[str]
    keys: Collection[str]


def read_mask(message: FieldMask) -> StudyMask:
    """What a mask names, or InvalidArgument: nothing, what cannot change, or a field both whole and in part."""
    if not message.paths:
        raise InvalidArgument("update_mask", f"is empty: name one or more of {_NAMEABLE}")
    paths = frozenset(message.paths)
    keys = frozenset(_read_key(path) for path in sorted(paths) if path not in _FIELDS)
    for path in sorted(paths):
        field, dot, _ = path.partition(".")
        if dot and field in paths:
            raise InvalidArgument(
                "update_mask", f"{excerpt(path)} is a part of {excerpt(field)}, which is named too: name one of the two"
            )
    limits = {_LIMITS[path] for path in paths if path in _LIMITS} or (LIMITS if "budget" in paths else ())
    return StudyMask(paths=paths, limits=limits, keys=keys)


def _read_key(path: str) -> str:
    """The key of `labels.KEY`."""
    found = _LABEL.fullmatch(path)
    if found is None and path.startswith("labels."):
        raise InvalidArgument(
            "update_mask",
            f"{excerpt(path)} names no label: write labels.KEY, with a key of other characters than letters, digits and _ in"
            " backquotes, and with any backquote in it doubled",
        )
    if found is None:
        raise InvalidArgument("update_mask", f"{excerpt(path)} is none of {_NAMEABLE}")
    return check_key("update_mask", found[1] or found[2].replace("``", "`"))
