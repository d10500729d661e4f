"""Changes of a study, by the wire and the SDK, on both databases: what is named changes, all else stays, whoever else changes it meanwhile."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from asktell import client as at
from asktell.client import aio
from asktell.v1 import study_service_pb2 as studies
from tests.place import Place
from tests.postgres import Postgres
from tests.processes import Processes
from tests.wire import Wire, refusal, seconds, small_study

IDS = itertools.count()
ROUNDS = 30
LIMITS = ("max_trials", "max_failures", "max_parallel")
KEYS = (
    "plain",
    "_1",
    "1",
    "with space",
    "a.b",
    "a,b",
    "a-b",
    "`",
    "``",
    "`a`b`",
    "labels.a",
    "a=b",
    "Größe",
    "模型",
    "🦎",
    "k" * 63,
)
"""Keys that labels may have."""


def new_study(wire: Wire, *, labels: dict[str, str] | None = None, **budget: object) -> str:
    message = small_study(budget=budget)
    message.labels.update(labels or {})
    return wire.create(f"update{next(IDS)}", message).name


def update(wire: Wire, name: str, *paths: str, labels: dict[str, str] | None = None, **budget: object) -> studies.Study:
    message = studies.Study(name=name, labels=labels or {}, budget=studies.Budget(**budget))
    request = studies.UpdateStudyRequest(study=message, update_mask=FieldMask(paths=paths))
    reply: studies.Study = wire.call("UpdateStudy", request)
    return reply


@pytest.mark.parametrize("limit", [*LIMITS, "max_duration"])
def test_a_limit_is_set_and_lifted_by_itself(place: Place, limit: str) -> None:
    before = {"max_trials": 1, "max_failures": 2, "max_parallel": 3, "max_duration": seconds(4)}
    name = new_study(place.wire, labels={"a": "1"}, **before)
    new = seconds(99) if limit == "max_duration" else 99
    # What the mask does not name is not even looked at.
    given = {**dict.fromkeys(LIMITS, -1), limit: new}
    changed = update(place.wire, name, f"budget.{limit}", labels={"b": "2"}, **given)
    assert (changed.budget, changed.labels) == (studies.Budget(**{**before, limit: new}), {"a": "1"})
    assert place.wire.study(name) == changed
    del given[limit], before[limit]
    lifted = update(place.wire, name, f"budget.{limit}", **given)
    assert (lifted.budget, lifted.labels) == (studies.Budget(**before), {"a": "1"})


def test_several_limits_change_together_and_the_whole_budget_is_replaced(place: Place) -> None:
    name = new_study(place.wire, max_trials=1, max_failures=2)
    both = update(place.wire, name, "budget.max_trials", "budget.max_parallel", "budget.max_trials", max_parallel=3)
    assert both.budget == studies.Budget(max_failures=2, max_parallel=3)
    assert update(place.wire, name, "budget", max_trials=4).budget == studies.Budget(max_trials=4)


def test_a_label_is_set_replaced_and_removed_by_itself(place: Place) -> None:
    name = new_study(place.wire, labels={"a": "1", "b": "2", "c": "3"}, max_trials=1)
    paths = ("labels.a", "labels.`b`", "labels.d", "labels.nowhere")
    changed = update(place.wire, name, *paths, labels={"a": "9", "d": "", "c": "ignored"})
    assert changed.labels == {"a": "9", "c": "3", "d": ""}
    assert (place.wire.study(name), changed.budget) == (changed, studies.Budget(max_trials=1))
    assert update(place.wire, name, "labels", labels={"e": "5"}).labels == {"e": "5"}


@pytest.mark.parametrize("key", KEYS)
def test_every_key_that_a_label_may_have_can_be_named(place: Place, key: str) -> None:
    with at.Client(place.server.target, project="p") as client:
        name = new_study(place.wire, labels={"a": "1", key: "old"})
        study = client.get_study(name.rpartition("/")[2])
        study.update(label_changes={key: "new"})
        assert study.labels == {"a": "1", key: "new"}
        study.update(label_changes={key: None})
        assert study.labels == {"a": "1"}


def test_repeating_an_update_changes_nothing_more(place: Place) -> None:
    name = new_study(place.wire, labels={"a": "1"})
    paths = ("budget.max_trials", "labels.a", "labels.b")
    first = update(place.wire, name, *paths, labels={"b": "2"}, max_trials=7)
    before = place.dump()
    assert update(place.wire, name, *paths, labels={"b": "2"}, max_trials=7) == first
    assert place.dump() == before


def test_a_field_named_whole_and_in_part_is_refused_with_its_name(place: Place) -> None:
    name = new_study(place.wire, labels={"a": "1"}, max_trials=1)
    before = place.dump()
    for whole, part in (("budget", "budget.max_trials"), ("labels", "labels.a"), ("labels", "labels.`b.c`")):
        found = refusal(lambda paths=(whole, part): update(place.wire, name, *paths, max_trials=2))
        assert (found.code, found.field) == (grpc.StatusCode.INVALID_ARGUMENT, "update_mask")
        assert f"{part!r} is a part of {whole!r}" in found.message
    assert place.dump() == before


def test_there_is_room_for_so_many_labels_and_for_another_once_one_is_removed(place: Place) -> None:
    name = new_study(place.wire, labels={f"k{index}": "v" for index in range(64)})
    before = place.dump()
    found = refusal(lambda: update(place.wire, name, "labels.more", "budget.max_trials", labels={"more": "v"}))
    assert (found.code, found.field) == (grpc.StatusCode.INVALID_ARGUMENT, "study.labels")
    assert place.dump() == before
    changed = update(place.wire, name, "labels.more", "labels.k0", labels={"more": "v"})
    assert (len(changed.labels), changed.labels["more"]) == (64, "v")


# Many at once.


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def targets(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """One server on SQLite, or two on one PostgreSQL."""
    directory = tmp_path_factory.mktemp("updates")
    with Processes(directory) as processes:
        if request.param == "sqlite":
            yield [processes.serve(str(directory / "asktell.db")).target]
            return
        postgres: Postgres = request.getfixturevalue("postgres")
        database = postgres.url(postgres.create_database(migrated=True))
        yield [processes.serve(database).target for _ in range(2)]


def test_of_many_changes_at_one_time_none_is_lost(targets: list[str]) -> None:
    """Each thread has a limit or a label of its own, and so knows what must be there after each round."""
    with at.Client(targets[0], project="p") as client:
        shared = client.create_study(
            f"crowd{next(IDS)}", parameters=[at.Float("x", 0, 1)], objectives=[at.Minimize("y")], labels={"kept": "yes"}
        )
        changes: list[Callable[[at.Study, int], None]] = [
            lambda study, turn: study.update(max_trials=turn),
            lambda study, turn: study.update(max_parallel=turn),
            lambda study, turn: study.update(max_failures=turn),
            lambda study, turn: study.update(label_changes={"a": str(turn)}),
            lambda study, turn: study.update(label_changes={"b.c": str(turn) if turn % 2 else None}),
        ]
        together = Barrier(len(changes))

        def work(place: int) -> None:
            with at.Client(targets[place % len(targets)], project="p") as mine:
                study = mine.get_study(shared.id)
                for turn in range(1, ROUNDS + 1):
                    together.wait(60)
                    changes[place](study, turn)
                    together.wait(60)
                    study.refresh()
                    assert study.budget == at.Budget(max_trials=turn, max_parallel=turn, max_failures=turn)
                    odd = {"b.c": str(turn)} if turn % 2 else {}
                    assert study.labels == {"kept": "yes", "a": str(turn), **odd}

        with ThreadPoolExecutor(len(changes)) as pool:
            list(pool.map(work, range(len(changes))))


async def test_of_changes_by_asyncio_none_is_lost(targets: list[str]) -> None:
    async with aio.Client(targets[-1], project="p") as client:
        name = f"crowd{next(IDS)}"
        study = await client.create_study(name, parameters=[at.Float("x", 0, 1)], objectives=[at.Minimize("y")])
        for turn in range(1, ROUNDS + 1):
            await asyncio.gather(
                study.update(max_trials=turn),
                study.update(max_parallel=turn),
                *(study.update(label_changes={key: str(turn)}) for key in "abc"),
            )
            await study.refresh()
            assert study.budget == at.Budget(max_trials=turn, max_parallel=turn)
            assert study.labels == dict.fromkeys("abc", str(turn))
