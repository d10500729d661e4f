"""Writes the optima of COCO's mixed and constrained problems, which its logger knows, to this folder."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import cocoex

from benchmarks.coco import CONSTRAINED, DIMENSIONS, FEW, MIXED
from benchmarks.references import INSTANCES, write

OPTIMUM = re.compile(r"Fopt \(([^)]+)\)")


def main() -> None:
    """Write both files."""
    for suite, dimensions in ((MIXED, DIMENSIONS), (CONSTRAINED, (FEW,))):
        write(suite, optima(suite, dimensions))


def optima(suite: str, dimensions: tuple[int, ...]) -> dict[str, list[float]]:
    """The optimum of each problem of a suite, instance by instance."""
    names = ",".join(map(str, dimensions))
    found: dict[str, list[float]] = {}
    for problem in cocoex.Suite(suite, f"instances: 1-{INSTANCES}", f"dimensions: {names}"):
        name = f"f{problem.id_function:02}_d{problem.dimension}"
        found.setdefault(name, []).append(_optimum(suite, problem))
    return found


def _optimum(suite: str, problem: cocoex.Problem) -> float:
    """What the logger writes at the head of its file when the first value is measured."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as directory:
        # The observer writes beneath the current directory alone.
        os.chdir(directory)
        try:
            problem.observe_with(cocoex.Observer(suite, "result_folder: observed"))
            problem(problem.initial_solution)
            problem.free()
            (head,) = {found for path in Path(directory).rglob("*.dat") for found in OPTIMUM.findall(path.read_text())}
        finally:
            os.chdir(before)
    return float(head)


if __name__ == "__main__":
    main()
