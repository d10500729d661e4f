"""`asktell study watch` against a real server."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from asktell.client import Client, Float, Minimize, Study
from tests.processes import ASKTELL, Process, Processes, Server, until


@pytest.fixture
def study(server: Server, request: pytest.FixtureRequest) -> Iterator[Study]:
    with Client(server.target) as client:
        name = request.node.name.replace("_", "-").partition("[")[0]
        yield client.create_study(
            name, parameters=[Float("x", 0, 1)], objectives=[Minimize("y")], policy="random", max_trials=3
        )


@pytest.fixture
def watch(server: Server, study: Study, tmp_path: Path):
    """Starts `asktell study watch` on the study."""
    with Processes(tmp_path) as processes:

        def start(*arguments: str) -> Process:
            command = [ASKTELL, "study", "watch", study.id, "--target", server.target, *arguments]
            return processes.start(command, environment={"COLUMNS": "200"})

        yield start


def test_ctrl_c_ends_a_watch_well(study: Study, watch) -> None:
    process = watch("--after", "0", "--format", "jsonl")
    assert json.loads(process.line())["study"]["name"].endswith(study.id)
    process.popen.send_signal(signal.SIGINT)
    assert process.wait() == 0
    assert (process.rest(), process.errors()) == ("", "")


def test_each_change_is_a_line_of_json_with_its_sequence_number(study: Study, watch) -> None:
    process = watch("--after", "1", "--format", "jsonl")
    (trial,) = study.ask(worker_id="gpu-0")
    asked = json.loads(process.line())
    assert (asked["sequence"], asked["trial"]["number"], asked["trial"]["state"]) == (2, 1, "active")
    trial.tell(y=0.5)
    told = json.loads(process.line())
    assert (told["sequence"], told["trial"]["metrics"]["y"]["value"]) == (3, 0.5)
    study.pause()
    assert json.loads(process.line())["study"]["state"] == "paused"


def missing(line: str, *words: str) -> list[str]:
    return [word for word in words if word not in line]


def test_people_get_a_line_with_what_matters(study: Study, watch) -> None:
    process = watch("--after", "1")
    (trial,) = study.ask(worker_id="gpu-0")
    assert missing(process.line(), "trial 1", "active", "x=", "gpu-0") == []
    trial.fail("out of memory")
    assert missing(process.line(), "trial 1", "failed", "out of memory") == []
    study.finish()
    assert missing(process.line(), "study", "finished", "1 failed") == []


def test_a_watch_until_finished_shows_everything_and_ends(study: Study, watch) -> None:
    process = watch("--after", "0", "--format", "jsonl", "--until-finished")
    for trial in study.trials():
        trial.tell(y=0.5)
    assert process.wait() == 0
    lines = [json.loads(line) for line in process.rest().splitlines()]
    states = {line["trial"]["number"]: line["trial"]["state"] for line in lines if "trial" in line}
    assert states == dict.fromkeys((1, 2, 3), "succeeded")
    again = watch("--after", "0", "--format", "jsonl", "--until-finished")
    assert again.wait() == 0
    assert len(again.rest().splitlines()) == 4


def test_a_watch_of_a_study_that_is_deleted_says_so(study: Study, watch) -> None:
    process = watch("--after", "0", "--format", "jsonl")
    process.line()
    study.delete()
    assert process.wait() == 1
    assert "there is no study" in process.errors()


def test_a_watch_says_that_the_service_is_gone_and_goes_on_when_it_is_back(tmp_path: Path) -> None:
    database = str(tmp_path / "asktell.db")
    with Processes(tmp_path) as processes:
        server = processes.serve(database)
        with Client(server.target) as client:
            client.create_study("lasting", parameters=[Float("x", 0, 1)], objectives=[Minimize("y")])
        command = [ASKTELL, "study", "watch", "lasting", "--target", server.target, "--after", "0"]
        watch = processes.start(command, environment={"COLUMNS": "200"})
        assert "active" in watch.line()
        server.kill()
        until(lambda: "trying again for up to 300 s" in watch.log.read_text())
        processes.serve(database, listen=server.target)
        with Client(server.target) as client:
            client.get_study("lasting").finish()
        assert "finished" in watch.line()
