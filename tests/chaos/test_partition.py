"""P13: a line that is cut, then a line that loses packets: no call outlives its deadline, and after healing all goes on."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from tests.chaos.link import CannotLink, Link
from tests.processes import ASKTELL, PATIENCE, Process, Processes, Server, until
from tests.wire import Wire

DEADLINE = 1.0
STUDY = "projects/p/studies/far"


@pytest.fixture
def link() -> Iterator[Link]:
    try:
        with Link() as line:
            yield line
    except CannotLink as reason:
        pytest.skip(f"a partition needs network namespaces, and this machine makes none: {reason}")


@dataclass(slots=True)
class Calls:
    """What the worker on the other side says of its calls, as it comes."""

    worker: Process
    ended: list[dict[str, object]] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def follow(self) -> None:
        while line := self.worker.line():
            with self.changed:
                self.ended.append(json.loads(line))
                self.changed.notify_all()

    def await_more(self, count: int, *, good: bool) -> None:
        """Return once so many further calls have succeeded, or failed."""
        with self.changed:
            start = len(self.ended)
            enough = self.changed.wait_for(
                lambda: sum((call["end"] == "ok") == good for call in self.ended[start:]) >= count, timeout=PATIENCE
            )
            assert enough, f"{self.ended[-5:]} {self.worker.errors()[-2000:]}"


def serve_far(processes: Processes, link: Link, database: Path) -> Server:
    """A server on the far side of the line."""
    return processes.serve(str(database), listen=f"{link.SERVER}:50051", program=link.command("server", ASKTELL))


def cut_and_lose(processes: Processes, link: Link, database: Path, *, cut: float, lossy: float) -> float:
    """Seconds from healing to the first call that succeeds."""
    server = serve_far(processes, link, database)
    create = "import sys; from tests.wire import Wire, small_study; Wire(sys.argv[1]).create('far', small_study())"
    assert processes.start(link.command("client", sys.executable, "-c", create, server.target)).wait() == 0
    command = [sys.executable, "-m", "tests.chaos.caller", server.target, "far", str(DEADLINE)]
    calls = Calls(processes.start(link.command("client", *command)))
    follower = threading.Thread(target=calls.follow, daemon=True)
    follower.start()
    calls.await_more(10, good=True)
    cut_off = time.monotonic()
    link.loss = 1.0
    calls.await_more(2, good=False)
    while time.monotonic() < cut_off + cut:
        calls.await_more(1, good=False)
    healed = time.monotonic()
    link.loss = 0.0
    calls.await_more(1, good=True)
    back = time.monotonic() - healed
    link.loss = 0.3
    lossy_until = time.monotonic() + lossy
    while time.monotonic() < lossy_until:
        calls.await_more(1, good=True)
    link.loss = 0.0
    calls.await_more(10, good=True)
    assert calls.worker.popen.stdin is not None
    calls.worker.popen.stdin.close()
    assert calls.worker.popen.wait(PATIENCE) == 0, calls.worker.errors()
    follower.join()
    judge(calls, server, database, processes, link, back)
    return back


def judge(calls: Calls, server: Server, database: Path, processes: Processes, link: Link, back: float) -> None:
    longest = max(float(str(call["took"])) for call in calls.ended)
    failed = [call for call in calls.ended if call["end"] != "ok"]
    assert {call["end"] for call in failed} <= {"Unavailable", "DeadlineExceeded"}
    # A second for a machine that is busy otherwise.
    assert longest <= DEADLINE + 1, "a call outlived its deadline"
    assert not [call for call in failed if "too_many_pings" in str(call["message"])]
    server.terminate()
    server.wait()
    with Wire(processes.serve(str(database)).target) as wire:
        stored = {trial.number: trial.metrics["loss"].value for trial in wire.all_trials(STUDY) if trial.metrics}
    told = {int(str(call["number"])) for call in calls.ended if call["call"] == "tell" and call["end"] == "ok"}
    assert told <= stored.keys()
    assert all(value == number / 7 for number, value in stored.items())
    print(
        f"partition: {len(calls.ended)} calls, {len(failed)} failed, {link.dropped} packets lost, the longest call"
        f" {longest:.2f} s of {DEADLINE:g} s, {back:.2f} s from healing to the first success, {len(told)} tells, 0 lost"
    )


def test_no_call_outlives_its_deadline_on_a_line_that_is_cut_and_heals(
    processes: Processes, link: Link, tmp_path: Path
) -> None:
    cut_and_lose(processes, link, tmp_path / "asktell.db", cut=2, lossy=1)


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_twenty_seconds_of_cut_line_and_of_lost_packets_are_bounded(
    processes: Processes, link: Link, tmp_path: Path
) -> None:
    assert cut_and_lose(processes, link, tmp_path / "asktell.db", cut=20, lossy=20) <= 2


@pytest.mark.chaos
@pytest.mark.timeout(300)
def test_an_idle_client_that_pings_every_ten_seconds_is_not_sent_away(processes: Processes, sqlite_file: str) -> None:
    server = processes.serve(sqlite_file)
    options = [("grpc.keepalive_time_ms", 10_000), ("grpc.keepalive_permit_without_calls", 1)]
    seen: list[grpc.ChannelConnectivity] = []
    with closing(grpc.insecure_channel(server.target, options=options)) as channel:
        channel.subscribe(seen.append, try_to_connect=True)
        until(lambda: grpc.ChannelConnectivity.READY in seen)
        # A server that does not permit it says so after the third ping.
        time.sleep(45)
    assert seen[-1] is grpc.ChannelConnectivity.READY, seen
