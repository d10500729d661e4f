"""The page that Prometheus reads says what the server did, of every kind of call, and is there for none who did not ask for it."""

from __future__ import annotations

import contextlib
import re
import resource
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import grpc
import psutil
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from asktell.server.prometheus import READERS
from asktell.v1 import trial_service_pb2 as trials
from tests.ports import free_port
from tests.processes import DidNotStart, Processes, Server, until
from tests.wire import METHODS, Wire, seconds, small_study, tell_request

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
DEPLOY = Path(__file__).parents[2] / "deploy"
FREE = {"ASKTELL_PROMETHEUS_LISTEN": "127.0.0.1:0", "ASKTELL_LOG_FORMAT": "json"}


def page_of(server: Server) -> str:
    """The address that the log names."""
    (found,) = re.findall(r"http://[0-9.:]+/metrics", server.errors())
    return str(found)


def read(page: str) -> Samples:
    with urlopen(page, timeout=30) as reply:
        text = reply.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    """The only sample of a name with these labels, whatever others it has; 0 if there is none."""
    found = [amount for (each, having), amount in samples.items() if each == name and labels.items() <= having]
    assert len(found) < 2, f"{name} {labels}: {len(found)} samples"
    return found[0] if found else 0.0


def handled(samples: Samples, method: str, code: str) -> float:
    return value(samples, "grpc_server_handled_total", grpc_method=method, grpc_code=code)


def grown(before: Samples, after: Samples) -> Samples:
    """What counters grew by; a gauge's difference says nothing."""
    return {key: amount - before.get(key, 0.0) for key, amount in after.items()}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on SQLite that all tests here share: each looks at what has grown since it began."""
    directory = tmp_path_factory.mktemp("prometheus")
    with Processes(directory) as processes:
        # A directory that is not there, for programs that count in files: none of this one's business.
        environment = {**FREE, "PROMETHEUS_MULTIPROC_DIR": str(directory / "none")}
        yield processes.serve(str(directory / "asktell.db"), environment=environment)


def test_calls_are_counted_by_what_became_of_them(server: Server) -> None:
    page = page_of(server)
    before = read(page)
    with Wire(server.target) as wire:
        study = wire.create("calls", small_study()).name
        stream = wire.watch(study)
        for number in range(3):
            wire.tell(wire.one(study), number / 7)
        with pytest.raises(grpc.RpcError):
            wire.study("projects/p/studies/none")
        with pytest.raises(grpc.RpcError):
            wire.send("Ask", b"\xff\xff\xff")
        with pytest.raises(grpc.RpcError):
            wire.ask(study, count=-1)
        assert value(read(page), "asktell_watches") == 1
        stream.cancel()
        # The call ends here before it does there.
        until(lambda: handled(grown(before, read(page)), "WatchStudy", "Canceled"))
        now = read(page)
    samples = grown(before, now)
    ask = {"grpc_method": "Ask", "grpc_service": "asktell.v1.TrialService", "grpc_type": "unary"}
    assert value(samples, "grpc_server_started_total", **ask) == 5
    assert value(samples, "grpc_server_handled_total", **ask, grpc_code="OK") == 3
    assert value(samples, "grpc_server_handled_total", **ask, grpc_code="InvalidArgument") == 2
    assert value(samples, "grpc_server_handling_seconds_count", **ask) == 5
    assert 0 < value(samples, "grpc_server_handling_seconds_sum", **ask) < 60
    assert value(samples, "grpc_server_handling_seconds_bucket", **ask, le="+Inf") == 5
    assert handled(samples, "GetStudy", "NotFound") == 1
    assert handled(samples, "Tell", "OK") == 3
    assert (handled(samples, "WatchStudy", "OK"), handled(samples, "WatchStudy", "Canceled")) == (0, 1)
    assert value(now, "asktell_watches") == 0
    assert value(now, "asktell_asks_waiting") == 0
    assert value(now, "process_resident_memory_bytes") > 1e7


def test_every_method_is_there_before_its_first_call(server: Server) -> None:
    names = "grpc_server_started_total", "grpc_server_handled_total"
    shown = [(name, dict(labels)) for name, labels in read(page_of(server)) if name in names]
    for each in names:
        assert {labels["grpc_method"] for name, labels in shown if name == each} == set(METHODS)
    streams = {labels["grpc_method"]: labels["grpc_type"] for _, labels in shown if labels["grpc_type"] != "unary"}
    assert streams == {"ExportStudy": "server_stream", "WatchStudy": "server_stream", "ImportStudy": "client_stream"}


def test_alerts_and_their_document_name_what_is_on_the_page(server: Server) -> None:
    with urlopen(page_of(server), timeout=30) as reply:
        families = list(text_string_to_metric_families(reply.read().decode()))
    names = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    alerts = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())
    rules = [rule for group in alerts["groups"] for rule in group["rules"]]
    used = {name for rule in rules for name in re.findall(r"\b(?:asktell|grpc_server)_\w+", rule["expr"])}
    assert {name.removesuffix("_bucket") for name in used} <= names
    assert len(used) >= 5
    section = (DEPLOY / "README.md").read_text().partition("## Prometheus\n")[2].partition("\n## ")[0]
    documented = set(re.findall(r"`((?:asktell|grpc_server)_\w+)`", section))
    assert documented == {name for name in names if name.startswith(("asktell_", "grpc_server_"))}


def test_candidates_and_results_are_counted_by_what_they_are(server: Server) -> None:
    before = read(page_of(server))
    with Wire(server.target) as wire:
        study = wire.create("candidates", small_study(policy="gp")).name
        for number in range(12):
            wire.tell(wire.one(study), (number - 6.0) ** 2)
        broken = wire.one(study)
        result = trials.TrialResult(
            number=broken.number, lease_token=broken.lease.token, failed=trials.TrialResult.Failed(message="odd")
        )
        wire.call("Tell", trials.TellRequest(parent=study, results=[result]))
        # What is told again changes nothing and is not counted again, with a request id or without, by itself or beside another.
        again, other = tell_request(wire.one(study), 1.0, request_id="r"), tell_request(wire.one(study), 2.0)
        for request_id in ("r", "r", "", "s"):
            again.request_id = request_id
            wire.call("Tell", again)
        wire.call("Tell", trials.TellRequest(parent=study, results=[*again.results, *other.results]))
        origins = [trial.origin for trial in wire.all_trials(study)]
        samples = grown(before, read(page_of(server)))
    counted: dict[tuple[str, str], float] = {}
    for (name, having), amount in samples.items():
        labels = dict(having)
        if name == "asktell_candidates_total" and labels["policy"] == "gp" and amount:
            key = labels["method"], labels["fallback"]
            counted[key] = counted.get(key, 0) + amount
    expected: dict[tuple[str, str], float] = {}
    for origin in origins:
        key = origin.method, "true" if origin.fallback else "false"
        expected[key] = expected.get(key, 0) + 1
    assert counted == expected
    assert {method for method, _ in counted} >= {"initial-design", "acquisition"}
    assert value(samples, "asktell_choice_seconds_count", policy="gp") == len(origins)
    spent = sum(origin.compute_duration.ToNanoseconds() / 1e9 for origin in origins)
    assert value(samples, "asktell_choice_seconds_sum", policy="gp") == pytest.approx(spent, abs=1e-4)
    told = {state: value(samples, "asktell_results_total", state=state) for state in ("succeeded", "failed", "stopped")}
    assert told == {"succeeded": 14, "failed": 1, "stopped": 0}
    assert value(read(page_of(server)), "asktell_engine_processes") == 1


def test_what_is_stored_is_counted_once_though_its_caller_gave_up(processes: Processes, sqlite_file: str) -> None:
    with processes:
        server = processes.serve(sqlite_file, environment={**FREE, "ASKTELL_FAILPOINTS": "tell.updated=sleep:2@1"})
        page = page_of(server)
        with Wire(server.target) as wire:
            request = tell_request(wire.one(wire.create("s", small_study()).name), 1.0, request_id="r")
            with pytest.raises(grpc.RpcError) as late:
                wire.call("Tell", request, deadline=1.0)
            assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            until(lambda: value(read(page), "asktell_results_total", state="succeeded"))
            # The answer that was kept.
            wire.call("Tell", request)
        samples = read(page)
    assert value(samples, "asktell_results_total", state="succeeded") == 1
    assert handled(samples, "Tell", "DeadlineExceeded") == 1
    assert handled(samples, "Tell", "OK") == 1


def test_readers_that_say_nothing_or_nonsense_take_little_and_are_not_in_the_log(server: Server) -> None:
    page = page_of(server)
    host, port = page.removeprefix("http://").removesuffix("/metrics").split(":")
    process = psutil.Process(server.pid)
    threads, said = process.num_threads(), server.errors()
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(socket.create_connection((host, int(port)), timeout=30))
        with Wire(server.target) as wire:
            assert wire.create("silent", small_study()).name
        assert process.num_threads() <= threads + READERS + 8
        assert not can_read(page)
    until(lambda: can_read(page))
    with socket.create_connection((host, int(port)), timeout=30) as odd:
        odd.sendall(b"GET " + b"x" * 70_000 + b"\r\n\r\n")
        assert odd.recv(1000).startswith(b"HTTP/1.0 414")
    with socket.create_connection((host, int(port)), timeout=30) as odd:
        odd.sendall(b"GET /metrics HTTP/1.0\r\nAccept: application/openmetrics-text;version=abc\r\n\r\n")
        assert odd.recv(1000).startswith(b"HTTP/1.0 ")
    with socket.create_connection((host, int(port)), timeout=30) as gone:
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        gone.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    until(lambda: can_read(page))
    assert server.errors() == said


def can_read(page: str) -> bool:
    try:
        return bool(read(page))
    except OSError:
        return False


def test_leases_that_ran_out_are_counted(server: Server) -> None:
    page = page_of(server)
    before = read(page)
    with Wire(server.target) as wire:
        study = wire.create("leases", small_study(lease_duration=seconds(1))).name
        wire.ask(study, count=3)
        until(lambda: value(grown(before, read(page)), "asktell_leases_expired_total") == 3)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets one process limit another")
def test_a_database_that_cannot_be_written_is_not_up(server: Server) -> None:
    page = page_of(server)
    before = read(page)
    until(lambda: value(read(page), "asktell_database_up") == 1)
    process = psutil.Process(server.pid)
    _, most = process.rlimit(resource.RLIMIT_FSIZE)
    process.rlimit(resource.RLIMIT_FSIZE, (0, most))
    with Wire(server.target) as wire, pytest.raises(grpc.RpcError):
        wire.create("early", small_study())
    until(lambda: value(read(page), "asktell_database_up") == 0)
    assert handled(grown(before, read(page)), "CreateStudy", "Unavailable") == 1
    process.rlimit(resource.RLIMIT_FSIZE, (most, most))
    until(lambda: value(read(page), "asktell_database_up") == 1)


def test_each_of_several_processes_has_a_page_and_its_successor_the_same(
    processes: Processes, migrated_url: str
) -> None:
    first = free_port()
    environment = {"ASKTELL_PROCESSES": "2", "ASKTELL_PROMETHEUS_LISTEN": f"127.0.0.1:{first}"}
    pages = [f"http://127.0.0.1:{port}/metrics" for port in (first, first + 1)]
    with processes:
        server = processes.serve(migrated_url, environment=environment)
        with Wire(server.target) as wire:
            wire.create("s", small_study())
        created = [handled(read(page), "CreateStudy", "OK") for page in pages]
        assert sorted(created) == [0, 1], "each counts its own"
        lost = created.index(1)
        (killed,) = [
            child
            for child in psutil.Process(server.pid).children(recursive=True)
            if any(each.status == "LISTEN" and each.laddr.port == first + lost for each in child.net_connections())
        ]
        killed.kill()

        until(lambda: can_read(pages[lost]) and handled(read(pages[lost]), "CreateStudy", "OK") == 0)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"ASKTELL_PROMETHEUS_LISTEN": "256.0.0.1:9464"}, "cannot listen for Prometheus on 256.0.0.1:9464"),
        ({"ASKTELL_PROMETHEUS_LISTEN": ".foo:9464"}, "cannot listen for Prometheus on .foo:9464"),
        ({"ASKTELL_PROMETHEUS_LISTEN": "9464"}, "'9464' is not HOST:PORT"),
    ],
)
def test_a_page_that_cannot_be_had_keeps_the_server_from_starting(
    processes: Processes, sqlite_file: str, environment: dict[str, str], message: str
) -> None:
    with processes, pytest.raises(DidNotStart, match=re.escape(message)) as refused:
        processes.serve(sqlite_file, environment=environment)
    assert "Traceback" not in str(refused.value)


def test_a_port_that_somebody_has_is_refused(processes: Processes, server: Server, tmp_path: Path) -> None:
    taken = page_of(server).removeprefix("http://").removesuffix("/metrics")
    with processes, pytest.raises(DidNotStart, match=f"cannot listen for Prometheus on {taken}: .*in use"):
        processes.serve(str(tmp_path / "b.db"), environment={"ASKTELL_PROMETHEUS_LISTEN": taken})


def test_more_processes_than_ports_are_refused(processes: Processes, migrated_url: str) -> None:
    environment = {"ASKTELL_PROCESSES": "2", "ASKTELL_PROMETHEUS_LISTEN": "127.0.0.1:65535"}
    with processes, pytest.raises(DidNotStart, match=r"127\.0\.0\.1:65535: 2 processes need as many ports"):
        processes.serve(migrated_url, environment=environment)


def test_without_being_asked_for_there_is_no_page(processes: Processes, sqlite_file: str) -> None:
    with processes:
        server = processes.serve(sqlite_file)
        listening = [each for each in psutil.Process(server.pid).net_connections() if each.status == "LISTEN"]
        assert {each.laddr.port for each in listening} == {server.port}
        assert "prometheus" not in server.errors()
