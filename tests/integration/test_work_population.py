"""Workers carry the states of a population: each training has been through just those intervals that its lineage says."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from urllib.parse import urlparse

import pytest

from asktell.client import Client, Float, Minimize, Population, Trial
from tests.processes import ASKTELL, Processes

MEMBERS, INTERVALS = 4, 6
# One interval: what was trained before lies in the directory, and so does what was trained now. Every ninth attempt breaks.
PROGRAM = """
echo {rate} >> "$ASKTELL_CHECKPOINT_DIR/rates"
test $((ASKTELL_TRIAL % 9)) -ne 8 || exit 3
echo '{{"loss": '$(awk '{{ loss += $1 }} END {{ print loss / NR }}' "$ASKTELL_CHECKPOINT_DIR/rates")'}}'
"""


@pytest.mark.parametrize("workers", [1, 3])
def test_a_training_has_been_through_the_intervals_of_its_lineage(tmp_path: Path, workers: int) -> None:
    with Processes(tmp_path) as processes:
        server = processes.serve(str(tmp_path / "asktell.db"))
        with Client(server.target) as client:
            study = client.create_study(
                "population",
                parameters=[Float("rate", 1e-4, 1.0, log=True)],
                objectives=[Minimize("loss")],
                policy="pbt",
                population=Population(size=MEMBERS),
                max_trials=MEMBERS * INTERVALS,
                seed=2,
            )
            command = [ASKTELL, "work", "--study", study.id, "--target", server.target]
            command += ["--checkpoints", str(tmp_path / "checkpoints"), "--", "sh", "-c", PROGRAM]
            started = [processes.start(command) for _ in range(workers)]
            assert [worker.wait() for worker in started] == [0] * workers
            trials = study.list_trials()
            trained = {trial.number: (rates_in(trial), study.lineage(trial.number)) for trial in trials}
    # At the end a free member may be an interval ahead of one that is being trained.
    counts = Counter(trial.member for trial in trials)
    assert max(counts.values()) - min(counts.values()) <= (0 if workers == 1 else 2)
    assert sum(trial.state == "failed" for trial in trials) == 2
    for trial in trials:
        if trial.state == "succeeded":
            rates, line = trained[trial.number]
            assert rates == [pytest.approx(each.parameters["rate"]) for each in line]
    assert {trial.origin.method for trial in trials} == {"initial-design", "continue", "exploit"}


def rates_in(trial: Trial) -> list[float]:
    """The rates that a trial's checkpoint was trained with."""
    if not trial.checkpoint_uri:
        return []
    return [float(line) for line in (Path(urlparse(trial.checkpoint_uri).path) / "rates").read_text().split()]
