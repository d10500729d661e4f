"""The example of docs/fidelity.md does what it says."""

from __future__ import annotations

import ast
import re


def test_the_example_trains_further_what_did_well_from_its_checkpoints(example) -> None:
    rungs, best, lineage, why = example("fidelity")
    found = re.fullmatch(r"trials at each rung: (\{.*\}); (\d+) epochs in all", rungs)
    assert found is not None
    counts, epochs = ast.literal_eval(found[1]), int(found[2])
    assert sum(counts.values()) == 60
    assert counts[3] > counts[9] > counts[27] > counts[81] > 0
    # Each trial but the first of a configuration goes on where the one below it ended.
    below = {9: 3, 27: 9, 81: 27}
    assert epochs == sum(count * (rung - below.get(rung, 0)) for rung, count in counts.items())
    assert re.fullmatch(r"best: trial \d+, loss 0\.\d+, \{.*'epochs': 81\}", best)
    assert lineage.endswith("(3 epochs)")
    assert why.endswith("at epochs=27")
