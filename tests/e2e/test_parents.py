"""A trial that goes on from another finds its state, whichever worker has it: a study with a fidelity, worked on by two."""

from __future__ import annotations

from pathlib import Path

from asktell.client import Client, Fidelity, Int, Minimize
from tests.processes import ASKTELL, Processes

SOURCE = """
import json

def objective(parameters, trial):
    state = trial.checkpoint_dir / "state.json"
    first = json.loads(state.read_text())["epoch"] if state.exists() else 0
    state.write_text(json.dumps({"epoch": parameters["epochs"]}))
    return {"loss": abs(parameters["x"] - 37) / parameters["epochs"], "first": first}
"""


def test_a_promoted_trial_goes_on_from_the_state_of_the_rung_below(processes: Processes, tmp_path: Path) -> None:
    (tmp_path / "rungs.py").write_text(SOURCE)
    server = processes.serve(str(tmp_path / "asktell.db"))
    with Client(server.target) as client:
        study = client.create_study(
            "rungs",
            parameters=[Int("x", 0, 100), Int("epochs", 1, 9)],
            objectives=[Minimize("loss")],
            fidelity=Fidelity("epochs", reduction_factor=3),
            policy="random",
            seed=0,
            max_trials=16,
        )
        command = [
            ASKTELL,
            "work",
            "--study",
            "rungs",
            "--target",
            server.target,
            "--checkpoints",
            "root",
            "rungs:objective",
        ]
        workers = [processes.start(command, cwd=tmp_path) for _ in range(2)]
        assert [worker.wait() for worker in workers] == [0, 0], workers[0].errors() + workers[1].errors()
        trials = {trial.number: trial for trial in study.list_trials()}
        promoted = [trial for trial in trials.values() if trial.parent]
        assert promoted
        for trial in trials.values():
            below = trials[trial.parent].parameters["epochs"] if trial.parent else 0
            assert trial.value("first") == below
