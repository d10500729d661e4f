"""P9: a training in C code that never lets go of the interpreter, five times as long as its lease.

`asktell work` trains in a process of its own, and so keeps the lease. A loop in the user's own process cannot renew meanwhile: its lease may
end, and it goes on with the trial if nobody has taken it by then.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from asktell.v1 import study_service_pb2 as studies
from asktell.v1 import trial_service_pb2 as trials
from tests.processes import ASKTELL, Process, Processes, Server, until
from tests.wire import Wire, seconds, small_study

LEASE = 1.0
OBJECTIVE = (
    "import ctypes\n\n\ndef objective(parameters, trial):\n    ctypes.PyDLL(None).usleep(5_000_000)\n    return 1\n"
)
LOOP = """
import ctypes, sys
from asktell.client import Client, FailedPrecondition
with Client(sys.argv[1], project="p") as client:
    for trial in client.get_study(sys.argv[2]).trials(worker_id="holder"):
        print("holding", trial.number, flush=True)
        ctypes.PyDLL(None).usleep(5_000_000)
        try:
            trial.tell(loss=1)
        except FailedPrecondition:
            print("refused", flush=True)
        else:
            print("told", flush=True)
"""


@pytest.fixture
def wire(processes: Processes, sqlite_file: str) -> Iterator[Wire]:
    with Wire(processes.serve(sqlite_file).target) as connected:
        yield connected


def served(processes: Processes) -> Server:
    (server,) = [process for process in processes.started if isinstance(process, Server)]
    return server


def start_loop(processes: Processes, wire: Wire, name: str) -> Process:
    """A loop of the client that holds the interpreter while it trains; returns when it does."""
    wire.create(name, small_study(lease_duration=seconds(LEASE), budget={"max_trials": 1}))
    loop = processes.start([sys.executable, "-c", LOOP, served(processes).target, name])
    assert loop.line() == "holding 1", loop.errors()
    return loop


def test_a_loop_whose_lease_ended_meanwhile_tells_its_result_if_nobody_took_the_trial(
    processes: Processes, wire: Wire
) -> None:
    study = "projects/p/studies/alone"
    loop = start_loop(processes, wire, "alone")
    until(lambda: wire.trial(study, 1).state == trials.Trial.STATE_QUEUED)
    assert loop.line() == "told"
    assert loop.wait() == 0, loop.errors()
    trial = wire.trial(study, 1)
    assert (trial.state, trial.attempt, trial.metrics["loss"].value) == (trials.Trial.STATE_SUCCEEDED, 1, 1)


def test_a_loop_whose_trial_was_finished_by_another_meanwhile_is_refused_and_goes_on(
    processes: Processes, wire: Wire
) -> None:
    study = "projects/p/studies/taken"
    loop = start_loop(processes, wire, "taken")
    taken = until(lambda: next(iter(wire.ask(study, "other", lease_duration=seconds(600)).trials), None))
    assert taken.attempt == 2
    wire.tell(taken, 2)
    assert loop.line() == "refused"
    assert loop.wait() == 0, loop.errors()
    assert wire.trial(study, 1).metrics["loss"].value == 2


@pytest.mark.chaos
def test_ten_trainings_of_asktell_work_lose_no_lease(processes: Processes, wire: Wire, tmp_path: Path) -> None:
    """Its small form is `tests/integration/test_work_service.py`."""
    (tmp_path / "train.py").write_text(OBJECTIVE)
    spec = small_study(
        lease_duration=seconds(LEASE), budget={"max_trials": 10}, late_tells=studies.StudySpec.LATE_TELLS_REFUSE
    )
    study = wire.create("ten", spec).name
    command = [ASKTELL, "work", "--target", served(processes).target, "--project", "p", "--study", "ten"]
    workers = [processes.start([*command, "train:objective"], cwd=tmp_path) for _ in range(2)]
    for worker in workers:
        until(lambda worker=worker: worker.popen.poll() is not None)
        assert worker.wait() == 0, worker.errors()
    ended = [(trial.state, trial.attempt) for trial in wire.all_trials(study)]
    print(
        f"busy interpreter: {len(ended)} trainings of five leases each, {sum(attempt > 1 for _, attempt in ended)} lost"
    )
    assert ended == [(trials.Trial.STATE_SUCCEEDED, 1)] * 10
