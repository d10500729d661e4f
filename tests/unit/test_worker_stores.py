"""States in an object store: a real file system of fsspec, in memory, which the worker reaches as it does any other."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from asktell.client import Unavailable
from asktell.client.current import uploading
from asktell.worker import keeping, stores
from asktell.worker.checkpoints import StoreCheckpoints, Unwritable, kept_at
from asktell.worker.copying import BrokenOff
from asktell.worker.resuming import Unresumable
from asktell.worker.stores import Store
from tests.processes import until
from tests.unit.test_worker_checkpoints import GOES_ON, SAVING, command, trial
from tests.unit.test_worker_fake import FakeStudy


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stores, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def root() -> str:
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def kept(root: str) -> Iterator[StoreCheckpoints]:
    found = kept_at(root, project="p", study="s")
    assert isinstance(found, StoreCheckpoints)
    yield found
    Store.at(root).remove()


def contents(uri: str) -> dict[str, str]:
    store = Store.at(uri)
    return {str(name): store.system.cat_file(path).decode() for path, name in store.files().items()}


def save(state: Path, text: str) -> None:
    """In one step, as trainings should: while it is written it may rest for longer than these tests look for."""
    partial = Path("partial")
    partial.write_text(text)
    partial.replace(state)


def test_a_state_is_uploaded_when_it_has_changed_and_told_when_it_is_complete(kept, root: str) -> None:
    place = kept.begin(trial(), **GOES_ON)
    assert place.uri() == ""
    (place.directory / "deep").mkdir()
    save(place.directory / "deep" / "state", "1")
    first = until(place.uri)
    assert first == f"{root}/p/s/1/attempt-1/000001"
    assert contents(first) == {"deep/state": "1"}
    save(place.directory / "deep" / "state", "2, longer")
    until(lambda: place.uri() != first)
    assert contents(place.uri()) == {"deep/state": "2, longer"}
    assert contents(first) == {"deep/state": "1"}
    place.acknowledge(place.uri())
    assert contents(first) == {}
    place.close()
    assert not place.scratch.exists()


def test_a_directory_that_is_about_to_be_removed_is_uploaded_no_more(kept, root: str, monkeypatch) -> None:
    monkeypatch.setattr(stores, "LOOK_SECONDS", 30.0)
    place = kept.begin(trial(), **GOES_ON)
    save(place.directory / "state", "1")
    place.snapshots.abandon()
    assert not place.snapshots.is_alive()
    assert contents(root) == {}
    place.close()
    assert not place.scratch.exists()


def test_a_directory_that_never_rests_is_uploaded_all_the_same(kept, monkeypatch) -> None:
    monkeypatch.setattr(stores, "RESTLESS_SECONDS", 0.1)
    monkeypatch.setattr(stores, "REST_SECONDS", 0.0)
    place = kept.begin(trial(), **GOES_ON)
    sizes = iter(range(1, 100_000))
    monkeypatch.setattr(stores, "listing", lambda _: {"state": (0, next(sizes), 0)})
    save(place.directory / "state", "1")
    assert contents(until(place.uri)) == {"state": "1"}
    place.close()


def test_the_last_state_is_uploaded_at_the_end(kept, monkeypatch) -> None:
    monkeypatch.setattr(stores, "LOOK_SECONDS", 3600.0)
    place = kept.begin(trial(), **GOES_ON)
    save(place.directory / "state", "1")
    assert contents(place.last(**GOES_ON)) == {"state": "1"}
    place.close()


def test_the_next_attempt_finds_the_state_and_does_not_upload_it_again(kept, root: str) -> None:
    first = kept.begin(trial(), **GOES_ON)
    save(first.directory / "state", "1")
    uri = first.last(**GOES_ON)
    first.close()
    second = kept.begin(trial(attempt=2, checkpoint_uri=uri), **GOES_ON)
    assert (second.directory / "state").read_text() == "1"
    assert second.last(**GOES_ON) == ""
    assert contents(root) == {"p/s/1/attempt-1/000001/state": "1"}
    second.close()


def test_an_upload_that_breaks_leaves_the_last_good_snapshot(kept, monkeypatch, caplog) -> None:
    place = kept.begin(trial(), **GOES_ON)
    save(place.directory / "a", "1")
    good = until(place.uri)
    upload = Store.upload

    def breaks(store: Store, directory: Path) -> None:
        upload(store, directory)
        raise OSError("connection reset")

    monkeypatch.setattr(Store, "upload", breaks)
    monkeypatch.setattr(stores, "RETRY_SECONDS", 0.02)
    save(place.directory / "a", "2, longer")
    until(lambda: "connection reset" in caplog.text)
    assert place.uri() == good
    assert contents(good) == {"a": "1"}
    monkeypatch.setattr(Store, "upload", upload)
    until(lambda: place.uri() != good)
    assert contents(place.uri()) == {"a": "2, longer"}
    place.close()


def test_an_upload_for_which_there_is_no_time_leaves_the_last_good_snapshot(kept, monkeypatch, caplog) -> None:
    place = kept.begin(trial(), **GOES_ON)
    save(place.directory / "a", "1")
    good = until(place.uri)
    monkeypatch.setattr(Store, "upload", lambda *_: until(lambda: not place.scratch.exists()))
    save(place.directory / "a", "2, longer")
    assert place.last(broken_off=lambda: True) == good
    assert f"no time to upload the last state: {good} counts" in caplog.text
    place.close()


def test_a_state_that_is_gone_is_started_without_unless_it_is_a_parents(kept, root: str, here: Path, caplog) -> None:
    gone = f"{root}/gone"
    with caplog.at_level(logging.WARNING):
        kept.begin(trial(attempt=2, checkpoint_uri=gone), **GOES_ON).close()
    assert f"trial 1 starts afresh: there is nothing at {gone}" in caplog.text
    with pytest.raises(Unresumable):
        kept.begin(trial(checkpoint_uri=gone, parent=7), **GOES_ON)
    assert not list(here.glob("asktell-checkpoint-*"))


def test_a_store_that_cannot_be_read_takes_no_trial_lest_its_progress_be_thrown_away(kept, monkeypatch) -> None:
    monkeypatch.setattr(Store, "fetch", lambda *_: (_ for _ in ()).throw(OSError("no route to host")))
    with pytest.raises(Unwritable, match="no route to host"):
        kept.begin(trial(attempt=2, checkpoint_uri="memory://x/y"), **GOES_ON)


def test_a_fetch_that_is_broken_off_leaves_nothing(kept, here: Path) -> None:
    with pytest.raises(BrokenOff):
        kept.begin(trial(), broken_off=lambda: True)
    assert not list(here.glob("asktell-checkpoint-*"))


def test_a_name_that_leads_out_of_the_directory_is_refused(kept, root: str, here: Path, monkeypatch) -> None:
    monkeypatch.setattr(Store, "files", lambda store: {f"{store.path}/../x": Path("../x")})
    with pytest.raises(Unwritable, match="leads elsewhere"):
        kept.begin(trial(attempt=2, checkpoint_uri=f"{root}/evil"), **GOES_ON)


def test_what_lies_under_the_name_already_is_left_alone(kept, root: str) -> None:
    Store.at(root).system.pipe_file(f"{Store.at(root).path}/p/s/1/attempt-1/000001/state", b"theirs")
    place = kept.begin(trial(), **GOES_ON)
    save(place.directory / "state", "mine")
    assert place.last(**GOES_ON) == f"{root}/p/s/1/attempt-1-2/000001"
    assert contents(f"{root}/p/s/1/attempt-1") == {"000001/state": "theirs"}
    place.close()


def test_a_store_without_its_library_says_what_to_install() -> None:
    with pytest.raises(Unwritable, match="pip install 'asktell\\[checkpoints\\]'"):
        kept_at("nosuchstore://bucket/path", project="p", study="s")


def test_a_url_that_lacks_a_slash_is_no_directory() -> None:
    with pytest.raises(Unwritable, match=r"write s3://bucket/path or \./s3:/bucket/path"):
        kept_at("s3:/bucket/path", project="p", study="s")


def test_a_command_goes_on_from_the_store(kept) -> None:
    (first,) = command(FakeStudy(), SAVING, kept).trials
    assert json.loads(contents(first.last_checkpoint)["state.json"]) == {"epoch": 3}
    study = FakeStudy()
    study.first = {"attempt": 2, "checkpoint_uri": first.last_checkpoint}
    (second,) = command(study, SAVING, kept).trials
    assert second.said == ("succeeded", {"loss": 3.0})
    assert json.loads(contents(second.last_checkpoint)["state.json"]) == {"epoch": 6}


HANDING_OVER = """
import os, pathlib, time
request = pathlib.Path(os.environ["ASKTELL_CHECKPOINT_UPLOAD"])
for state in ("1", "2, longer"):
    (pathlib.Path(os.environ["ASKTELL_CHECKPOINT_DIR"]) / "state").write_text(state)
    request.touch()
    while request.exists():
        time.sleep(0.01)
print('{"loss": 1}')
"""


def test_a_command_that_tells_its_result_itself_has_its_state_uploaded_before(kept, monkeypatch) -> None:
    # The worker would look at it by itself an hour later.
    monkeypatch.setattr(stores, "LOOK_SECONDS", 3600.0)
    (only,) = command(FakeStudy(), HANDING_OVER, kept).trials
    first, second = only.checkpoints
    assert (first[-7:], second[-7:]) == ("/000001", "/000002")
    assert contents(second) == {"state": "2, longer"}


def test_a_training_that_cannot_write_where_it_would_ask_for_an_upload_tells_all_the_same(tmp_path) -> None:
    assert list(uploading(tmp_path / ("x" * 300))) == []
    assert list(uploading(tmp_path / "elsewhere" / "upload")) == []


def test_a_command_whose_state_cannot_be_uploaded_is_not_held_up(kept, monkeypatch, caplog) -> None:
    def breaks(store: Store, directory: Path) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(stores, "LOOK_SECONDS", 3600.0)
    monkeypatch.setattr(Store, "upload", breaks)
    (only,) = command(FakeStudy(), HANDING_OVER, kept).trials
    assert (only.said, only.checkpoints) == (("succeeded", {"loss": 1.0}), [])
    assert "no route to host" in caplog.text


def test_a_state_that_the_service_has_not_heard_of_is_not_handed_over_yet(kept, monkeypatch) -> None:
    monkeypatch.setattr(keeping, "AWAY_SECONDS", 0.2)
    (only,) = command(FakeStudy(deaf=[Unavailable("down"), Unavailable("down")]), HANDING_OVER, kept).trials
    assert contents(only.checkpoints[-1]) == {"state": "2, longer"}
