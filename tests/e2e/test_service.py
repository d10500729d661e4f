"""A server as its operators see it: start, refusals to start, health, reflection, and an end that lets calls finish."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import grpc
import psutil
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from asktell.v1 import trial_service_pb2 as trials
from tests.processes import ASKTELL, PATIENCE, Processes, until
from tests.wire import METHODS, Wire, refusal, seconds, small_study

BUF = str(Path(sys.executable).parent / "buf")
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def serve(database: str, listen: str) -> subprocess.CompletedProcess[str]:
    """A server that is expected to end by itself."""
    command = [ASKTELL, "serve", "--listen", listen, "--database", database]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE)


def test_a_second_server_on_one_sqlite_file_is_refused(processes: Processes, sqlite_file: str) -> None:
    first = processes.serve(sqlite_file)
    second = serve(sqlite_file, "127.0.0.1:0")
    assert second.returncode == 1
    assert sqlite_file in second.stderr
    assert "another server has the database" in second.stderr
    assert "Traceback" not in second.stderr
    with Wire(first.target) as wire:
        assert wire.create("alive", small_study()).name
    first.kill()
    with Wire(processes.serve(sqlite_file).target) as wire:
        assert wire.study("projects/p/studies/alive").name


def test_a_taken_port_is_refused(processes: Processes, sqlite_file: str, tmp_path: Path) -> None:
    first = processes.serve(sqlite_file)
    second = serve(str(tmp_path / "other.db"), first.target)
    assert second.returncode == 1
    assert first.target in second.stderr
    assert "Traceback" not in second.stderr


def test_sigterm_lets_an_ask_finish_says_not_serving_and_exits_with_0(processes: Processes, sqlite_file: str) -> None:
    server = processes.serve(sqlite_file, environment={"ASKTELL_DRAIN": "3600"})
    seen: list[int] = []
    changed = threading.Condition()

    def watch(channel: grpc.Channel) -> None:
        with suppress(grpc.RpcError):
            stream = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            for reply in stream:
                with changed:
                    seen.append(reply.status)
                    changed.notify_all()
                if seen[-2:] == [SERVING, NOT_SERVING]:
                    # An open stream would keep the server for as long as it drains at most.
                    stream.cancel()

    def await_status(status: int) -> None:
        with changed:
            assert changed.wait_for(lambda: bool(seen) and seen[-1] == status, timeout=PATIENCE)

    with Wire(server.target) as wire, ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch, wire.channel)
        await_status(SERVING)
        # The first model-based decision starts a process and imports torch: long enough to be caught at it.
        study = wire.create("draining", small_study(policy="gp-botorch")).name
        for trial in wire.ask(study, count=12).trials:
            wire.tell(trial, trial.parameters["x"].double_value)
        payload = trials.AskRequest(parent=study, worker_id="last").SerializeToString()
        pending = wire.channel.unary_unary(METHODS["Ask"]).future(payload, timeout=PATIENCE)
        wire.study(study)
        server.terminate()
        await_status(NOT_SERVING)
        (trial,) = trials.AskResponse.FromString(pending.result()).trials
        assert trial.lease.worker_id == "last"
        assert server.wait() == 0
        watching.result()
    with Wire(processes.serve(sqlite_file).target) as wire:
        assert wire.trial(study, trial.number).state == trials.Trial.STATE_ACTIVE


def test_health_and_reflection_answer(processes: Processes, sqlite_file: str) -> None:
    server = processes.serve(sqlite_file)
    with Wire(server.target) as wire:
        health = health_pb2_grpc.HealthStub(wire.channel)
        for service in ("", "asktell.v1.StudyService", "asktell.v1.TrialService"):
            request = health_pb2.HealthCheckRequest(service=service)
            until(lambda request=request: health.Check(request, timeout=PATIENCE).status == SERVING)
        unknown = health_pb2.HealthCheckRequest(service="asktell.v1.Nobody")
        assert refusal(lambda: health.Check(unknown, timeout=PATIENCE)).code is grpc.StatusCode.NOT_FOUND
        database = ProtoReflectionDescriptorDatabase(wire.channel)
        assert {"asktell.v1.StudyService", "asktell.v1.TrialService"} <= set(database.get_services())
        found = DescriptorPool(database).FindServiceByName("asktell.v1.TrialService")
        assert {method.name for method in found.methods} >= {"Ask", "Tell", "Report"}
    checked = subprocess.run([ASKTELL, "health", server.target], check=False, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout) == (0, "SERVING\n")


def test_a_person_with_buf_curl_needs_no_proto_files(processes: Processes, sqlite_file: str) -> None:
    server = processes.serve(sqlite_file)
    with Wire(server.target) as wire:
        wire.create("curl", small_study(lease_duration=seconds(90)))
    url = f"http://{server.target}/asktell.v1.StudyService/GetStudy"
    data = json.dumps({"name": "projects/p/studies/curl"})
    command = [BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--data", data, url]
    answer = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["spec"]["leaseDuration"] == "90s"


@pytest.mark.parametrize("signal", ["terminate", "kill"])
def test_an_idle_server_leaves_no_process_behind(processes: Processes, sqlite_file: str, signal: str) -> None:
    server = processes.serve(sqlite_file)
    with Wire(server.target) as wire:
        study = wire.create("family", small_study(policy="gp-botorch")).name
        for trial in wire.ask(study, count=12).trials:
            wire.tell(trial, trial.parameters["x"].double_value)
        assert wire.ask(study).trials
    family = psutil.Process(server.pid).children(recursive=True)
    getattr(server, signal)()
    server.wait()
    until(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in family))
