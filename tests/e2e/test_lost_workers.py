"""Workers that die, hang or are cut off: another takes over, once, and no late word overwrites what stands.

How long this process takes is not measured: leases begin and end by the database's clock, which the trials show.
"""

from __future__ import annotations

import itertools
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from asktell.v1 import study_service_pb2 as studies
from asktell.v1 import trial_service_pb2 as trials
from tests.e2e.worker import HANDED_OUT
from tests.processes import ASKTELL, Process, Processes, Server, until
from tests.wire import Wire, refusal, renew_request, report_request, seconds, small_study, tell_request

LEASE = 1.0
LATEST = timedelta(seconds=2)
_names = itertools.count(1)
REFUSE = studies.StudySpec.LATE_TELLS_REFUSE


def start_worker(processes: Processes, server: Server, study: str, worker: str, *, value: float) -> Process:
    command = [sys.executable, "-m", "tests.e2e.worker", server.target, study, worker, str(value)]
    return processes.start(command)


def handed_out(worker: Process) -> trials.Trial:
    """What a worker that has said so was given, as it was then."""
    line = next(line for line in worker.errors().splitlines() if line.startswith(HANDED_OUT))
    return trials.Trial.FromString(bytes.fromhex(line.removeprefix(HANDED_OUT)))


def handed_on(wire: Wire, study: str) -> trials.Trial:
    """What another worker gets, once there is something to get."""
    return until(lambda: next(iter(wire.ask(study, "other", lease_duration=seconds(600)).trials), None))


def handed_on_in_time(wire: Wire, study: str, expires: datetime) -> trials.Trial:
    """The same; an ask two seconds after the lease's end has to get it. This machine's clock is the database's."""
    while True:
        asked = datetime.now(UTC)
        found = wire.ask(study, "other", lease_duration=seconds(600)).trials
        if found:
            return found[0]
        assert asked <= expires + LATEST, f"nothing at {asked}, though the lease ended at {expires}"
        time.sleep(0.02)


def queued_study(wire: Wire, count: int = 1, **spec: object) -> str:
    """A study that has only so many trials, which wait for workers."""
    budget = {"max_trials": count}
    study = wire.create(f"lost-{next(_names)}", small_study(budget=budget, lease_duration=seconds(LEASE), **spec)).name
    wire.enqueue(study, [index / count for index in range(count)])
    return study


def when(trial: trials.Trial) -> datetime:
    return trial.start_time.ToDatetime(tzinfo=UTC)


def test_a_killed_workers_trial_goes_to_another_within_its_lease_and_two_seconds(
    processes: Processes, server: Server
) -> None:
    with Wire(server.target) as wire:
        study = queued_study(wire)
        worker = start_worker(processes, server, study, "first", value=1)
        assert worker.line() == "1 1"
        worker.kill()
        before = handed_out(worker)
        expires = before.lease.expire_time.ToDatetime(tzinfo=UTC)
        taken = handed_on_in_time(wire, study, expires)
        assert (taken.number, taken.attempt, taken.lease.worker_id) == (1, 2, "other")
        assert taken.parameters == before.parameters
        assert expires - when(before) == timedelta(seconds=LEASE)
        assert expires <= when(taken)
        assert wire.tell(taken, 2).state == trials.Trial.STATE_SUCCEEDED
        assert wire.study(study).trial_counts.succeeded == 1


def test_a_killed_asktell_work_hands_its_trial_on(processes: Processes, server: Server, tmp_path: Path) -> None:
    objective = tmp_path / "objective.py"
    objective.write_text(
        "import threading\n\n\ndef endless(parameters, trial):\n    print('at work', flush=True)\n    threading.Event().wait()\n"
    )
    with Wire(server.target) as wire:
        study = queued_study(wire)
        command = [ASKTELL, "work", "--target", server.target, "--project", "p", "--study", study.rpartition("/")[2]]
        worker = processes.start([*command, "objective:endless"], cwd=tmp_path)
        until(lambda: wire.study(study).trial_counts.active == 1 or worker.popen.poll() is not None)
        assert worker.popen.poll() is None, worker.errors()
        worker.end()
        taken = handed_on(wire, study)
        assert (taken.number, taken.attempt) == (1, 2)
        assert wire.tell(taken, 2).metrics["loss"].value == 2


@pytest.mark.parametrize("late_tells", [studies.StudySpec.LATE_TELLS_ACCEPT, REFUSE])
def test_a_zombie_cannot_overwrite(processes: Processes, server: Server, late_tells: int) -> None:
    with Wire(server.target) as wire:
        study = queued_study(wire, late_tells=late_tells)
        zombie = start_worker(processes, server, study, "zombie", value=1)
        assert zombie.line() == "1 1"
        zombie.pause()
        taken = handed_on(wire, study)
        assert taken.attempt == 2
        ended = wire.tell(taken, 2)
        zombie.say("tell")
        zombie.resume()
        assert zombie.line() == "TRIAL_ENDED"
        assert zombie.wait() == 0
        assert wire.trial(study, 1) == ended
        assert ended.metrics["loss"].value == 2


def test_a_late_tell_before_anothers_is_accepted_once_and_the_other_is_told_to_stop(server: Server) -> None:
    with Wire(server.target) as wire:
        study = queued_study(wire)
        late = wire.one(study, "late")
        taken = handed_on(wire, study)
        assert wire.tell(late, 1).metrics["loss"].value == 1
        report = wire.call("Report", report_request(taken, 1, 5))
        assert report.directive == trials.DIRECTIVE_ABANDON
        (renewal,) = wire.call("RenewLeases", renew_request(taken)).leases
        assert renewal.directive == trials.DIRECTIVE_ABANDON
        assert refusal(lambda: wire.tell(taken, 2)).reason == "TRIAL_ENDED"
        assert wire.trial(study, 1).metrics["loss"].value == 1


def test_a_study_that_refuses_late_tells_takes_the_new_holders_alone(server: Server) -> None:
    with Wire(server.target) as wire:
        study = queued_study(wire, late_tells=REFUSE)
        late = wire.one(study, "late")
        taken = handed_on(wire, study)
        assert refusal(lambda: wire.tell(late, 1)).reason == "LEASE_LOST"
        assert wire.tell(taken, 2).metrics["loss"].value == 2


def test_a_poisonous_trial_fails_after_three_attempts(processes: Processes, server: Server) -> None:
    with Wire(server.target) as wire:
        study = queued_study(wire, max_attempts=3)
        for attempt in (1, 2, 3):
            until(lambda: wire.study(study).trial_counts.queued)
            worker = start_worker(processes, server, study, f"victim-{attempt}", value=0)
            assert worker.line() == f"1 {attempt}"
            worker.kill()
        until(lambda: wire.study(study).trial_counts.failed)
        trial = wire.trial(study, 1)
        assert (trial.state, trial.attempt) == (trials.Trial.STATE_FAILED, 3)
        assert "victim-3" in trial.message
        answer = wire.ask(study)
        assert not answer.trials
        assert answer.study_state == trials.AskResponse.STATE_CLOSED


@pytest.mark.parametrize("call", ["RenewLeases", "Report", "Tell"])
def test_after_an_outage_longer_than_its_lease_a_worker_goes_on(
    processes: Processes, sqlite_file: str, call: str
) -> None:
    server = processes.serve(sqlite_file)
    with Wire(server.target) as wire:
        study = queued_study(wire)
        trial = wire.one(study, "patient")
    server.kill()
    expires = trial.lease.expire_time.ToDatetime(tzinfo=UTC)
    until(lambda: datetime.now(UTC) > expires)
    back = processes.again(server)
    with Wire(back.target) as wire:
        until(lambda: wire.trial(study, 1).state == trials.Trial.STATE_QUEUED)
        if call == "RenewLeases":
            (lease,) = wire.call("RenewLeases", renew_request(trial)).leases
            assert lease.directive == trials.DIRECTIVE_CONTINUE
        elif call == "Report":
            assert wire.call("Report", report_request(trial, 1, 5)).directive == trials.DIRECTIVE_CONTINUE
        told = wire.call("Tell", tell_request(trial, 1)).trials[0]
        assert (told.state, told.attempt) == (trials.Trial.STATE_SUCCEEDED, 1)
