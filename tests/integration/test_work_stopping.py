"""`asktell work` ends trainings that the study's rule stops, functions and commands alike."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from asktell.client import Client, Float, Minimize, SuccessiveHalvingRule, TrialState
from tests.processes import ASKTELL, Processes, Server

FUNCTION = """
def objective(parameters, trial):
    loss = 1.0
    for epoch in range(1, 10):
        loss = float(trial.number)
        if trial.report(step=epoch, loss=loss).should_stop:
            break
    return loss
"""
# It waits for more than any test does, unless it is stopped.
COMMAND = """
import json, os, time
number = float(os.environ["ASKTELL_TRIAL"])
for epoch in range(1, 10):
    print(json.dumps({"step": epoch, "loss": number}), flush=True)
    if number > 1 and epoch >= 3:
        time.sleep(600)
print(json.dumps({"loss": number}), flush=True)
"""


@pytest.mark.parametrize("kind", ["function", "command"])
def test_what_is_told_to_stop_ends_there_and_the_worker_goes_on(server: Server, tmp_path: Path, kind: str) -> None:
    (tmp_path / "training.py").write_text(FUNCTION)
    (tmp_path / "command.py").write_text(COMMAND)
    what = ["training:objective"] if kind == "function" else ["--", sys.executable, "command.py"]
    with Client(server.target) as client, Processes(tmp_path) as processes:
        study = client.create_study(
            f"work-{kind}",
            parameters=[Float("x", 0, 1)],
            objectives=[Minimize("loss")],
            policy="random",
            max_trials=3,
            stopping_rule=SuccessiveHalvingRule(min_step=3),
        )
        command = [ASKTELL, "work", "--study", study.id, "--target", server.target, *what]
        worker = processes.start(command, cwd=tmp_path)
        assert worker.wait() == 0, worker.errors()
        found = [study.get_trial(number) for number in (1, 2, 3)]
    assert [trial.state for trial in found] == [TrialState.SUCCEEDED, TrialState.STOPPED, TrialState.STOPPED]
    assert [len(trial.measurements) for trial in found] == [9, 3, 3]
    assert found[2].message.startswith("of 3 trials at rung 3 the best goes on")
    assert found[2].metrics["loss"].value == 3.0
