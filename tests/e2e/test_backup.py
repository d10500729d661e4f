"""A whole database, copied while it is written to: what was acknowledged before the copy began is in it."""

from __future__ import annotations

import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from asktell.server.persistence import backup as backups
from asktell.server.persistence.address import UnusableDatabase
from asktell.server.persistence.backup import back_up
from asktell.server.persistence.migration import migrate
from tests.postgres import Postgres
from tests.processes import ASKTELL, Processes, Server, until
from tests.wire import Wire, small_study

STUDY = "projects/p/studies/s"
WRITERS = 4


def backup(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ASKTELL, "backup", *arguments], capture_output=True, text=True, timeout=120, check=False)


@contextmanager
def load(server: Server) -> Iterator[list[int]]:
    """Workers that ask and tell until the end of the block; the numbers of trials whose tell was acknowledged."""
    acknowledged: list[int] = []
    stopped = threading.Event()

    def work() -> None:
        with Wire(server.target) as wire:
            while not stopped.is_set():
                trial = wire.one(STUDY)
                wire.tell(trial, trial.number / 7)
                acknowledged.append(trial.number)

    threads = [threading.Thread(target=work) for _ in range(WRITERS)]
    for thread in threads:
        thread.start()
    try:
        yield acknowledged
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def started(processes: Processes, database: str) -> Server:
    server = processes.serve(database)
    with Wire(server.target) as wire:
        wire.create("s", small_study())
    return server


def require_prefix(server: Server, before: set[int], acknowledged: set[int]) -> None:
    """What the restored server knows is what had been acknowledged, and perhaps what was on its way."""
    with Wire(server.target) as wire:
        told = {trial.number for trial in wire.all_trials(STUDY) if "loss" in trial.metrics}
        trial = wire.one(STUDY)
        wire.tell(trial, 0.5)
    print(
        f"acknowledged before the backup: {len(before)}, restored: {len(told)}, acknowledged in all: {len(acknowledged)}"
    )
    assert before <= told <= acknowledged


def test_a_sqlite_backup_under_load_has_every_tell_acknowledged_before(processes: Processes, tmp_path: Path) -> None:
    server = started(processes, str(tmp_path / "asktell.db"))
    with load(server) as acknowledged:
        until(lambda: len(acknowledged) >= 50)
        before = set(acknowledged)
        done = backup("--database", server.database, str(tmp_path / "copy.db"))
        assert done.returncode == 0, done.stderr
        until(lambda: len(acknowledged) >= len(before) + 20)
    require_prefix(processes.serve(str(tmp_path / "copy.db")), before, set(acknowledged))
    assert not list(tmp_path.glob("asktell-backup-*"))


def test_a_pg_dump_under_load_has_every_tell_acknowledged_before(
    processes: Processes, postgres: Postgres, migrated_url: str, tmp_path: Path
) -> None:
    server = started(processes, migrated_url)
    restored = postgres.create_database()
    dump = postgres.directory / "asktell.dump"
    with load(server) as acknowledged:
        until(lambda: len(acknowledged) >= 50)
        before = set(acknowledged)
        postgres.run("pg_dump", "--format=custom", f"--file={dump}", migrated_url)
        until(lambda: len(acknowledged) >= len(before) + 20)
    postgres.run("pg_restore", "--no-owner", f"--dbname={postgres.url(restored)}", str(dump))
    require_prefix(processes.serve(postgres.url(restored)), before, set(acknowledged))


def test_a_backup_never_replaces_a_file(processes: Processes, tmp_path: Path) -> None:
    server = started(processes, str(tmp_path / "asktell.db"))
    taken = tmp_path / "taken"
    taken.write_text("precious")
    done = backup("--database", server.database, str(taken))
    assert (done.returncode, taken.read_text()) == (1, "precious")
    assert done.stderr == f"asktell backup: {taken} exists; a backup never replaces another file\n"


def test_a_backup_leaves_files_of_like_names_alone(tmp_path: Path) -> None:
    migrate(str(tmp_path / "asktell.db"))
    part = tmp_path / "copy.db.part"
    part.write_text("precious")
    back_up(str(tmp_path / "asktell.db"), tmp_path / "copy.db")
    assert part.read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {"asktell.db", "copy.db", "copy.db.part"}
    assert (tmp_path / "copy.db").stat().st_nlink == 1, "a server refuses a file of two names"


def test_a_file_that_comes_while_the_backup_is_made_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(str(tmp_path / "asktell.db"))
    target = tmp_path / "copy.db"
    monkeypatch.setattr(backups, "_make_durable", lambda _: target.write_text("precious"))
    with pytest.raises(FileExistsError, match=r"copy\.db exists; a backup never replaces another file"):
        back_up(str(tmp_path / "asktell.db"), target)
    assert target.read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {"asktell.db", "copy.db"}


def test_a_symbolic_link_to_nothing_is_not_replaced_by_a_backup(tmp_path: Path) -> None:
    migrate(str(tmp_path / "asktell.db"))
    (tmp_path / "copy.db").symlink_to("nowhere")
    with pytest.raises(FileExistsError, match=r"copy\.db exists"):
        back_up(str(tmp_path / "asktell.db"), tmp_path / "copy.db")


@pytest.mark.parametrize("tables", [(), ("alembic_version", "studies", "trials")], ids=["empty", "another program's"])
def test_a_database_that_is_not_of_asktell_is_no_backup(tmp_path: Path, tables: tuple[str, ...]) -> None:
    odd = tmp_path / "odd.db"
    odd.touch()
    connection = sqlite3.connect(odd)
    for table in tables:
        connection.execute(f"CREATE TABLE {table} (id INTEGER)")
    connection.close()
    with pytest.raises(UnusableDatabase, match=r"odd\.db is no database of asktell: it has no table"):
        back_up(str(odd), tmp_path / "copy.db")
    assert [path.name for path in tmp_path.iterdir()] == ["odd.db"]


def test_the_schema_of_an_older_version_can_be_backed_up(tmp_path: Path) -> None:
    migrate(str(tmp_path / "asktell.db"))
    connection = sqlite3.connect(tmp_path / "asktell.db")
    with connection:
        connection.execute("DROP TABLE policy_hints")
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    connection.close()
    assert back_up(str(tmp_path / "asktell.db"), tmp_path / "copy.db") == (tmp_path / "copy.db").stat().st_size


def test_a_symbolic_link_is_backed_up_with_what_stands_beside_the_real_file(
    processes: Processes, tmp_path: Path
) -> None:
    (tmp_path / "real").mkdir()
    server = started(processes, str(tmp_path / "real" / "asktell.db"))
    (tmp_path / "link.db").symlink_to("real/asktell.db")
    with load(server) as acknowledged:
        until(lambda: len(acknowledged) >= 10)
        before = set(acknowledged)
        done = backup("--database", str(tmp_path / "link.db"), str(tmp_path / "copy.db"))
        assert done.returncode == 0, done.stderr
    require_prefix(processes.serve(str(tmp_path / "copy.db")), before, set(acknowledged))


def test_what_cannot_be_backed_up_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    odd = tmp_path / "odd.db"
    odd.write_bytes(b"this is no database, however long one reads it. " * 100)
    for database, why in (
        (str(tmp_path / "none.db"), "there is no database"),
        ("postgresql://somewhere/asktell", "back it up with pg_dump"),
        (str(odd), "cannot be copied"),
    ):
        done = backup("--database", database, str(tmp_path / "copy.db"))
        assert done.returncode == 1
        assert why in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["odd.db"]


def test_a_backup_to_where_nothing_can_be_written_blames_that_place(processes: Processes, tmp_path: Path) -> None:
    database, target = tmp_path / "asktell.db", tmp_path / "nowhere" / "copy.db"
    processes.serve(str(database))
    done = backup("--database", str(database), str(target))
    assert done.returncode == 1
    assert done.stderr == f"asktell backup: [Errno 2] No such file or directory: '{target}'\n"
