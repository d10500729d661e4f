"""The comparison of fidelities charges each epoch once, and reports what was run."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.fidelities import OURS, THEIRS, TRAININGS, WHOLE, Run, shared, verdicts, write
from benchmarks.jobs import Job, Recorded
from benchmarks.peers.asktell_rungs import FIRST, Asktell
from benchmarks.simulation import Simulation
from benchmarks.trainings import BEST, WORST, power


class Watched(Asktell):
    """Remembers how far which configuration was trained."""

    trained: dict[object, list[int]]

    def tell(self, token: int, loss: float, *, stopped: bool) -> None:
        parameters = dict(self._pending[token])
        epochs = parameters.pop("epochs")
        assert isinstance(epochs, int)
        self.trained.setdefault(tuple(parameters.items()), []).append(epochs)
        super().tell(token, loss, stopped=stopped)


def test_a_configuration_goes_on_where_it_was_left() -> None:
    family = power(1)
    peer = Watched(family.problem, 1, "random")
    peer.trained = {}
    run = Simulation(peer, family, 1).run(trials=0, epochs=300)
    rungs = [FIRST * 3**place for place in range(4)]
    assert all(each == rungs[: len(each)] for each in peer.trained.values())
    assert any(len(each) > 2 for each in peer.trained.values())
    # What is under way has spent the rest.
    assert 0 <= run.epochs - sum(each[-1] for each in peer.trained.values()) < 4 * 81


def test_the_best_so_far_is_that_of_the_epochs_spent() -> None:
    run = Run(OURS, "power", 0, [(1, 0.8), (100, 0.3)])
    assert [run.after(epochs) for epochs in (0, 1, 99, 100, 1296)] == [WORST, 0.8, 0.8, 0.3, 0.3]


def test_the_report_has_the_runs_and_a_picture(tmp_path: Path) -> None:
    runs = [
        Run(peer, family, seed, [(1, 0.8), (100 + seed, BEST + gain)])
        for peer, gain in ((OURS, 0.01), (THEIRS, 0.25))
        for family in ("power", "crossing")
        for seed in (0, 1)
    ]
    write(runs, epochs=1296, folder=tmp_path)
    report = (tmp_path / "fidelity.md").read_text()
    assert f"| {OURS} | 0.0100 | 0.0100 |" in report
    assert "ahead of Optuna, Hyperband + TPE in 2 of 2 runs" in report
    assert (tmp_path / "fidelity.png").read_bytes().startswith(b"\x89PNG")


def test_the_fidelity_is_judged_by_whole_trainings_at_all_epochs() -> None:
    """Half an accuracy of whole trainings: 1 % of it may be lost with the share of the epochs, and what comes after that is too late."""
    ends = [(TRAININGS * 81 - 1, 0.5), (TRAININGS * 81, 0.5)]
    for ours, met in ((0.5049, True), (0.5051, False)):
        runs = [
            Run(OURS, "hill", 0, [(shared(TRAININGS), ours), (shared(TRAININGS) + 1, BEST)]),
            Run(WHOLE, "hill", 0, ends),
        ]
        ((words, found),) = verdicts(runs, epochs=1296)
        assert found is met
        assert f"{(ours - 0.5) / 0.5:+.2%} worse" in words


def test_a_recorded_job_is_not_run_again(tmp_path: Path) -> None:
    job, broken = (
        Job(program="simulation", arguments=("rungs:random", "power", 1, 0, epochs)) for epochs in (12, "many")
    )
    run = job.run(Recorded(tmp_path / "runs.jsonl"))
    assert run["epochs"] == 12
    assert job.run(Recorded(tmp_path / "runs.jsonl"))["trace"] == run["trace"]
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 1
    with pytest.raises(SystemExit, match="invalid literal"):
        broken.run(Recorded(None))
