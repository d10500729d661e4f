"""Servers that are killed, a database that crashes and replies that are lost, all under load: no promise is broken (P1, P2, and the bar).

Workers use the SDK in processes of their own and write down what they see; the checker compares that with the database.
"""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from asktell.v1 import study_service_pb2 as studies
from asktell.v1 import trial_service_pb2 as trials
from tests.chaos.broken_server import FORGET, PRETEND
from tests.chaos.checker import Happened, violations
from tests.chaos.cluster import Cluster, cluster, own_postgres
from tests.chaos.history import read
from tests.chaos.seed import SEED, say
from tests.chaos.worker import Crew
from tests.postgres import Postgres
from tests.processes import Process, Processes, until
from tests.wire import Wire, seconds, small_study

LEASE = 3.0
TIMEOUT = 20.0
PATIENCE = 120.0
READY_WITHIN = 5.0
FROZEN = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Siege:
    """What is done to the service, and under which load.

    Every `pause` seconds a server is killed, at least `kills` times, or the database crashes, `crashes` times, or a server is stopped for
    `FROZEN` seconds and goes on as if nothing had happened, `freezes` times. Workers come in `crews`, a process each; a trial takes them
    `effort` on average. There are `trials` trials at least, or `exactly` so many. `loss` is the share of replies that are lost. After
    `limit` the clients count as stuck. All times in seconds.
    """

    servers: int
    crews: int
    workers: int
    trials: int
    exactly: bool = False
    effort: float = 0.05
    loss: float = 0.0
    kills: int = 0
    crashes: int = 0
    freezes: int = 0
    pause: tuple[float, float] = (1.0, 2.0)
    limit: float = 300.0
    fsync: bool = True


SMALL = Siege(servers=2, crews=2, workers=8, trials=100, loss=0.1, kills=1, crashes=1, pause=(0.5, 1.0), fsync=False)
SMALL_SQLITE = Siege(servers=1, crews=1, workers=8, trials=100, loss=0.1, kills=2, pause=(0.5, 1.0))
CONTROL = Siege(servers=2, crews=2, workers=8, trials=200, exactly=True)
BAR = Siege(
    servers=4,
    crews=5,
    workers=50,
    trials=2_000,
    exactly=True,
    effort=1.5,
    loss=0.1,
    kills=5,
    crashes=1,
    freezes=2,
    pause=(2, 4),
)
KILLS = Siege(servers=3, crews=2, workers=16, trials=5_000, kills=60, limit=1_200)
CRASHES = Siege(servers=3, crews=2, workers=16, trials=1_000, crashes=10, pause=(1, 3), limit=1_200)
KILLS_SQLITE = Siege(servers=1, crews=2, workers=16, trials=5_000, kills=60, limit=1_200)


@dataclass(slots=True)
class Battle:
    """A siege in progress."""

    siege: Siege
    cluster: Cluster
    postgres: Postgres | None
    directory: Path
    chance: random.Random = field(default_factory=lambda: random.Random(SEED))
    crews: list[Process] = field(default_factory=list)
    crashes: int = 0
    freezes: int = 0
    slowest_recovery: float = 0.0
    study: str = ""
    told: int = 0
    ends: float = 0.0

    def begin(self) -> None:
        """Create the study and let the crews work."""
        self.ends = time.monotonic() + self.siege.limit
        budget = {"max_trials": self.siege.trials} if self.siege.exactly else {}
        spec = {
            "lease_duration": seconds(LEASE),
            "late_tells": studies.StudySpec.LATE_TELLS_REFUSE,
            "max_attempts": 100,
        }
        with Wire(self.cluster.servers[0].target) as wire:
            self.study = wire.create("siege", small_study(budget=budget, **spec)).name
        for index in range(self.siege.crews):
            self.crews.append(self.cluster.processes.start(self._crew(index).command()))

    def _crew(self, index: int) -> Crew:
        return Crew(
            name=f"crew-{index}",
            target=self.cluster.target,
            study=self.study.rpartition("/")[2],
            workers=self.siege.workers // self.siege.crews,
            history=str(self.directory / f"crew-{index}.jsonl"),
            seed=SEED,
            effort=self.siege.effort,
            timeout=TIMEOUT,
            patience=PATIENCE,
            failing=0.03,
            again=0.1,
        )

    def rage(self) -> None:
        """Do what the siege says, then let the study come to its end, killing on if the number of trials is given."""
        for action in self._actions():
            self._pause()
            if not self._working():
                break
            assert time.monotonic() < self.ends, f"clients are stuck: {self._standing()}"
            until(self._went_on)
            action()
        self.cluster.complete()
        if not self.siege.exactly:
            self._close()
        for crew in self.crews:
            status = crew.popen.wait(max(self.ends - time.monotonic(), 1.0))
            assert status == 0, f"a crew ended with {status}: {crew.errors()[-3000:]}"

    def _actions(self) -> Iterator[Callable[[], None]]:
        planned = [self._kill] * self.siege.kills + [self._crash] * self.siege.crashes
        planned += [self._freeze] * self.siege.freezes
        self.chance.shuffle(planned)
        yield from planned
        while self.siege.exactly:
            yield self._kill

    def _pause(self, length: float | None = None) -> None:
        """Some time, or until the first crew has ended."""
        try:
            self.crews[0].popen.wait(length or self.chance.uniform(*self.siege.pause))
        except subprocess.TimeoutExpired:
            pass

    def _went_on(self) -> bool:
        """Whether trials were told since the last time, or all work is done: what is broken next shall be at work."""
        for index in self.cluster.up():
            with Wire(self.cluster.servers[index].target) as wire:
                try:
                    told = wire.study(self.study).trial_counts.succeeded
                except grpc.RpcError:
                    continue
            if told >= self.told + self.siege.workers:
                self.told = told
                return True
        return not self._working()

    def _working(self) -> bool:
        return any(crew.popen.poll() is None for crew in self.crews)

    def _kill(self) -> None:
        if not self.cluster.up():
            self.cluster.complete()
        self.cluster.kill(self.chance.choice(self.cluster.up()))
        say(f"kill {self.cluster.kills}: {self._standing()}")

    def _freeze(self) -> None:
        self.cluster.complete()
        frozen = self.chance.choice(self.cluster.servers)
        frozen.pause()
        self._pause(FROZEN)
        frozen.resume()
        self.freezes += 1
        say(f"freeze {self.freezes}: {self._standing()}")

    def _crash(self) -> None:
        assert self.postgres is not None
        self.cluster.complete()
        self.postgres.crash()
        self.postgres.start()
        recovered = time.monotonic()
        until(self._at_work)
        took = time.monotonic() - recovered
        self.crashes += 1
        self.slowest_recovery = max(self.slowest_recovery, took)
        say(f"database crash {self.crashes}: serving {took:.1f} s after its recovery; {self._standing()}")

    def _at_work(self) -> bool:
        """Whether every server says that it serves, and does: reads and writes."""
        change = studies.Study(name=self.study, labels={"crash": str(self.crashes)})
        request = studies.UpdateStudyRequest(study=change, update_mask={"paths": ["labels"]})
        try:
            for server in self.cluster.servers:
                with Wire(server.target) as wire:
                    wire.call("UpdateStudy", request)
        except grpc.RpcError:
            return False
        return self.cluster.serving()

    def _close(self) -> None:
        """End the study once it has as many trials as there shall be."""
        with Wire(self.cluster.servers[0].target, wait=True) as wire:
            more = 2 * self.siege.workers
            while (count := len(wire.all_trials(self.study))) < self.siege.trials - more:
                assert time.monotonic() < self.ends, f"{count} trials are too few: {self._standing()}"
                self._pause()
            change = studies.Study(name=self.study, budget=studies.Budget(max_trials=count + more))
            wire.surely("UpdateStudy", studies.UpdateStudyRequest(study=change, update_mask={"paths": ["budget"]}))

    def _standing(self) -> str:
        return f"{self.cluster.lost} of {self.cluster.replies} replies lost" if self.siege.loss else "no replies lost"

    def outcome(self) -> Happened:
        """What the clients saw and what the database has."""
        self.cluster.complete()
        with Wire(self.cluster.servers[0].target) as wire:
            stored = wire.all_trials(self.study)
        return Happened(history=read(self.directory.glob("crew-*.jsonl")), stored=stored, refuses_late=True)


def run(siege: Siege, processes: Processes, database: str, postgres: Postgres | None, directory: Path) -> Battle:
    """A siege from its beginning to its end, with all that must hold."""
    with cluster(processes, database, servers=siege.servers, loss=siege.loss, seed=SEED) as besieged:
        battle = Battle(siege, besieged, postgres, directory)
        battle.begin()
        battle.rage()
        happened = battle.outcome()
    say(summary(battle, happened))
    broken = violations(happened)
    assert not broken, "\n".join(f"{rule}: {len(found)}: {found[:5]}" for rule, found in broken.items())
    assert besieged.kills >= siege.kills
    assert (battle.crashes, battle.freezes) == (siege.crashes, siege.freezes)
    assert besieged.lost > 0 or not siege.loss
    assert {trial.state for trial in happened.stored} == {trials.Trial.STATE_SUCCEEDED}
    assert len(happened.stored) == siege.trials if siege.exactly else len(happened.stored) >= siege.trials
    return battle


def summary(battle: Battle, happened: Happened) -> str:
    """The counts, for people."""
    acknowledged = sum(len(event.request.results) for event in happened.answered("Tell"))
    failed = sum(bool(event.code) for event in happened.history)
    return (
        f"{len(happened.stored)} trials, {len(happened.claims)} claims, {acknowledged} acknowledged tells,"
        f" {len(happened.history)} attempts of calls of which {failed} failed, {battle.cluster.kills} kills,"
        f" {battle.freezes} freezes, {battle.crashes} crashes of the database (serving again within {battle.slowest_recovery:.1f} s),"
        f" {battle.cluster.lost} of {battle.cluster.replies} replies lost by the proxy"
    )


@pytest.mark.parametrize(
    "siege",
    [
        pytest.param(SMALL, id="small"),
        pytest.param(BAR, id="bar", marks=[pytest.mark.chaos, pytest.mark.timeout(420)]),
        pytest.param(KILLS, id="kills", marks=[pytest.mark.chaos, pytest.mark.timeout(1_300)]),
        pytest.param(CRASHES, id="crashes", marks=[pytest.mark.chaos, pytest.mark.timeout(1_300)]),
    ],
)
def test_replicas_on_postgresql_lose_and_repeat_nothing(siege: Siege, processes: Processes, tmp_path: Path) -> None:
    with own_postgres(fsync=siege.fsync) as postgres, ExitStack() as ended:
        # Servers end before their database.
        ended.callback(lambda: [process.end() for process in reversed(processes.started)])
        database = postgres.url(postgres.create_database(migrated=True))
        battle = run(siege, processes, database, postgres, tmp_path)
        assert battle.slowest_recovery <= READY_WITHIN or siege is SMALL


@pytest.mark.parametrize(
    "siege",
    [
        pytest.param(SMALL_SQLITE, id="small"),
        pytest.param(KILLS_SQLITE, id="kills", marks=[pytest.mark.chaos, pytest.mark.timeout(1_300)]),
    ],
)
def test_one_server_on_sqlite_loses_and_repeats_nothing(
    siege: Siege, processes: Processes, sqlite_file: str, tmp_path: Path
) -> None:
    run(siege, processes, sqlite_file, None, tmp_path)


@pytest.mark.chaos
@pytest.mark.parametrize(
    ("breach", "found"), [(FORGET, {"unequal_replies"}), (PRETEND, {"lost_tells", "claimed_twice"})]
)
def test_a_siege_sees_a_server_that_breaks_its_word(
    processes: Processes, migrated_url: str, tmp_path: Path, breach: str, found: set[str]
) -> None:
    with cluster(processes, migrated_url, servers=2, loss=0.1, seed=SEED, breach=breach) as broken:
        battle = Battle(CONTROL, broken, None, tmp_path)
        battle.begin()
        for crew in battle.crews:
            # It may well give up, or wait for what was never stored.
            with suppress(subprocess.TimeoutExpired):
                crew.popen.wait(20)
            crew.end()
        seen = violations(battle.outcome())
    counts = {rule: len(sentences) for rule, sentences in seen.items()}
    say(f"a server that does {breach}: {counts}")
    assert found <= set(seen)
