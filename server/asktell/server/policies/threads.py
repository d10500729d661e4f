"""Numerics on one thread: sums come out the same everywhere, and processes beside each other do not fight for the cores."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache

from threadpoolctl import ThreadpoolController


def one_thread() -> AbstractContextManager[object]:
    """Holds the linear algebra libraries that are loaded at the first call to one thread."""
    limit: AbstractContextManager[object] = _controller().limit(limits=1, user_api="blas")
    return limit


@cache
def _controller() -> ThreadpoolController:
    # SciPy brings a library of its own.
    import scipy.linalg.lapack  # noqa: F401, PLC0415

    return ThreadpoolController()
