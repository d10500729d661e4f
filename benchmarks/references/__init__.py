"""What COCO's authors know of their problems and the package does not tell: files of this folder, a row a problem, a figure an instance.

`python -m benchmarks.references` writes the optima anew: COCO's logger prints them at the head of what it writes. `bbob-biobj.json` has the
hypervolumes of the best fronts known, between ideal (1) and nadir (0), from `suite_biobj_best_values_hyp.c` of coco-experiment 2.8.2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
INSTANCES = 10
"""So many are recorded: seeds 0 to 9."""


@cache
def references(suite: str) -> Mapping[str, Sequence[float]]:
    """The best value or hypervolume of each problem of a suite, instance by instance; the names are such as f03_d5."""
    known: Mapping[str, Sequence[float]] = json.loads((HERE / f"{suite}.json").read_text(encoding="utf-8"))
    return known


def write(suite: str, known: Mapping[str, Sequence[float]]) -> None:
    """Write a file, one problem a line."""
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(list(values))}" for name, values in sorted(known.items()))
    (HERE / f"{suite}.json").write_text(f"{{\n{rows}\n}}\n", encoding="utf-8")
