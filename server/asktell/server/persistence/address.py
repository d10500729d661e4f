"""Where the database is, and whether it can be used from here."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

NETWORK_FILE_SYSTEMS = frozenset(
    {
        *("afs", "beegfs", "ceph", "cifs", "davfs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "smb3", "smbfs"),
        *("fuse.ceph", "fuse.glusterfs", "fuse.sshfs"),
    }
)


class UnusableDatabase(Exception):
    """A database that this server cannot use, whatever its state; the message says why and what to do."""


def database_url(address: str) -> URL:
    """The URL of a database: `postgresql://...`, `sqlite:///path` or a bare path; UnusableDatabase for anything else."""
    if "://" not in address:
        return _sqlite(address)
    try:
        url = make_url(address)
    except ArgumentError as error:
        raise UnusableDatabase(
            "the database's address is no URL; give postgresql://..., sqlite:///path or a path"
        ) from error
    if url.get_backend_name() in ("postgresql", "postgres"):
        return _postgresql(url)
    if url.drivername in ("sqlite", "sqlite+pysqlite") and not url.query:
        return _sqlite(url.database or "")
    raise UnusableDatabase(f"{shown(url)} is neither postgresql://... nor sqlite:///path nor a path")


def sqlite_path(url: URL) -> Path | None:
    """The file of a SQLite database; None for PostgreSQL."""
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


def shown(url: URL) -> str:
    """A URL for people and logs, without its password."""
    return url.render_as_string(hide_password=True)


def require_local(path: Path) -> None:
    """Raise UnusableDatabase if the directory of a database is missing or lies on a network file system, where SQLite's locks fail."""
    if not path.parent.is_dir():
        raise UnusableDatabase(f"the database {path} cannot be made: {path.parent} is no directory")
    kind = file_system(path.parent)
    if kind in NETWORK_FILE_SYSTEMS:
        raise UnusableDatabase(
            f"the database {path} lies on a network file system ({kind}), where SQLite loses data; use a local disk, or PostgreSQL"
        )


def file_system(path: Path, *, mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """The type of the file system that a path lies on, such as `ext4`; None where the system does not tell (other than Linux)."""
    if not mounts.exists():
        return None
    number = path.stat().st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        mount, _, source = line.partition(" - ")
        if mount.split()[2] == device:
            return source.split()[0]
    return None


def _sqlite(path: str) -> URL:
    if path in ("", ":memory:") or path.startswith("file:"):
        raise UnusableDatabase("a database in memory ends with the server; give SQLite the path of a file")
    return URL.create("sqlite", database=str(Path(path).absolute()))


def _postgresql(url: URL) -> URL:
    if url.drivername not in ("postgres", "postgresql", "postgresql+psycopg"):
        raise UnusableDatabase(f"{shown(url)} names a driver that is not used here; write postgresql://...")
    if importlib.util.find_spec("psycopg") is None:
        raise UnusableDatabase("PostgreSQL needs psycopg: pip install 'asktell[postgres]'")
    return url.set(drivername="postgresql+psycopg")
