"""Pictures of studies by matplotlib, which the extra `plot` brings: importing this package without it raises MissingExtra.

What is drawn comes as values; nothing here asks the service. `asktell.client.pictures` gathers it.
"""

from __future__ import annotations

from asktell.client.errors import MissingExtra

try:
    import matplotlib  # noqa: F401 - whether it is there.
except ModuleNotFoundError as error:
    raise MissingExtra(
        f"pictures need the plot extra: pip install 'asktell[plot]' ({error})", reason="MISSING_EXTRA"
    ) from error

from asktell.client.plots.canvas import Picture
from asktell.client.plots.contour import Surface, contour
from asktell.client.plots.course import course
from asktell.client.plots.curves import curves
from asktell.client.plots.front import Front
from asktell.client.plots.importance import importance
from asktell.client.plots.parallel import parallel
from asktell.client.plots.schedule import schedule
from asktell.client.plots.slices import Slice, slices
from asktell.client.plots.validation import validation

__all__ = [
    "Front",
    "Picture",
    "Slice",
    "Surface",
    "contour",
    "course",
    "curves",
    "importance",
    "parallel",
    "schedule",
    "slices",
    "validation",
]
