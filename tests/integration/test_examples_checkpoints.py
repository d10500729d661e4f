"""The example of docs/checkpoints.md does what it says."""

from __future__ import annotations

import re


def test_the_training_whose_worker_was_killed_goes_on_where_it_had_saved(example) -> None:
    lines = re.findall(r"trial (\d): attempt (\d) went on from epoch (\d+) of 40", "\n".join(example("checkpoints")))
    assert [(number, attempt) for number, attempt, _ in lines] == [("1", "2"), ("2", "1")]
    assert int(lines[0][2]) >= 10
    assert lines[1][2] == "0"
