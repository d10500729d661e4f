"""Trainings that keep their state in the directory they are given. The study is a fake; processes and directories are not."""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
import signal
import socket
import sys
import threading
from pathlib import Path

import pytest

from asktell.client import InvalidArgument, Unavailable
from asktell.worker import checkpoints as places
from asktell.worker import copying
from asktell.worker.checkpoints import (
    NO_CHECKPOINTS,
    Checkpoints,
    DirectoryCheckpoints,
    Unwritable,
)
from asktell.worker.command import Template
from asktell.worker.copying import BrokenOff, copy_at_rest
from asktell.worker.evaluation import Limits, Unusable
from asktell.worker.interruption import Interruption
from asktell.worker.loop import Options, Worker
from asktell.worker.objective import Objective
from asktell.worker.program import Program
from asktell.worker.resuming import Unresumable, local_path
from tests.processes import until
from tests.unit.test_worker_fake import FakeStudy, FakeTrial

GOES_ON = {"broken_off": lambda: False}
OWN = "s3://own/store/7"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def root(tmp_path: Path) -> DirectoryCheckpoints:
    return DirectoryCheckpoints(tmp_path / "root" / "p" / "s")


def trial(**how) -> FakeTrial:
    return FakeTrial(1, FakeStudy(), **how)


def run(study: FakeStudy, evaluator, interruption: Interruption) -> FakeStudy:
    options = Options(worker_id="w", max_trials=study.budget)
    Worker(study, evaluator, options=options, interruption=interruption).run()
    return study


def command(
    study: FakeStudy,
    source: str,
    checkpoints: Checkpoints,
    *,
    interruption: Interruption | None = None,
    arguments: tuple[str, ...] = (),
    **limits,
) -> FakeStudy:
    Path("train_command.py").write_text(source)
    wish = interruption or Interruption()
    program = Program(
        Template.parse([sys.executable, "train_command.py", *arguments]),
        objectives=study.metrics,
        limits=Limits(**{"grace": 20.0, **limits}),
        interruption=wish,
        checkpoints=checkpoints,
    )
    return run(study, program, wish)


def function(
    study: FakeStudy, source: str, checkpoints: Checkpoints, interruption: Interruption | None = None, **limits
) -> FakeStudy:
    Path("train.py").write_text(source)
    wish = interruption or Interruption()
    objective = Objective(
        "train:objective",
        objectives=study.metrics,
        limits=Limits(**{"grace": 20.0, **limits}),
        interruption=wish,
        checkpoints=checkpoints,
    )
    return run(study, objective, wish)


def interrupt_when(path: Path, interruption: Interruption) -> threading.Thread:
    def wait() -> None:
        until(path.exists)
        interruption.interrupt()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def state(uri: str) -> dict:
    return json.loads((local_path(uri) / "state.json").read_text())


# Directories --------------------------------------------------------------------------------------------------------


def test_an_attempt_has_a_directory_of_its_own_and_nowhere_to_point_to_while_it_is_empty(root, here: Path) -> None:
    first = root.begin(trial(), **GOES_ON)
    assert first.directory == here / "root/p/s/1/attempt-1"
    assert first.uri() == ""
    (first.directory / "state").touch()
    assert local_path(first.uri()) == first.directory


def test_the_next_attempt_finds_a_copy_and_what_the_first_still_writes_is_not_in_it(root) -> None:
    first = root.begin(trial(), **GOES_ON)
    (first.directory / "deep").mkdir()
    (first.directory / "deep" / "state").write_text("1")
    second = root.begin(trial(attempt=2, checkpoint_uri=first.uri()), **GOES_ON)
    (first.directory / "deep" / "state").write_text("late")
    assert (second.directory / "deep" / "state").read_text() == "1"
    assert second.directory.name == "attempt-2"


def test_a_state_elsewhere_is_brought_whether_directory_or_file(root, here: Path) -> None:
    (here / "a b%").mkdir()
    (here / "a b%" / "model").write_text("m")
    for attempt, uri in enumerate([(here / "a b%").as_uri(), (here / "a b%" / "model").as_uri()], 1):
        place = root.begin(trial(attempt=attempt, checkpoint_uri=uri), **GOES_ON)
        assert (place.directory / "model").read_text() == "m"


def test_a_trial_whose_state_is_gone_starts_afresh_and_says_so(root, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        place = root.begin(trial(attempt=2, checkpoint_uri="file:///no/such/place"), **GOES_ON)
    assert place.uri() == ""
    assert "trial 1 starts afresh: there is nothing at file:///no/such/place" in caplog.text


def test_a_trial_that_goes_on_from_another_does_not_start_from_nothing(root, here: Path) -> None:
    child = trial(checkpoint_uri="file:///no/such/place", parent=7)
    with pytest.raises(Unresumable, match="the state of trial 7 to go on from: there is nothing at"):
        root.begin(child, **GOES_ON)
    assert list((here / "root/p/s/1").iterdir()) == []


def test_a_directory_of_another_study_of_that_name_is_left_alone(root, here: Path, caplog) -> None:
    other = here / "root/p/s/1/attempt-1"
    other.mkdir(parents=True)
    (other / "state").write_text("theirs")
    place = root.begin(trial(), **GOES_ON)
    assert place.directory == other.with_name("attempt-1-2")
    assert place.uri() == ""
    assert (other / "state").read_text() == "theirs"
    assert "not this trial's" in caplog.text


def test_a_root_that_is_a_file_takes_no_trial(here: Path) -> None:
    (here / "root").write_text("no directory")
    with pytest.raises(Unwritable, match="no directory for checkpoints can be made in"):
        DirectoryCheckpoints(here / "root" / "p" / "s").begin(trial(), **GOES_ON)
    with pytest.raises(Unusable):
        command(FakeStudy(), "", DirectoryCheckpoints(here / "root" / "p" / "s"))


def test_a_copy_is_not_there_before_it_is_complete(root, here: Path, monkeypatch) -> None:
    source = here / "source"
    source.mkdir()
    for name in "abc":
        (source / name).write_text(name)
    seen: list[list[str]] = []

    def looking(path: str, copied: str) -> str:
        seen.append([place.name for place in (here / "root/p/s/1").glob("attempt-*")])
        return original(path, copied)

    original = shutil.copy2
    monkeypatch.setattr(copying.shutil, "copy2", looking)
    place = root.begin(trial(checkpoint_uri=source.as_uri()), **GOES_ON)
    assert seen == [[], [], []]
    assert sorted(path.name for path in place.directory.iterdir()) == ["a", "b", "c"]


def test_a_copy_that_is_broken_off_leaves_nothing(root, here: Path) -> None:
    source = here / "source"
    source.mkdir()
    (source / "a").touch()
    with pytest.raises(BrokenOff):
        root.begin(trial(checkpoint_uri=source.as_uri()), broken_off=lambda: True)
    assert list((here / "root/p/s/1").iterdir()) == []


@pytest.mark.parametrize("change", ["rewrite", "remove", "add"])
def test_a_source_that_changes_is_copied_again_until_it_rests(here: Path, monkeypatch, change: str) -> None:
    source = here / "source"
    (source / "deep").mkdir(parents=True)
    (source / "a").write_text("old")
    (source / "deep" / "b").write_text("old")
    changes = {
        "rewrite": lambda: (source / "a").write_text("new!"),
        "remove": lambda: shutil.rmtree(source / "deep"),
        "add": lambda: (source / "c").write_text("new!"),
    }
    rounds: list[str] = []
    original = copying._copy

    def copy(*arguments, **options) -> None:
        original(*arguments, **options)
        rounds.append("copied")
        if len(rounds) == 1:
            changes[change]()
            if change == "remove":
                raise shutil.Error([("deep", "deep", "it vanished while it was copied")])

    monkeypatch.setattr(copying, "_copy", copy)
    monkeypatch.setattr(copying, "PAUSE", 0)
    assert copy_at_rest(source, here / "target", **GOES_ON)
    assert len(rounds) == 2
    assert copying.listing(here / "target").keys() == copying.listing(source).keys()
    assert (here / "target" / "a").read_text() == (source / "a").read_text()


def test_a_source_that_never_rests_is_taken_in_the_end_and_said_so(root, here: Path, monkeypatch, caplog) -> None:
    source = here / "source"
    source.mkdir()
    (source / "a").write_text("x")
    sizes = iter(range(1000))
    monkeypatch.setattr(copying, "listing", lambda _: {"a": (0, next(sizes), 0)})
    monkeypatch.setattr(copying, "PAUSE", 0)
    monkeypatch.setattr(copying, "PATIENCE", 0.05)
    place = root.begin(trial(checkpoint_uri=source.as_uri()), **GOES_ON)
    assert (place.directory / "a").read_text() == "x"
    assert "is still being written to" in caplog.text


def test_a_large_file_that_is_being_copied_does_not_keep_the_worker_from_leaving(root, here: Path, monkeypatch) -> None:
    source = here / "source"
    source.mkdir()
    (source / "large").touch()
    study, interruption, done = FakeStudy(), Interruption(), threading.Event()
    study.first = {"attempt": 2, "checkpoint_uri": source.as_uri()}

    def copies(*_) -> None:
        interruption.interrupt()
        done.wait(60)

    monkeypatch.setattr(copying.shutil, "copy2", copies)
    (only,) = command(study, "", root, interruption=interruption).trials
    assert only.said == ("released", None)
    done.set()
    until(lambda: not list((here / "root/p/s/1").glob(".*")))


def test_no_root_is_no_directory() -> None:
    place = NO_CHECKPOINTS.begin(trial(), **GOES_ON)
    assert (place.directory, place.uri()) == (None, "")
    assert places.kept_at(None, project="p", study="s") is NO_CHECKPOINTS


@pytest.mark.parametrize("given", ["relative", "{here}/absolute", "file://{here}/a%20uri", "local://{here}/a"])
def test_a_root_is_a_path_or_the_uri_of_one(here: Path, given: str) -> None:
    kept = places.kept_at(given.format(here=here), project="p", study="s")
    directory = kept.begin(trial(), **GOES_ON).directory
    assert directory is not None
    assert directory.is_relative_to(here)
    assert directory.parts[-4:] == ("p", "s", "1", "attempt-1")


# Trainings ----------------------------------------------------------------------------------------------------------

SAVING = """
import json, os, pathlib, sys
place = pathlib.Path(os.environ["ASKTELL_CHECKPOINT_DIR"])
assert len(sys.argv) == 1 or sys.argv[1] == str(place)
file = place / "state.json"
start = json.loads(file.read_text())["epoch"] if file.exists() else 0
file.write_text(json.dumps({"epoch": start + 3}))
print(json.dumps({"loss": start}))
"""


def test_a_command_saves_in_its_directory_and_goes_on_from_there(root) -> None:
    (first,) = command(FakeStudy(), SAVING, root, arguments=("{checkpoint_dir}",)).trials
    assert state(first.last_checkpoint) == {"epoch": 3}
    assert first.said == ("succeeded", {"loss": 0.0})
    study = FakeStudy()
    study.first = {"attempt": 2, "checkpoint_uri": first.last_checkpoint}
    (second,) = command(study, SAVING, root, arguments=("{checkpoint_dir}",)).trials
    assert second.said == ("succeeded", {"loss": 3.0})
    assert (state(first.last_checkpoint), state(second.last_checkpoint)) == ({"epoch": 3}, {"epoch": 6})


def test_a_command_without_a_root_has_no_directory() -> None:
    source = "import os; assert os.environ['ASKTELL_CHECKPOINT_DIR'] == ''; print('{\"loss\": 1}')"
    (only,) = command(FakeStudy(), source, NO_CHECKPOINTS).trials
    assert (only.said[0], only.last_checkpoint, only.checkpoints) == ("succeeded", "", [])


WAITING = """
import os, pathlib, time
pathlib.Path(os.environ["ASKTELL_CHECKPOINT_DIR"], "state.json").write_text("{}")
while not pathlib.Path("told").exists():
    time.sleep(0.02)
print('{"loss": 1}')
"""


def when_told(study: FakeStudy, here: Path) -> threading.Thread:
    """Touches `told` once the service knows a checkpoint."""

    def wait() -> None:
        until(lambda: study.trials and study.trials[0].checkpoints)
        (here / "told").touch()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_the_service_knows_the_state_as_soon_as_there_is_one_and_hears_of_it_once(root, here: Path) -> None:
    study = FakeStudy()
    thread = when_told(study, here)
    (only,) = command(study, WAITING, root).trials
    thread.join()
    assert only.checkpoints == [only.last_checkpoint]


def test_what_the_service_did_not_hear_is_said_again(root, here: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr("asktell.worker.keeping.AWAY_SECONDS", 0.1)
    study = FakeStudy(deaf=[Unavailable("down"), Unavailable("down")])
    thread = when_told(study, here)
    (only,) = command(study, WAITING, root).trials
    thread.join()
    assert only.checkpoints == [only.last_checkpoint]
    assert caplog.text.count("was not reported") == 2


def test_a_command_with_a_store_of_its_own_names_its_checkpoint(root) -> None:
    source = f"""
import json, os, pathlib
pathlib.Path(os.environ["ASKTELL_CHECKPOINT_DIR"], "scratch").touch()
print(json.dumps({{"step": 1, "loss": 5, "checkpoint_uri": "s3://own/store/6"}}))
print(json.dumps({{"checkpoint_uri": "{OWN}"}}))
print(json.dumps({{"loss": 4}}))
"""
    (only,) = command(FakeStudy(), source, root).trials
    assert only.checkpoints[-2:] == ["s3://own/store/6", OWN]
    assert only.last_checkpoint == OWN
    assert only.reports == [(1, {"loss": 5.0})]
    assert only.said == ("succeeded", {"loss": 4.0})


def test_a_function_with_a_store_of_its_own_names_its_checkpoint(root) -> None:
    source = f"""
def objective(parameters, trial):
    (trial.checkpoint_dir / "scratch").touch()
    assert not trial.report(step=1, loss=5, checkpoint_uri="s3://own/store/6").should_stop
    assert not trial.checkpoint("{OWN}").should_stop
    return 4
"""
    (only,) = function(FakeStudy(), source, root).trials
    assert only.said == ("succeeded", {"loss": 4.0})
    assert only.checkpoints[-2:] == ["s3://own/store/6", OWN]
    assert only.last_checkpoint == OWN


def test_a_checkpoint_that_the_service_refuses_does_not_spoil_the_result(root, caplog) -> None:
    study = FakeStudy(deaf=[InvalidArgument("checkpoint_uri: 'here' is not a URI")])
    (only,) = command(study, 'print(\'{"loss": 1, "checkpoint_uri": "here"}\')', root).trials
    assert (only.said, only.last_checkpoint) == (("succeeded", {"loss": 1.0}), "")
    assert "the service refused the checkpoint" in caplog.text


def test_a_failed_training_leaves_its_state(root) -> None:
    source = (
        "def objective(parameters, trial):\n    (trial.checkpoint_dir / 'state.json').write_text('{}')\n    1 / 0\n"
    )
    (only,) = function(FakeStudy(), source, root).trials
    assert only.said[0] == "failed"
    assert state(only.last_checkpoint) == {}


@pytest.mark.parametrize("end", ["return -1", "return None", "raise RuntimeError('left')", "trial.tell(loss=-1)"])
def test_a_function_that_asks_whether_it_is_preempted_saves_and_leaves_and_no_result_counts(
    root, here: Path, end: str
) -> None:
    source = f"""
import pathlib, time
def objective(parameters, trial):
    while not trial.preempted:
        pathlib.Path("ready").touch()
        time.sleep(0.01)
    (trial.checkpoint_dir / "state.json").write_text('{{"epoch": 5}}')
    {end}
"""
    study, interruption = FakeStudy(), Interruption()
    thread = interrupt_when(here / "ready", interruption)
    (only,) = function(study, source, root, interruption=interruption).trials
    thread.join()
    assert only.said == ("released", None)
    assert state(only.last_checkpoint) == {"epoch": 5}


def test_a_function_that_hears_of_the_end_by_its_report_gives_no_result(root, here: Path) -> None:
    source = """
import pathlib, time
def objective(parameters, trial):
    assert not trial.preempted
    while not trial.report(step=1, loss=1).should_stop:
        pathlib.Path("ready").touch()
        time.sleep(0.01)
    return -1
"""
    study, interruption = FakeStudy(), Interruption()
    thread = interrupt_when(here / "ready", interruption)
    (only,) = function(study, source, root, interruption=interruption).trials
    thread.join()
    assert only.said == ("released", None)


def test_a_function_that_does_not_ask_is_interrupted_and_saves_in_its_finally(root, here: Path) -> None:
    source = """
import pathlib, time
def objective(parameters, trial):
    try:
        pathlib.Path("ready").touch()
        time.sleep(3600)
    finally:
        (trial.checkpoint_dir / "state.json").write_text('{"epoch": 5}')
"""
    study, interruption = FakeStudy(), Interruption()
    thread = interrupt_when(here / "ready", interruption)
    (only,) = function(study, source, root, interruption=interruption).trials
    thread.join()
    assert only.said == ("released", None)
    assert state(only.last_checkpoint) == {"epoch": 5}


@pytest.mark.parametrize(
    "result", ["print('{\"loss\": -1}')", "open(os.environ['ASKTELL_METRICS_FILE'], 'w').write('{\"loss\": -1}')"]
)
def test_what_a_command_has_so_far_when_it_is_told_to_end_is_no_result(root, here: Path, result: str) -> None:
    source = f"""
import os, pathlib, signal, sys, time
def leave(*_):
    pathlib.Path(os.environ["ASKTELL_CHECKPOINT_DIR"], "state.json").write_text('{{"epoch": 5}}')
    {result}
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
pathlib.Path("ready").touch()
time.sleep(3600)
"""
    study, interruption = FakeStudy(), Interruption()
    thread = interrupt_when(here / "ready", interruption)
    (only,) = command(study, source, root, interruption=interruption).trials
    thread.join()
    assert only.said == ("released", None)
    assert state(only.last_checkpoint) == {"epoch": 5}


def test_a_training_without_word_from_the_service_is_ended_where_that_is_wanted(root, caplog) -> None:
    study = FakeStudy()
    study.first = {"silence": 9.0}
    with caplog.at_level(logging.INFO):
        (only,) = command(study, "import time; time.sleep(3600)", root, silence=8.0).trials
    assert only.said == ()
    assert "no word from the service for 8 s" in caplog.text


def test_pipes_sockets_and_devices_in_a_state_are_left_out(root: DirectoryCheckpoints, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "epoch").write_text("7")
    os.mkfifo(state / "pipe")
    (state / "endless").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as service:
        service.bind(str(state / "socket"))
        begun = root.begin(trial(checkpoint_uri=state.as_uri()), **GOES_ON)
    assert [path.name for path in begun.directory.iterdir()] == ["epoch"]


@pytest.mark.parametrize("uri", ["file:///" + "a" * 300, "file:///dev/zero"])
def test_a_state_that_cannot_be_read_is_gone_and_ends_no_worker(root: DirectoryCheckpoints, uri: str) -> None:
    begun = root.begin(trial(checkpoint_uri=uri), **GOES_ON)
    assert not list(begun.directory.iterdir())
    with pytest.raises(Unresumable, match="the state of trial 3 to go on from"):
        root.begin(trial(checkpoint_uri=uri, parent=3), **GOES_ON)


def test_a_disk_without_room_for_a_state_is_not_taken_for_the_state_s_fault(
    root: DirectoryCheckpoints, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "weights").write_bytes(bytes(100_000))
    # A limit on the size of files stands for the disk: it is as true, and needs no disk to fill.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limits[1]))
    try:
        with pytest.raises(Unwritable, match="no directory for checkpoints can be made"):
            root.begin(trial(checkpoint_uri=state.as_uri()), **GOES_ON)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
