"""Where databases may be, and how they come to their schema."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from asktell.server.domain.errors import Unavailable
from asktell.server.persistence import address as addresses
from asktell.server.persistence.address import (
    UnusableDatabase,
    database_url,
    file_system,
    mounted_alone,
    require_local,
    shown,
    sqlite_path,
)
from asktell.server.persistence.backup import back_up
from asktell.server.persistence.exclusive import DatabaseInUse
from asktell.server.persistence.migration import (
    MIGRATIONS,
    NotMigrated,
    check_migrated,
    migrate,
    named,
    newest_revision,
)
from asktell.server.persistence.store import open_store
from asktell.server.persistence.tables import metadata


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database without a schema."""
    if request.param == "sqlite":
        return str(tmp_path / "empty.db")
    url: str = request.getfixturevalue("postgres_url")
    return url


def test_the_migrations_make_the_tables_as_alembic_compares_them(empty):
    migrate(empty)
    engine = create_engine(database_url(empty))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_the_newest_revision_is_alembics_head():
    assert newest_revision() == ScriptDirectory(str(MIGRATIONS)).get_current_head()


def test_the_migrations_make_the_tables_to_the_letter_on_sqlite(tmp_path):
    def schema(path: Path) -> set[str]:
        with sqlite3.connect(path) as connection:
            found = connection.execute(
                "SELECT sql FROM sqlite_master WHERE name NOT LIKE 'alembic%' AND sql IS NOT NULL"
            )
            # A column that was added later stands on the line of the one before it.
            statements = {" ".join(row[0].split()) for row in found}
        connection.close()
        return statements

    migrate(str(tmp_path / "migrated.db"))
    engine = create_engine(f"sqlite:///{tmp_path / 'created.db'}")
    metadata.create_all(engine)
    engine.dispose()
    assert schema(tmp_path / "migrated.db") == schema(tmp_path / "created.db") != set()


def test_the_migrations_make_the_tables_to_the_letter_on_postgresql(postgres):
    names = [postgres.create_database(), postgres.create_database()]
    migrate(postgres.url(names[0]))
    engine = create_engine(database_url(postgres.url(names[1])))
    metadata.create_all(engine)
    engine.dispose()
    migrated, created = (catalogue(postgres.url(name)) for name in names)
    assert migrated == created
    assert len(created) > 50
    for name in names:
        postgres.drop_database(name)


def catalogue(address: str) -> set[tuple[object, ...]]:
    """All columns, indexes and constraints, as PostgreSQL spells them."""
    columns = """
        SELECT table_name, column_name, data_type, is_nullable, collation_name, identity_generation, column_default
        FROM information_schema.columns WHERE table_schema = 'public'
    """
    indexes = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'"
    constraints = """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    """
    with psycopg.connect(address) as connection:
        rows = [row for query in (columns, indexes, constraints) for row in connection.execute(query)]
    return {row for row in rows if not any("alembic" in str(part) for part in row)}


def test_migrating_twice_is_migrating_once(empty):
    migrate(empty)
    migrate(empty)
    check_migrated(empty)


def test_replicas_that_migrate_at_once_all_succeed(empty):
    together = threading.Barrier(4)

    def start() -> None:
        together.wait(30)
        migrate(empty)

    with ThreadPoolExecutor(4) as pool:
        for started in [pool.submit(start) for _ in range(4)]:
            started.result()
    check_migrated(empty)


def test_a_database_without_the_schema_names_the_command(empty):
    with pytest.raises(NotMigrated) as caught:
        check_migrated(empty)
    assert f"`asktell migrate --database {named(empty)}`" in str(caught.value)


def test_a_command_is_named_with_the_address_as_it_was_given_but_without_passwords(tmp_path, postgres):
    address = postgres.url(postgres.create_database())
    plain = address.replace("postgresql+psycopg:", "postgresql:")
    with_secret = f"{plain}{'&' if '?' in plain else '?'}password=hidden"
    with pytest.raises(NotMigrated) as caught:
        check_migrated(with_secret)
    assert "hidden" not in str(caught.value)
    assert f"asktell migrate --database {named(plain)}" in str(caught.value)
    assert named("postgresql://u:hidden@h/d") == "postgresql://u:***@h/d"
    assert named("postgres://u@h/d") == "postgres://u@h/d"
    with pytest.raises(NotMigrated, match=r"`asktell migrate --database '.*/a b\.db'` makes it"):
        check_migrated(str(tmp_path / "a b.db"))


def test_a_check_makes_no_file(tmp_path):
    with pytest.raises(NotMigrated):
        check_migrated(str(tmp_path / "new.db"))
    assert list(tmp_path.iterdir()) == []


def test_the_schema_of_a_newer_version_is_accepted_and_kept(tmp_path):
    path = tmp_path / "newer.db"
    migrate(str(path))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    check_migrated(str(path))
    migrate(str(path))
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("9999",)]
    connection.close()


def test_a_server_that_cannot_be_reached_is_unavailable_to_migrations():
    for act in (migrate, check_migrated):
        with pytest.raises(Unavailable, match="refused"):
            act("postgresql://nobody@127.0.0.1:1/nothing")


@pytest.mark.parametrize("spelling", ["{path}", "sqlite:///{path}", "sqlite+pysqlite:///{path}"])
def test_a_file_may_be_named_by_path_or_url(tmp_path, spelling):
    path = tmp_path / "a b%20c?.db" if spelling == "{path}" else tmp_path / "a.db"
    assert database_url(spelling.format(path=path)).database == str(path)


@pytest.mark.parametrize("spelling", ["postgresql://u:p@h/d", "postgres://u:p@h/d", "postgresql+psycopg://u:p@h/d"])
def test_postgresql_means_psycopg_3(spelling):
    url = database_url(spelling)
    assert url.render_as_string(hide_password=False) == "postgresql+psycopg://u:p@h/d"


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_address_is_refused_as_empty(empty):
    with pytest.raises(UnusableDatabase, match="is empty"):
        database_url(empty)


@pytest.mark.parametrize("memory", [":memory:", "sqlite://", "sqlite:///:memory:", "file::memory:"])
def test_a_database_in_memory_is_refused(memory):
    with pytest.raises(UnusableDatabase, match="in memory"):
        database_url(memory)


@pytest.mark.parametrize(
    "unknown",
    ["mysql://u:hidden@h/d", "postgresql+asyncpg://u:hidden@h/d", "sqlite:///x?mode=memory&uri=true", "://hidden"],
)
def test_any_other_address_is_refused_without_its_password(unknown):
    with pytest.raises(UnusableDatabase) as caught:
        database_url(unknown)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "port"),
    [
        ("postgresql://a@h:notaport/d", "a port 'notaport' that"),
        ("postgresql://a:hidden@h:54x32?sslpassword=hidden", "a port '54x32' that"),
        ("postgresql://a@[::1]:x/d", "a port 'x' that"),
        ("postgresql://a:hidden/d", "a port that"),
        ("postgresql://a:pass@word:hidden@h/d", "a port that"),
        ("postgresql://a:p@ss:hid/den@h/d", "a port that"),
        (f"postgresql://a@h:{'9' * 5000}/d", "a port '9999"),
    ],
)
def test_a_port_that_is_no_number_is_named_unless_it_may_be_a_password(address, port):
    with pytest.raises(UnusableDatabase) as caught:
        database_url(address)
    assert port in str(caught.value)
    assert "hid" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("host=db user=u password=hidden dbname=asktell", "a list of keywords"),
        ("password = 'hid://den' user=u", "a list of keywords"),
        ("Host=db;Username=u;Password=hidden", "a list of keywords"),
        ("service=asktell", "a list of keywords"),
        ("postgresql:u:hidden@db", "begins with postgresql: but not with ://"),
        ("postgresql//u:hidden@db/d", "begins with postgresql// but not with ://"),
        ("postgres:/u:hidden@db/asktell", "begins with postgres: but not with ://"),
        ("postgresql+psycopg:u:hidden@db", "begins with postgresql+psycopg: but not with ://"),
        ("MySQL:u:hidden@db", "begins with MySQL: but not with ://"),
        ("sqlite:study.db", "begins with sqlite: but not with ://"),
        ("u:hidden@db/asktell", "looks like USER:PASSWORD@HOST"),
    ],
)
@pytest.mark.parametrize("act", [database_url, migrate, check_migrated, open_store])
def test_the_address_of_a_server_in_another_form_is_never_a_file(act, address, what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnusableDatabase) as caught:
        act(address)
    assert what in str(caught.value)
    assert "postgresql://USER@HOST/NAME" in str(caught.value)
    assert "hid" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["/data/user=alice/study.db", "./user=alice.db", "lr=0.1 depth=3.db", "./a:b@c.db", "a:b.db"]
)
def test_a_path_may_have_what_such_addresses_have(name):
    assert sqlite_path(database_url(name)) == Path(name).absolute()


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://u:hid@den@127.0.0.1/d",
        "postgresql://u:x@hid/den@127.0.0.1/d",
        "postgresql://u:x@hid?den@127.0.0.1/d",
        "postgresql://u:x@hid:den@127.0.0.1/d",
        "postgresql://u:x@hid,den@127.0.0.1/d",
    ],
)
def test_a_password_that_is_not_percent_encoded_is_said_to_be_without_a_word_of_it(address):
    with pytest.raises(UnusableDatabase) as caught:
        database_url(address)
    assert "percent-encode the password" in str(caught.value)
    assert "PGPASSWORD" in str(caught.value)
    assert "hid" not in str(caught.value)
    assert "den" not in str(caught.value)


@pytest.mark.parametrize("password", ["a#b", "a/b", "a?b=c", "a:b", "a,b", "a%40b", "a b"])
def test_a_password_that_can_be_read_as_it_stands_is_taken(password):
    url = database_url(f"postgresql://u:{password}@h/d")
    assert (url.password, url.host, url.database) == (unquote(password), "h", "d")


@pytest.mark.parametrize(
    ("address", "places"),
    [
        ("postgresql://u@a:1,b:2/d", {"host": "a,b", "port": "1,2"}),
        ("postgres://u@a,b:2/d?sslmode=disable", {"host": "a,b", "port": ",2", "sslmode": "disable"}),
        ("postgresql://a,b/d", {"host": "a,b"}),
        ("postgresql://[::1]:5,[::2]/d", {"host": "::1,::2", "port": "5,"}),
        ("postgresql://u@%2Frun%2fpg/d", {"host": "/run/pg"}),
        ("postgresql://u:p,q@%2Frun:54/d", {"host": "/run", "port": "54"}),
        ("postgresql:///d?host=/run/pg", {"host": "/run/pg"}),
    ],
)
def test_several_hosts_and_sockets_may_stand_where_libpq_has_them(address, places):
    url = database_url(address)
    assert url.query == places
    assert (url.host, url.port, url.database) == (None, None, "d")


@pytest.mark.parametrize("address", ["postgresql://u@/d?host=a:1&host=b:x", "postgresql://u@/d?host=a,b,c&port=1,2"])
def test_hosts_and_ports_that_do_not_go_together_are_refused(address):
    with pytest.raises(UnusableDatabase, match="do not go together"):
        database_url(address)


def test_no_password_is_shown_wherever_it_stands():
    assert shown(database_url("postgresql://u:hidden@h/d?sslpassword=hidden&sslmode=disable")) == (
        "postgresql+psycopg://u:***@h/d?sslmode=disable"
    )
    assert shown(database_url("postgresql://u@h/d?password=hidden")) == "postgresql+psycopg://u@h/d"
    assert shown(database_url("postgresql://u@h/d?PASSWORD=hidden")) == "postgresql+psycopg://u@h/d"


@pytest.mark.parametrize("places", ["127.0.0.1:1,127.0.0.1:{port}", "{socket}:{port}"])
async def test_a_store_on_several_hosts_or_a_socket_answers(postgres, migrated_url, places):
    socket = quote(str(postgres.directory), safe="")
    address = migrated_url.replace(f"127.0.0.1:{postgres.port}", places.format(port=postgres.port, socket=socket))
    migrate(address)
    store = open_store(address)
    assert not await store.read(lambda tx: tx.studies_with_expired_leases(1))
    await store.close()


def test_a_missing_driver_names_the_extra(monkeypatch):
    monkeypatch.setattr(addresses.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnusableDatabase, match=r"asktell\[postgres\]"):
        database_url("postgresql://h/d")


def test_a_missing_directory_is_named(tmp_path):
    for act in (migrate, open_store):
        with pytest.raises(UnusableDatabase, match="nowhere"):
            act(str(tmp_path / "nowhere" / "a.db"))


@pytest.fixture
def common() -> Iterator[Path]:
    """A directory that every user reaches, unlike those of pytest's."""
    with tempfile.TemporaryDirectory(prefix="asktell-common-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@contextmanager
def other_user() -> Iterator[None]:
    """Act as a user without rights, if this is root, whom no permission keeps from anything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(12345)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("act", [migrate, check_migrated, open_store])
def test_a_directory_that_this_user_cannot_write_to_is_named(act, common):
    migrate(str(common / "a.db"))
    common.chmod(0o555)
    with other_user(), pytest.raises(UnusableDatabase, match=rf"the user \d+ cannot write to {common}: give that user"):
        act(str(common / "a.db"))
    common.chmod(0o755)


@pytest.mark.parametrize("act", [migrate, check_migrated, open_store])
@pytest.mark.parametrize("name", ["a.db", "a.db-wal", "a.db-shm", "a.db.lock"])
def test_a_file_that_this_user_cannot_write_is_named(act, name, common):
    migrate(str(common / "a.db"))
    common.chmod(0o777)
    (common / "a.db").chmod(0o666)
    (common / name).touch()
    (common / name).chmod(0o444)
    with (
        other_user(),
        pytest.raises(UnusableDatabase, match=rf"the user \d+ cannot read and write {common / name}: give"),
    ):
        act(str(common / "a.db"))


def test_the_file_system_is_read_from_the_mounts(tmp_path):
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "21 1 0:999 / /other rw - tmpfs tmpfs rw\n"
        f"36 21 {device >> 8 & 0xFFF}:{device & 0xFF} / /data rw,noatime master:1 - nfs4 server:/export rw\n"
    )
    assert file_system(tmp_path, mounts=mounts) == "nfs4"
    assert file_system(tmp_path, mounts=tmp_path / "missing") is None


def test_a_network_file_system_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(addresses, "file_system", lambda path: "nfs4")
    with pytest.raises(UnusableDatabase, match="nfs4"):
        require_local(tmp_path / "a.db")


async def test_a_second_server_on_one_file_is_refused_until_the_first_has_closed(sqlite_address):
    first = open_store(sqlite_address)
    with pytest.raises(DatabaseInUse, match="another server"):
        open_store(sqlite_address)
    with multiprocessing.get_context("spawn").Pool(1) as elsewhere:
        assert in_use_for(elsewhere, sqlite_address)
        await first.close()
        assert not in_use_for(elsewhere, sqlite_address)
    await open_store(sqlite_address).close()


@pytest.mark.parametrize("spelling", ["link.db", "directory/asktell.db", "directory/../link.db", "again.db"])
async def test_a_second_server_is_refused_the_file_under_the_name_of_a_symbolic_link(tmp_path, spelling):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.db").symlink_to(Path("real", "asktell.db"))
    (tmp_path / "real" / "link.db").symlink_to("asktell.db")
    (tmp_path / "again.db").symlink_to("link.db")
    (tmp_path / "directory").symlink_to("real")
    first = open_store(str(tmp_path / "real" / "asktell.db"))
    with pytest.raises(DatabaseInUse, match=r"real/asktell\.db open"):
        open_store(str(tmp_path / spelling))
    await first.close()
    await open_store(str(tmp_path / spelling)).close()


async def test_the_file_is_made_where_a_symbolic_link_to_nothing_points(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("real").mkdir()
    Path("link.db").symlink_to("real/asktell.db")
    migrate("link.db")
    with pytest.raises(DatabaseInUse):
        await both_open("link.db", "real/asktell.db")
    assert {path.name for path in Path().iterdir()} == {"link.db", "real"}


async def both_open(*names: str) -> None:
    stores = []
    try:
        for name in names:
            stores.append(open_store(name))  # noqa: PERF401 - those before one that fails must be closed
    finally:
        for store in stores:
            await store.close()


async def test_a_file_with_two_names_is_refused_under_both_until_one_is_gone(tmp_path):
    first, second = tmp_path / "a.db", tmp_path / "b.db"
    migrate(str(first))
    os.link(first, second)
    for path in (first, second):
        for act in (migrate, check_migrated, open_store, lambda address: back_up(address, tmp_path / "copy.db")):
            with pytest.raises(UnusableDatabase, match=rf"{path} has 2 names \(hard links\)"):
                act(str(path))
    assert {path.name for path in tmp_path.iterdir()} == {"a.db", "b.db"}
    second.unlink()
    await open_store(str(first)).close()


async def test_a_name_that_a_file_gets_while_it_is_served_is_refused(tmp_path):
    migrate(str(tmp_path / "a.db"))
    store = open_store(str(tmp_path / "a.db"))
    os.link(tmp_path / "a.db", tmp_path / "b.db")
    with pytest.raises(UnusableDatabase, match="hard links"):
        open_store(str(tmp_path / "b.db"))
    await store.close()


def test_a_file_that_is_mounted_without_its_directory_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a b.db").touch()
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"36 21 8:1 /x/a.db {tmp_path}/a\\040b.db rw,noatime - ext4 /dev/sda1 rw\n")
    assert mounted_alone(tmp_path / "a b.db", mounts=mounts)
    assert not mounted_alone(tmp_path / "other.db", mounts=mounts)
    assert not mounted_alone(tmp_path / "a b.db", mounts=tmp_path / "missing")
    monkeypatch.setattr(addresses, "mounted_alone", lambda path: mounted_alone(path, mounts=mounts))
    with pytest.raises(UnusableDatabase, match=r"a b\.db is mounted without its directory"):
        database_url(str(tmp_path / "a b.db"))


def test_what_is_no_file_is_refused_as_a_database(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(UnusableDatabase, match=f"{path} is no file"):
            database_url(str(path))


def test_symbolic_links_in_a_circle_are_named(tmp_path):
    (tmp_path / "a.db").symlink_to("b.db")
    (tmp_path / "b.db").symlink_to("a.db")
    with pytest.raises(OSError, match="symbolic links"):
        database_url(str(tmp_path / "a.db"))


def in_use_for(pool: object, address: str) -> bool:
    answer = pool.apply(_in_use, (address,))  # type: ignore[attr-defined]
    return bool(answer)


def _in_use(address: str) -> bool:
    import asyncio

    try:
        store = open_store(address)
    except DatabaseInUse:
        return True
    asyncio.run(store.close())
    return False
