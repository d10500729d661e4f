"""P10: what the clocks of servers and workers say does not matter: the database's clock alone judges leases."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from asktell.v1 import trial_service_pb2 as trials
from tests.processes import ASKTELL, Processes, Server, until
from tests.wire import Wire, renew_request, seconds, small_study

SKEWS = {"an hour ahead": "+1h", "an hour behind": "-1h", "half as fast again": "+0 x1.5"}
LEASE = timedelta(seconds=4)
READ_CLOCK = "import time; print(time.time())"


def faked(skew: str) -> Mapping[str, str]:
    """The environment of a process whose clock is off by so much. Its monotonic clock, which timeouts go by, stays true."""
    found = importlib.util.find_spec("libfaketime")
    assert found is not None, "the development environment has it"
    assert found.origin is not None
    library = Path(found.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"
    return {"LD_PRELOAD": str(library), "FAKETIME": skew, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


@pytest.fixture(scope="module", autouse=True)
def fakeable() -> None:
    """The library comes built for one kind of processor."""
    shown = subprocess.run(
        [sys.executable, "-c", READ_CLOCK],
        env={**os.environ, **faked("+1h")},
        capture_output=True,
        text=True,
        check=True,
    )
    if abs(float(shown.stdout) - time.time() - 3600) > 60:
        pytest.skip(f"libfaketime cannot be loaded on this machine: {shown.stderr}")


def off_by(server: Server) -> timedelta:
    """How far a server's own clock is ahead, as its first log line shows."""
    line = json.loads(server.errors().splitlines()[0])
    return datetime.fromisoformat(line["timestamp"]) - datetime.now(UTC)


class Clock:
    """The database's clock, read past the servers."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)

    def now(self) -> datetime:
        row = self._connection.execute("SELECT clock_timestamp()").fetchone()
        assert row is not None
        time_now: datetime = row[0]
        return time_now

    def close(self) -> None:
        self._connection.close()


def renewal_of(held: Sequence[trials.Trial]) -> trials.RenewLeasesRequest:
    request = renew_request(held[0])
    for trial in held[1:]:
        request.renewals.extend(renew_request(trial).renewals)
    return request


def expires(trial: trials.Trial) -> datetime:
    return trial.lease.expire_time.ToDatetime(tzinfo=UTC)


@pytest.mark.parametrize("each", [3, pytest.param(30, marks=pytest.mark.chaos)])
def test_replicas_whose_clocks_are_wrong_expire_no_lease_early_and_agree_on_the_order(
    processes: Processes, migrated_url: str, each: int
) -> None:
    servers = [processes.serve(migrated_url, environment=faked(skew)) for skew in SKEWS.values()]
    assert off_by(servers[0]) > timedelta(minutes=59)
    assert off_by(servers[1]) < timedelta(minutes=-59)
    wires = [Wire(server.target) for server in servers]
    clock = Clock(migrated_url)
    limits = {"max_duration": seconds(1800), "max_trials": 3 * each}
    spec = small_study(lease_duration=seconds(LEASE.total_seconds()), budget=limits)
    study = wires[0].create("skewed", spec)
    assert abs(study.create_time.ToDatetime(tzinfo=UTC) - clock.now()) < timedelta(minutes=1)
    held = [trial for wire in wires for trial in wire.ask(study.name, count=each).trials]
    assert all(expires(trial) - trial.start_time.ToDatetime(tzinfo=UTC) == LEASE for trial in held)

    # Renewed in time through one replica after the other, no lease ends, whatever the others' clocks say.
    kept_until = clock.now() + 1.5 * LEASE
    turns = 0
    while clock.now() < kept_until:
        reply = wires[turns % 3].call("RenewLeases", renewal_of(held))
        for trial, renewed in zip(held, reply.leases, strict=True):
            assert renewed.directive == trials.DIRECTIVE_CONTINUE
            trial.lease.expire_time.CopyFrom(renewed.lease.expire_time)
        turns += 1
    assert {(trial.state, trial.attempt) for trial in wires[0].all_trials(study.name)} == {
        (trials.Trial.STATE_ACTIVE, 1)
    }

    # Left alone, each ends after its time and not before, and is handed out again.
    queued: dict[int, datetime] = {}
    while len(queued) < len(held):
        for trial in wires[0].all_trials(study.name):
            if trial.state == trials.Trial.STATE_QUEUED:
                queued.setdefault(trial.number, clock.now())
    early = [trial.number for trial in held if queued[trial.number] < expires(trial)]
    assert early == [], f"leases of {early} ended early"
    delays = [(queued[trial.number] - expires(trial)).total_seconds() for trial in held]
    again = [trial for wire in wires for trial in wire.ask(study.name, "next", count=each).trials]
    assert sorted(trial.number for trial in again) == sorted(queued)
    assert {trial.attempt for trial in again} == {2}

    in_order = sorted(wires[1].all_trials(study.name), key=lambda trial: trial.sequence)
    started = [trial.start_time.ToDatetime(tzinfo=UTC) for trial in in_order]
    assert started == sorted(started), "the order of changes is not that of time"
    print(f"clocks: {len(held)} leases, {turns} renewals each, 0 early, at most {max(delays):.2f} s late")
    clock.close()
    for wire in wires:
        wire.channel.close()


@pytest.mark.parametrize("skew", ["+10m", "-10m"])
def test_a_worker_whose_clock_is_wrong_keeps_its_lease(
    processes: Processes, sqlite_file: str, tmp_path: Path, skew: str
) -> None:
    (tmp_path / "train.py").write_text(
        "import time\n\n\ndef objective(parameters, trial):\n    time.sleep(5)\n    return 1\n"
    )
    server = processes.serve(sqlite_file)
    with Wire(server.target) as wire:
        study = wire.create("worker", small_study(lease_duration=seconds(2), budget={"max_trials": 1})).name
        command = [ASKTELL, "work", "--target", server.target, "--project", "p", "--study", "worker", "train:objective"]
        worker = processes.start(command, environment=faked(skew), cwd=tmp_path)
        until(lambda: worker.popen.poll() is not None)
        assert worker.wait() == 0, worker.errors()
        trial = wire.trial(study, 1)
        assert (trial.state, trial.attempt) == (trials.Trial.STATE_SUCCEEDED, 1)
