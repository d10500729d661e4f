"""Whether a function can be called as it will be. Known to the client and to the process of a worker's function, which loads no client."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def misfit(function: Callable[..., Any], *arguments: object) -> str:
    """What a callable takes, in one line such as `(parameters, trial)`, if it cannot be called with these positional arguments.

    Empty if it can, and of a callable that does not say what it takes, as many builtins.
    """
    try:
        # What is called is the wrapper: it may take other arguments than what it wraps.
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return ""
    try:
        signature.bind(*arguments)
    except TypeError:
        return str(_bare(signature))
    return ""


def _bare(signature: inspect.Signature) -> inspect.Signature:
    """The signature without annotations, for a message of one line."""
    parameters = [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()]
    return signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)
