"""`asktell work --slots` against a real server, and `asktell study logs` of what its trials write."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from asktell.client import Client, Float, Minimize, Study
from tests.processes import ASKTELL, Process, Processes, Server, until

MEET = """
touch here-$ASKTELL_SLOT
while [ $(ls here-* | wc -l) -lt {slots} ]; do sleep 0.05; done
echo "slot $ASKTELL_SLOT has GPU $CUDA_VISIBLE_DEVICES of $CUDA_DEVICE_ORDER and $OMP_NUM_THREADS threads"
echo '{{{{"loss": 1}}}}'
"""
SLEEP = "echo $$ > pid-$ASKTELL_TRIAL; exec sleep 3600"


@pytest.fixture
def study(server: Server, request: pytest.FixtureRequest) -> Iterator[Study]:
    with Client(server.target) as client:
        name = request.node.name.partition("[")[0]
        yield client.create_study(
            name, parameters=[Float("x", 0, 1)], objectives=[Minimize("loss")], policy="random", max_trials=8
        )


@pytest.fixture
def run(server: Server, study: Study, tmp_path: Path) -> Iterator:
    """Starts a command of `asktell` on the study, in an empty directory."""
    with Processes(tmp_path) as processes:

        def start(*command: str, rest: tuple[str, ...] = (), **environment: str) -> Process:
            place = ["--study", study.id] if command[0] == "work" else []
            line = [ASKTELL, command[0], *place, *command[1:], "--target", server.target, *rest]
            return processes.start(line, cwd=tmp_path, environment={"OMP_NUM_THREADS": "7", **environment})

        yield start


def working(run, *options: str, program: str, **environment: str) -> Process:
    return run("work", *options, rest=("--", "sh", "-c", program), **environment)


def pids(directory: Path, count: int) -> list[int]:
    """Process ids of trainings that run SLEEP."""

    def found() -> list[int]:
        texts = [path.read_text().strip() for path in directory.glob("pid-*")]
        return [int(text) for text in texts if text] if len(texts) == count and all(texts) else []

    return until(found)


def gone(numbers: list[int]) -> bool:
    return not any(psutil.pid_exists(number) for number in numbers)


def test_slots_run_trials_at_once_each_on_its_gpu_under_its_own_name(run, study: Study, tmp_path: Path) -> None:
    options = ("--slots", "4", "--gpus", "0,1", "--max-trials", "4", "--worker-id", "box")
    # GPUs that this machine need not have.
    shown = {"CUDA_VISIBLE_DEVICES": "0,1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    worker = working(run, *options, program=MEET.format(slots=4), **shown)
    assert worker.wait() == 0, worker.errors()
    trials = study.list_trials()
    assert {trial.worker_id for trial in trials} == {"box-1", "box-2", "box-3", "box-4"}
    lines = sorted(line.partition("| ")[2] for line in worker.rest().splitlines())
    assert lines == [f"slot {slot} has GPU {(slot - 1) % 2} of PCI_BUS_ID and 7 threads" for slot in (1, 2, 3, 4)]
    assert "4 slots; GPU 0, 1; " in worker.errors()
    assert "done: 4 trials done, as many as were wanted here; 4 succeeded" in worker.errors()


def test_by_default_a_worker_has_a_name_of_its_host_and_process(run, study: Study) -> None:
    worker = working(run, "--slots", "2", "--max-trials", "2", program=MEET.format(slots=2))
    assert worker.wait() == 0, worker.errors()
    names = {f"{socket.gethostname()}-{worker.pid}-{slot}" for slot in (1, 2)}
    assert {trial.worker_id for trial in study.list_trials()} == names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--slots", "3", "--gpus", "auto"),
            "3 slots cannot have 2 GPUs (0, 1) in equal parts: take --slots 1, 2 or 4,",
        ),
        (("--gpus", "96,97"), "there is no GPU "),
        (("--gpus", "0,x"), "--gpus 0,x: 'x' is neither auto nor none, nor the number or the UUID of a GPU"),
        (
            ("--slots", "2", "--metrics-file", "out.json"),
            "--metrics-file out.json would be that of 2 trials at a time: put {trial.number} into it",
        ),
    ],
)
def test_what_cannot_be_shared_is_refused_before_a_trial_is_asked_for(run, study, options, message: str) -> None:
    # Two GPUs are named here, that this machine need not have, where the command line names none.
    shown = {"CUDA_VISIBLE_DEVICES": "0,1"} if "auto" in options else {}
    worker = working(run, *options, program="exit 0", **shown)
    assert worker.wait() == 2
    assert message in worker.errors()
    assert not study.list_trials()


def test_a_signal_ends_all_trials_and_gives_them_back(run, study: Study, tmp_path: Path) -> None:
    worker = working(run, "--slots", "3", program=SLEEP)
    trainings = pids(tmp_path, 3)
    worker.terminate()
    assert worker.wait() == 0, worker.errors()
    assert gone(trainings)
    assert [trial.state.value for trial in study.list_trials()] == ["queued"] * 3


def test_a_second_ctrl_c_ends_the_worker_at_once_though_its_trainings_take_their_grace(run, tmp_path: Path) -> None:
    stubborn = "trap 'touch asked-$ASKTELL_TRIAL' TERM; echo $$ > pid-$ASKTELL_TRIAL; while :; do sleep 0.1; done"
    worker = working(run, "--slots", "2", "--grace", "4", program=stubborn)
    trainings = pids(tmp_path, 2)
    worker.popen.send_signal(signal.SIGINT)
    until(lambda: len(list(tmp_path.glob("asked-*"))) == 2)
    worker.popen.send_signal(signal.SIGINT)
    assert worker.wait() == 130
    until(lambda: gone(trainings))


def test_a_worker_that_is_killed_takes_all_its_trainings_with_it(run, tmp_path: Path) -> None:
    worker = working(run, "--slots", "3", "--grace", "1", program=SLEEP)
    trainings = pids(tmp_path, 3)
    worker.kill()
    until(lambda: gone(trainings))


def test_a_program_that_is_not_there_ends_all_slots_with_one_message(run, study: Study) -> None:
    worker = run("work", "--slots", "4", rest=("--", "no-such-program"))
    assert worker.wait() == 1
    assert worker.errors().count("there is no program 'no-such-program' to run") == 1
    assert not study.list_trials()


# Logs ---------------------------------------------------------------------------------------------------------------


def test_what_trials_write_is_in_their_logs_and_a_quiet_worker_passes_none_on(run, study: Study) -> None:
    worker = working(run, "--slots", "2", "--quiet", "--max-trials", "2", program=MEET.format(slots=2))
    assert worker.wait() == 0, worker.errors()
    assert worker.rest() == ""
    shown = run("study", "logs", study.id, "1")
    assert shown.wait() == 0
    title, said, result = shown.rest().splitlines()
    assert title.startswith("=== trial 1, attempt 1, ")
    assert said.endswith(" and 7 threads")
    assert result == '{"loss": 1}'
    last = run("study", "logs", study.id, "2", "--tail", "1")
    assert last.wait() == 0
    assert last.rest() == '{"loss": 1}\n'


def test_logs_are_followed_from_before_the_trial_begins_to_its_end(run, study: Study, tmp_path: Path) -> None:
    study.enqueue({"x": 0.5})
    shown = run("study", "logs", study.id, "1", "--follow")
    program = "echo one; while [ ! -e go ]; do sleep 0.05; done; echo two; echo '{{\"loss\": 1}}'"
    worker = working(run, "--max-trials", "1", program=program)
    assert shown.line().startswith("=== trial 1, attempt 1, ")
    assert shown.line() == "one"
    (tmp_path / "go").touch()
    assert [shown.line() for _ in range(3)] == ["two", '{"loss": 1}', ""]
    assert worker.wait() == 0, worker.errors()
    assert shown.wait() == 0, shown.errors()


def test_a_study_made_anew_under_its_name_has_none_of_the_logs_of_the_one_before(
    run, server: Server, study: Study
) -> None:
    assert working(run, "--max-trials", "1", program="echo old; exit 3").wait() == 1
    study.delete()
    with Client(server.target) as client:
        anew = client.create_study(study.id, parameters=study.parameters, objectives=study.objectives)
        anew.enqueue({"x": 0.5})
    shown = run("study", "logs", anew.id, "1")
    assert shown.wait() == 1
    assert "it has written nothing" in shown.errors()
    assert working(run, "--max-trials", "1", program="echo new; exit 3").wait() == 1
    shown = run("study", "logs", anew.id, "1")
    assert shown.wait() == 0
    assert shown.rest().splitlines()[1:] == ["new"]


def test_where_a_log_lies_is_said_if_it_is_not_here(run, study: Study) -> None:
    worker = working(run, "--max-trials", "1", "--worker-id", "elsewhere", "--logs", "none", program="exit 3")
    assert worker.wait() == 1
    shown = run("study", "logs", study.id, "1", "--follow")
    assert shown.wait() == 1
    assert "trial 1 (failed) was with elsewhere, on whose machine its log is, in that worker's --logs" in shown.errors()
    queued = study.enqueue({"x": 0.5})
    shown = run("study", "logs", study.id, str(queued.number))
    assert shown.wait() == 1
    assert f"trial {queued.number} is queued and was with no worker: it has written nothing" in shown.errors()
