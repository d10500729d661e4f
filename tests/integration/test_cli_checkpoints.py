"""`asktell study checkpoints` against a real server: what is kept, and what goes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from asktell.cli.checkpoints import Need
from asktell.client import Client, Fidelity, Float, Int, Minimize, Study, Trial
from asktell.worker.checkpoints import Unwritable
from asktell.worker.shelf import shelf
from asktell.worker.stores import Store
from tests.processes import ASKTELL, Server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.target) as client:
        yield client


def create(client: Client, name: str, **how) -> Study:
    spec = {"parameters": [Float("x", 0, 1), Int("epochs", 1, 9)], "objectives": [Minimize("y")], "policy": "random"}
    return client.create_study(name, **{**spec, "seed": 0, "max_trials": 100, **how})


def left(root: Path, trial: Trial, *, attempt: int = 1) -> str:
    """A state that a trial left; its URI."""
    directory = root / "default" / trial.name.split("/")[3] / str(trial.number) / f"attempt-{attempt}"
    directory.mkdir(parents=True)
    (directory / "state").write_text("x" * 1000)
    return directory.as_uri()


def command(study: Study, server: Server, root: Path, *options: str) -> str:
    arguments = [ASKTELL, "study", "checkpoints", study.id, "--root", str(root), "--target", server.target, *options]
    return subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=60).stdout


def populated(study: Study, root: Path) -> None:
    """Trial 1 is the best, 2 is worse, 3 failed, 4 waits for its second attempt, 5 is best's equal in nothing and had an earlier attempt."""
    one, two, three, four, five = study.ask(5, worker_id="w")
    one.tell(y=0.0, checkpoint_uri=left(root, one))
    two.tell(y=1.0, checkpoint_uri=left(root, two))
    three.fail("broke", checkpoint_uri=left(root, three))
    four.release(checkpoint_uri=left(root, four))
    left(root, five)
    five.tell(y=2.0, checkpoint_uri=left(root, five, attempt=2))


def there(root: Path) -> list[str]:
    return sorted("/".join(path.parts[-2:]) for path in root.glob("default/*/*/attempt-*"))


def test_what_nobody_needs_goes_and_only_when_that_is_wanted(client: Client, server: Server, tmp_path: Path) -> None:
    study = create(client, "plain")
    populated(study, tmp_path)
    (tmp_path / "default" / "plain" / "77" / "attempt-1").mkdir(parents=True)
    for number in (2, 4):
        (tmp_path / "default" / "plain" / str(number) / ".attempt-2-half").mkdir()
    before = there(tmp_path)
    assert "5 of 9 may be removed, 4.0 kB" in command(study, server, tmp_path)
    listed = json.loads(command(study, server, tmp_path, "--json"))
    assert [(each["number"], each["name"], each["kept"]) for each in listed] == [
        (1, "attempt-1", "best"),
        (2, ".attempt-2-half", ""),
        (2, "attempt-1", ""),
        (3, "attempt-1", ""),
        (4, ".attempt-2-half", "queued"),
        (4, "attempt-1", "queued"),
        (5, "attempt-1", ""),
        (5, "attempt-2", ""),
        (77, "attempt-1", "no trial of this study"),
    ]
    assert there(tmp_path) == before
    assert "5 of 9 removed, 4.0 kB" in command(study, server, tmp_path, "--prune")
    assert there(tmp_path) == ["1/attempt-1", "4/attempt-1", "77/attempt-1"]
    assert "0 of 4 removed" in command(study, server, tmp_path, "--prune")


@pytest.mark.parametrize(
    ("name", "how"), [("fidelity", {"fidelity": Fidelity("epochs", reduction_factor=3)}), ("noisy", {"noisy": True})]
)
def test_what_may_still_be_needed_is_kept_until_the_study_is_over(
    client: Client, server: Server, tmp_path: Path, name: str, how: dict
) -> None:
    study = create(client, name, **how)
    populated(study, tmp_path)
    command(study, server, tmp_path, "--prune")
    assert there(tmp_path) == ["1/attempt-1", "2/attempt-1", "4/attempt-1", "5/attempt-2"]
    study.finish()
    command(study, server, tmp_path, "--prune")
    assert set(there(tmp_path)) <= {"1/attempt-1", "2/attempt-1", "4/attempt-1", "5/attempt-2"}
    assert "4/attempt-1" in there(tmp_path)
    assert len(there(tmp_path)) == 2


def test_what_a_trial_under_way_goes_on_from_is_kept(client: Client, tmp_path: Path) -> None:
    study = create(client, "heir")
    populated(study, tmp_path)
    (heir,) = study.ask(worker_id="w")
    uri = left(tmp_path, study.get_trial(2), attempt=9)
    heir.checkpoint(uri)
    need = Need.of(study)
    assert need.why_kept(2, uri).endswith("goes on from it")
    heir.tell(y=5.0)
    assert Need.of(study).why_kept(2, uri) == ""


def test_a_root_that_is_not_there_is_an_error_and_not_empty(tmp_path: Path) -> None:
    with pytest.raises(Unwritable, match=r"there is no directory .*typo"):
        shelf(str(tmp_path / "typo"), project="default", study="s")
    assert shelf(str(tmp_path), project="default", study="without-states").states() == []


def test_snapshots_in_a_store_are_listed_with_their_sizes_and_removed_one_by_one() -> None:
    store = Store.at("memory://shelf-test")
    for name in ("1/attempt-1/000001/a", "1/attempt-1/000002/a", "1/attempt-1/000002/deep/b", "other/file"):
        store.system.pipe_file(f"{store.path}/p/s/{name}", b"12345")
    place = shelf("memory://shelf-test", project="p", study="s")
    first, second = place.states()
    assert (first.name, first.size, second.name, second.size) == ("attempt-1/000001", 5, "attempt-1/000002", 10)
    assert second.uri == "memory://shelf-test/p/s/1/attempt-1/000002"
    place.remove(first)
    assert place.states() == [second]
    store.remove()
