"""Trainings in several languages under `asktell work`, and such as report to the service and tell it themselves."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from asktell.client import Client, FailedPrecondition, Float, Minimize, Study, Trial, TrialState, aio
from tests.integration.test_node_client import NODE, node
from tests.processes import ASKTELL, PATIENCE, Process, Processes, Server, until

__all__ = ["node"]


@pytest.fixture
def study(server: Server, request: pytest.FixtureRequest) -> Iterator[Study]:
    # Not the default one, so that trainings have to hear of it.
    with Client(server.target, project="languages") as client:
        name = re.sub(r"\W+", "-", request.node.name)
        yield client.create_study(
            name, parameters=[Float("x", 0, 1)], objectives=[Minimize("loss")], policy="random", max_trials=2
        )


@pytest.fixture
def work(server: Server, study: Study, tmp_path: Path) -> Iterator:
    with Processes(tmp_path) as processes:

        def run(*command: str, options: tuple[str, ...] = ()) -> Process:
            place = ["--study", study.id, "--target", server.target, "--project", "languages"]
            worker = processes.start([ASKTELL, "work", *place, *options, "--", *command], cwd=tmp_path)
            worker.wait()
            return worker

        yield run


def check(study: Study, worker: Process, *, steps: list[int]) -> None:
    assert worker.wait() == 0, worker.errors()
    for trial in study.list_trials():
        assert trial.state.value == "succeeded"
        assert trial.value("loss") == pytest.approx(trial.parameters["x"] ** 2)
        assert [each.step for each in study.get_trial(trial.number).measurements] == steps
    assert "2 succeeded" in worker.errors()


def python(source: str) -> tuple[str, ...]:
    return sys.executable, "-c", source.replace("{", "{{").replace("}", "}}")


BY_LINES = """
import json, os
x = json.loads(os.environ["ASKTELL_PARAMETERS"])["x"]
for step in (1, 2):
    print(json.dumps({"step": step, "loss": x / step}))
print(json.dumps({"loss": x ** 2}))
"""

BY_SDK = """
from asktell.client import Client
with Client.from_environment() as client, client.current_trial() as trial:
    for step in (1, 2):
        assert not trial.report(step=step, loss=trial.parameters["x"] / step).should_stop
    trial.tell(loss=trial.parameters["x"] ** 2)
"""

BY_ASYNCIO = """
import asyncio
from asktell.client.aio import Client
async def main():
    async with Client.from_environment() as client, await client.current_trial() as trial:
        for step in (1, 2):
            assert not (await trial.report(step=step, loss=trial.parameters["x"] / step)).should_stop
        await trial.tell(loss=trial.parameters["x"] ** 2)
asyncio.run(main())
"""


@pytest.mark.parametrize("source", [BY_LINES, BY_SDK, BY_ASYNCIO], ids=["lines", "sdk", "asyncio"])
def test_python(study: Study, work, source: str) -> None:
    check(study, work(*python(source)), steps=[1, 2])


def test_shell(study: Study, work) -> None:
    program = """awk -v x="$ASKTELL_PARAM_X" 'BEGIN {{ printf "{{\\"step\\": 1, \\"loss\\": %s}}\\n{{\\"loss\\": %.17g}}\\n", x, x * x }}'"""
    check(study, work("sh", "-c", program), steps=[1])


def test_node_by_grpc(study: Study, work, node: str) -> None:
    check(study, work(node, str(NODE / "training.mjs")), steps=[1, 2])


def test_node_by_lines(study: Study, work, node: str) -> None:
    program = "const x = Number(process.argv[1]); console.log(JSON.stringify({{ loss: x ** 2 }}))"
    check(study, work(node, "-e", program, "{x}"), steps=[])


def test_a_training_that_told_is_not_told_again_however_it_ends(study: Study, work) -> None:
    worker = work(*python(BY_SDK + "print('{\"loss\": 7}', flush=True); raise SystemExit(trial.number % 2)"))
    check(study, worker, steps=[1, 2])
    assert len(re.findall(r"trial \d succeeded in .* s: its training told so itself", worker.errors())) == 2
    assert "did not take the result" not in worker.errors()


def test_a_training_that_raises_in_its_trial_tells_the_failure_itself(study: Study, work) -> None:
    body = BY_SDK.replace('    trial.tell(loss=trial.parameters["x"] ** 2)', "    raise ValueError('no such width')")
    worker = work(*python(body))
    assert worker.wait() == 1
    assert {trial.state.value for trial in study.list_trials()} == {"failed"}
    assert all("no such width" in trial.message for trial in study.list_trials())
    assert "did not take the result" not in worker.errors()


def test_a_process_that_works_on_no_trial_is_told_so(server: Server, study: Study, monkeypatch) -> None:
    for name in [name for name in os.environ if name.startswith("ASKTELL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ASKTELL_TARGET", server.target)
    monkeypatch.setenv("ASKTELL_PROJECT", "languages")
    with Client.from_environment() as client:
        assert client.project == "languages"
        with pytest.raises(FailedPrecondition, match="ASKTELL_STUDY, ASKTELL_TRIAL, ASKTELL_LEASE_TOKEN not set") as no:
            client.current_trial()
        assert no.value.reason == "NO_TRIAL"
        monkeypatch.setenv("ASKTELL_STUDY", study.id)
        monkeypatch.setenv("ASKTELL_TRIAL", "one")
        monkeypatch.setenv("ASKTELL_LEASE_TOKEN", "x")
        with pytest.raises(FailedPrecondition, match="ASKTELL_TRIAL is 'one'"):
            client.current_trial()


async def test_a_trial_that_ended_or_is_anothers_is_none_to_tell(server: Server, study: Study, monkeypatch) -> None:
    (trial,) = study.ask()
    monkeypatch.setenv("ASKTELL_TARGET", server.target)
    monkeypatch.setenv("ASKTELL_PROJECT", "languages")
    monkeypatch.setenv("ASKTELL_STUDY", study.id)
    monkeypatch.setenv("ASKTELL_TRIAL", str(trial.number))
    monkeypatch.setenv("ASKTELL_LEASE_TOKEN", "another's")
    async with aio.Client.from_environment() as client:
        mine = await client.current_trial()
        with pytest.raises(FailedPrecondition) as refusal:
            await mine.tell(loss=1)
        assert refusal.value.reason == "LEASE_UNKNOWN"
        trial.tell(loss=1)
        with pytest.raises(FailedPrecondition, match=r"trial \d is succeeded, not active"):
            await client.current_trial()


@pytest.fixture
def upload(server: Server, study: Study, monkeypatch, tmp_path: Path) -> Path:
    """What a worker with an object store tells a training of the study's trial: the file that asks for an upload."""
    (trial,) = study.ask()
    request = tmp_path / "upload"
    names = {"STUDY": study.id, "TRIAL": str(trial.number), "LEASE_TOKEN": trial.lease.token}
    place = {"TARGET": server.target, "PROJECT": "languages", "CHECKPOINT_UPLOAD": str(request)}
    for name, value in (names | place).items():
        monkeypatch.setenv(f"ASKTELL_{name}", value)
    return request


def uploaded(study: Study, request: Path) -> TrialState:
    """How the trial stands when its training has asked for an upload, which is then over."""
    until(request.exists)
    state = study.get_trial(1).state
    request.unlink()
    return state


@pytest.mark.parametrize("how", ["tell", "stop", "fail", "release", "leave"])
def test_a_training_that_tells_waits_until_its_state_is_uploaded(study: Study, upload: Path, how: str) -> None:
    ends: dict[str, Callable[[Trial], None]] = {
        "tell": lambda trial: trial.tell(loss=1),
        "stop": lambda trial: trial.stop({"loss": 1}),
        "fail": lambda trial: trial.fail("broken", retry=True),
        "release": lambda trial: trial.release(),
        "leave": lambda trial: trial.conclude(1),
    }
    with Client.from_environment() as client, ThreadPoolExecutor() as pool:
        over = pool.submit(ends[how], client.current_trial())
        assert uploaded(study, upload) is TrialState.ACTIVE
        over.result(PATIENCE)
    assert study.get_trial(1).state is not TrialState.ACTIVE


async def test_a_training_of_asyncio_waits_as_well(study: Study, upload: Path) -> None:
    async with aio.Client.from_environment() as client:
        trial = await client.current_trial()
        over = asyncio.create_task(trial.tell(loss=1))
        assert await asyncio.to_thread(uploaded, study, upload) is TrialState.ACTIVE
        await over
    assert study.get_trial(1).state is TrialState.SUCCEEDED


def test_a_training_whose_worker_is_gone_does_not_wait_for_it(study: Study, upload: Path, tmp_path: Path) -> None:
    tmp_path.rename(tmp_path.with_name("elsewhere"))
    with Client.from_environment() as client:
        client.current_trial().tell(loss=1)
    tmp_path.with_name("elsewhere").rename(tmp_path)
