"""How `asktell work` ends when trials fail: scripts and schedulers go by its exit status."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from asktell.client import Client, Float, Minimize, Study
from tests.processes import ASKTELL, Process, Processes, Server

PROGRAM = """
case $ASKTELL_TRIAL in
  {good}) echo '{{{{"loss": 1}}}}' ;;
  *) exit 3 ;;
esac
"""


@pytest.fixture
def work(server: Server, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator:
    """`asktell work` on a study of its own, with a program that succeeds at the trials of a shell pattern, until it has ended."""
    name = request.node.name.partition("[")[0]
    with Processes(tmp_path) as processes, Client(server.target) as client:
        client.create_study(
            name, parameters=[Float("x", 0, 1)], objectives=[Minimize("loss")], policy="random", max_trials=3
        )

        def run(*options: str, good: str) -> Process:
            command = [ASKTELL, "work", "--study", name, "--target", server.target, *options]
            worker = processes.start([*command, "--", "sh", "-c", PROGRAM.format(good=good)])
            worker.wait()
            return worker

        yield run


def test_a_worker_whose_trials_all_failed_says_so_and_ends_with_1(work) -> None:
    worker = work(good="none")
    study = "test_a_worker_whose_trials_all_failed_says_so_and_ends_with_1"
    assert worker.wait() == 1
    last = worker.errors().splitlines()[-1]
    assert (
        last
        == f"asktell work: 3 of 3 attempts failed and none succeeded; why: asktell study trials {study} --state failed"
    )


def test_a_worker_with_some_success_ends_with_0(work) -> None:
    worker = work(good="2")
    assert worker.wait() == 0, worker.errors()
    assert "asktell work: " not in worker.errors()


def states(study: Study) -> Counter[str]:
    return Counter(trial.state.value for trial in study.list_trials())


def test_a_worker_whose_command_is_broken_ends_long_before_the_budget_and_says_why(
    server: Server, processes: Processes
) -> None:
    with Client(server.target) as client:
        study = client.create_study(
            "broken", parameters=[Float("x", 0, 1)], objectives=[Minimize("loss")], policy="random", max_trials=100
        )
        command = [ASKTELL, "work", "--study", "broken", "--target", server.target, "--slots", "16"]
        worker = processes.start([*command, "--", "python", "-c", "import nmupy"])
        assert worker.wait() == 1
        # All sixteen slots had begun; what broke after the third trial is there to be tried again.
        assert states(study) == {"failed": 3, "queued": len(study.list_trials()) - 3}
        assert len(study.list_trials()) >= 16
        gave_up, *said, last = worker.errors().partition("asktell work: ")[2].splitlines()
        assert gave_up == (
            "3 trials failed in a row, and none of the study has succeeded: this worker ends, lest all of them do;"
            " --max-failures-in-a-row 0 goes on."
        )
        assert "ModuleNotFoundError: No module named 'nmupy'" in said
        assert last.startswith("asktell work: 3 of 3 attempts failed and none succeeded; why: ")
        worker = processes.start([*command, "--max-failures-in-a-row", "0", "--max-trials", "9", "--", "false"])
        assert worker.wait() == 1
        assert states(study)["failed"] == 12


@pytest.mark.parametrize("slots", ["1", "3"])
def test_a_function_that_takes_the_trial_alone_is_bad_usage_and_asks_for_nothing(
    server: Server, processes: Processes, tmp_path: Path, slots: str
) -> None:
    (tmp_path / "tr.py").write_text("def one(trial: object) -> float: return 1.0")
    with Client(server.target) as client:
        study = client.create_study(
            f"alone-{slots}", parameters=[Float("x", 0, 1)], objectives=[Minimize("loss")], policy="random"
        )
        command = [ASKTELL, "work", "--study", study.id, "--target", server.target, "--slots", slots]
        worker = processes.start([*command, "tr:one"], cwd=tmp_path)
        assert worker.wait() == 2
        said = [line for line in worker.errors().splitlines() if " INFO " not in line]
        assert said == ["asktell work: tr:one takes (trial); asktell work calls it with (parameters, trial)"]
        assert study.list_trials() == []


def test_an_objective_that_is_always_nan_spends_no_budget(server: Server, processes: Processes) -> None:
    with Client(server.target) as client:
        study = client.create_study(
            "nan", parameters=[Float("x", 0, 1)], objectives=[Minimize("loss")], policy="random", max_trials=100
        )
        command = [ASKTELL, "work", "--study", "nan", "--target", server.target]
        worker = processes.start([*command, "--", "echo", '{{"loss": NaN}}'])
        assert worker.wait() == 1
        assert states(study) == {"failed": 3}
        assert study.list_trials()[0].message == "loss is NaN, which is no result"
        assert "The last one was trial 3: loss is NaN, which is no result" in worker.errors()


def test_a_worker_that_found_no_trial_left_ends_with_0(work) -> None:
    work(good="*")
    worker = work(good="*")
    assert worker.wait() == 0, worker.errors()


def test_a_worker_with_fixed_parameters_gets_only_such_trials(work, server: Server) -> None:
    worker = work("--fixed", "x=0.25", "--max-trials", "1", good="*")
    assert worker.wait() == 0, worker.errors()
    with Client(server.target) as client:
        (trial,) = client.get_study("test_a_worker_with_fixed_parameters_gets_only_such_trials").list_trials()
        assert trial.parameters == {"x": 0.25}


def test_a_fixed_parameter_that_the_study_lacks_is_refused(work) -> None:
    worker = work("--fixed", "y=1", good="*")
    assert worker.wait() == 2
    assert "asktell work: y is no parameter of the study; there are: x" in worker.errors()


def test_a_worker_that_was_told_to_end_ends_with_the_status_that_was_asked_for(
    server: Server, processes: Processes
) -> None:
    with Client(server.target) as client:
        client.create_study("told", parameters=[Float("x", 0, 1)], objectives=[Minimize("loss")], policy="random")
    command = [ASKTELL, "work", "--study", "told", "--target", server.target, "--interrupted-status", "75"]
    worker = processes.start([*command, "--", "sh", "-c", "echo here; sleep 60"])
    assert worker.line() == "here"
    worker.terminate()
    assert worker.wait() == 75, worker.errors()
