"""The worker as it is started by hand, against a real server: `asktell work`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from asktell.client import Client, Float, Minimize, Study, TrialState
from tests.processes import ASKTELL, Process, Processes, Server, until

HOUR = 3600


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.target) as client:
        yield client


@pytest.fixture
def study(client: Client, request: pytest.FixtureRequest) -> Study:
    return create(client, request.node.name.partition("[")[0])


def create(client: Client, name: str, **how) -> Study:
    spec = {"parameters": [Float("x", -1, 1)], "objectives": [Minimize("loss")], "policy": "random", "seed": 0}
    return client.create_study(name, **{**spec, "max_trials": 3, **how})


@pytest.fixture
def work(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    monkeypatch.chdir(tmp_path)
    with Processes(tmp_path) as processes:

        def start(study: Study | str, *arguments: str, target: str = server.target) -> Process:
            name = study if isinstance(study, str) else study.id
            return processes.start([ASKTELL, "work", "--study", name, "--target", target, *arguments])

        yield start


def objective(source: str) -> str:
    Path("train.py").write_text(source)
    return "train:objective"


def states(study: Study) -> list[str]:
    return [trial.state.value for trial in study.list_trials()]


def test_a_function_is_evaluated_until_the_budget_is_spent(study: Study, work) -> None:
    source = """
def objective(parameters, trial):
    for step in range(3):
        trial.report(step=step, loss=step)
    return {"loss": (parameters["x"] ** 2, 0.01), "steps": 3}
"""
    worker = work(study, objective(source))
    assert worker.wait() == 0, worker.errors()
    trials = study.list_trials()
    assert [trial.value("loss") for trial in trials] == [trial.parameters["x"] ** 2 for trial in trials]
    assert trials[0].metrics["loss"].standard_error == 0.01
    assert [each.step for each in study.get_trial(1).measurements] == [0, 1, 2]
    assert "done: the study hands out no more trials: budget spent; 3 succeeded" in worker.errors()


def test_a_command_is_evaluated_until_the_budget_is_spent(study: Study, work) -> None:
    program = 'BEGIN {{ print "hello"; printf "{{\\"step\\": 1, \\"loss\\": 9}}\\n{{\\"loss\\": %.17g}}\\n", ({x})^2 }}'
    worker = work(study, "--", "awk", program)
    assert worker.wait() == 0, worker.errors()
    trials = study.list_trials()
    assert [trial.value("loss") for trial in trials] == pytest.approx([trial.parameters["x"] ** 2 for trial in trials])
    assert [each.step for each in study.get_trial(2).measurements] == [1]
    assert worker.rest() == "hello\n" * 3


def test_a_failure_is_told_with_its_message_and_the_worker_goes_on(study: Study, work) -> None:
    source = "def objective(parameters, trial):\n    if trial.number == 1:\n        raise ValueError('x is odd')\n    return 1\n"
    assert work(study, objective(source)).wait() == 0
    assert states(study) == ["failed", "succeeded", "succeeded"]
    message = study.get_trial(1).message
    assert message.startswith("Traceback")
    assert message.endswith("ValueError: x is odd")


@pytest.mark.parametrize(
    "source",
    [
        'def objective(parameters, trial):\n    return {"loss": 1.0, "\\ud800": 1.0}\n',
        "def objective(parameters, trial):\n    trial.report(step=2**70, loss=1.0)\n",
        "def objective(parameters, trial):\n    raise ValueError('\\ud800\\0')\n",
    ],
    ids=["metric", "step", "message"],
)
def test_what_a_function_says_breaks_no_worker_and_spends_its_attempt(
    client: Client, work, request: pytest.FixtureRequest, source: str
) -> None:
    study = create(client, f"poison-{request.node.callspec.id}")
    worker = work(study, "--max-failures-in-a-row", "0", objective(source))
    worker.wait()
    assert "budget spent; 3 failed" in worker.errors()
    assert [(trial.state.value, trial.attempt) for trial in study.list_trials()] == [("failed", 1)] * 3


def test_on_error_stop_ends_the_worker_with_1(study: Study, work) -> None:
    assert work(study, "--on-error", "stop", "--", "sh", "-c", "echo no; exit 3").wait() == 1
    assert states(study) == ["failed"]
    assert study.get_trial(1).message == "no\nexit status 3"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_gives_the_trial_back_and_the_next_worker_gets_it(
    client: Client, work, number: int, status: int
) -> None:
    study = create(client, f"signal-{number}")
    source = (
        "import os, time\ndef objective(parameters, trial):\n    print(os.getpid(), flush=True)\n    time.sleep(3600)\n"
    )
    worker = work(study, objective(source))
    training = int(worker.line())
    os.kill(worker.pid, number)
    assert worker.wait() == status, worker.errors()
    until(lambda: not psutil.pid_exists(training))
    (again,) = study.ask(worker_id="next")
    assert (again.number, again.attempt) == (1, 2)
    again.release()


def test_a_worker_that_is_killed_leaves_no_training_behind(study: Study, work) -> None:
    worker = work(study, "--", "sh", "-c", f"sleep {HOUR} & echo $! $$; wait")
    trainings = list(map(int, worker.line().split()))
    worker.kill()
    until(lambda: not any(map(psutil.pid_exists, trainings)))


def test_a_killed_worker_leaves_no_function_running_that_holds_the_interpreter(study: Study, work) -> None:
    source = """
import os, re
def objective(parameters, trial):
    print(os.getpid(), flush=True)
    re.match(r"(a+)+$", "a" * 60 + "b")
"""
    worker = work(study, "--grace", "0.2", objective(source))
    training = int(worker.line())
    worker.kill()
    until(lambda: not psutil.pid_exists(training))


def test_the_lease_outlives_a_function_that_holds_the_interpreter(client: Client, work) -> None:
    study = create(client, "holding", lease_duration=2, max_trials=1)
    source = """
import ctypes
def objective(parameters, trial):
    ctypes.PyDLL(None).usleep(5_000_000)
    return 1
"""
    worker = work(study, objective(source))
    assert worker.wait() == 0, worker.errors()
    (trial,) = study.list_trials()
    assert (trial.state, trial.attempt) == (TrialState.SUCCEEDED, 1)


def test_a_trial_that_is_cancelled_ends_its_training(client: Client, work) -> None:
    study = create(client, "cancelled", lease_duration=1, max_trials=1)
    worker = work(study, "--max-trials", "1", "--", "sh", "-c", f"echo $$; exec sleep {HOUR}")
    training = int(worker.line())
    study.get_trial(1).cancel()
    until(lambda: not psutil.pid_exists(training))
    assert worker.wait() == 0, worker.errors()
    assert states(study) == ["cancelled"]


def test_a_result_waits_for_a_server_that_is_away(tmp_path_factory, tmp_path: Path, work) -> None:
    with Processes(tmp_path_factory.mktemp("away")) as processes:
        server = processes.serve(str(tmp_path / "away.db"))
        with Client(server.target) as client:
            create(client, "away", max_trials=1)
        program = f"echo started; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; echo '{{{{\"loss\": 1}}}}'"
        worker = work("away", "--", "sh", "-c", program, target=server.target)
        assert worker.line() == "started"
        server.kill()
        (tmp_path / "go").touch()
        until(lambda: "the service is away, trying on" in worker.errors())
        again = processes.again(server)
        assert worker.wait() == 0, worker.errors()
        with Client(again.target) as client:
            assert client.get_study("away").get_trial(1).value("loss") == 1.0


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (
            ["no-such-study", "train:objective"],
            1,
            "asktell work: there is no study projects/default/studies/no-such-study",
        ),
        (["misused"], 2, "asktell work: name an objective"),
        (["misused", "no_such_module:objective"], 1, "no module 'no_such_module'"),
        (["misused", "--", "no-such-program"], 1, "there is no program 'no-such-program'"),
        (["misused", "--", "echo", "{y}"], 2, "{y} is no parameter of the study: x"),
        (["misused", "--metrics-file", "m.json", "train:objective"], 2, "--metrics-file is for command lines"),
        (["misused", "--timeout", "0", "train:objective"], 2, "Must be > 0"),
    ],
)
def test_a_misuse_is_one_clear_line_and_costs_no_trial(
    client: Client, work, arguments: list[str], status: int, message: str
) -> None:
    study = create(client, "misused")
    worker = work(*arguments)
    assert worker.wait() == status
    # What the worker says of its slots is said before it looks for the program.
    (line,) = [line for line in worker.errors().splitlines() if " INFO 1 slot" not in line]
    assert message in line
    assert study.list_trials() == []


def test_python_dash_m_does_the_same(server: Server, client: Client, tmp_path: Path) -> None:
    study = create(client, "dash-m", max_trials=1)
    with Processes(tmp_path) as processes:
        command = ["--study", study.id, "--target", server.target, "--", "echo", '{{"loss": 1}}']
        worker = processes.start([sys.executable, "-m", "asktell.worker", *command])
        assert worker.wait() == 0, worker.errors()
    assert states(study) == ["succeeded"]
