"""A line of the report: a figure, the bar that it is held to, and what it is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Line:
    """What was measured; `met` is None where nothing could be judged."""

    what: str
    figure: str
    bar: str
    met: bool | None
    details: Mapping[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """For people."""
        return "not judged" if self.met is None else "met" if self.met else "NOT met"


def figures(values: Mapping[str, float]) -> dict[str, str]:
    """Numbers as people read them: three digits of small ones, whole large ones."""
    return {
        name: f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
        for name, value in values.items()
    }
