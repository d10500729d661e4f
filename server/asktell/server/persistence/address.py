"""Where the database is, and whether it can be used from here."""

from __future__ import annotations

import importlib.util
import os
import re
import stat
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

NETWORK_FILE_SYSTEMS = frozenset(
    {
        *("afs", "beegfs", "ceph", "cifs", "davfs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "smb3", "smbfs"),
        *("fuse.ceph", "fuse.glusterfs", "fuse.sshfs"),
    }
)


_MOUNTS = Path("/proc/self/mountinfo")


class UnusableDatabase(Exception):
    """A database that this server cannot use, whatever its state; the message says why and what to do."""


def database_url(address: str) -> URL:
    """The URL of a database: `postgresql://...`, `sqlite:///path` or a bare path; UnusableDatabase for anything else.

    A SQLite file gets the one name under which all find its lock and its write-ahead log: that without symbolic links. One that has several
    such names, or has them away from its directory, is refused.
    """
    if not address.strip():
        raise UnusableDatabase("the database's address is empty; give postgresql://..., sqlite:///path or a path")
    if "://" not in address:
        return _sqlite(address)
    try:
        url = make_url(address)
    except ArgumentError as error:
        raise UnusableDatabase(
            "the database's address is no URL; give postgresql://..., sqlite:///path or a path"
        ) from error
    except ValueError as error:
        raise UnusableDatabase(
            f"the database's address has a port{_shown_port(address)} that is no number; give postgresql://USER:PASSWORD@HOST:PORT/NAME"
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


def file_system(path: Path, *, mounts: Path = _MOUNTS) -> str | None:
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


def mounted_alone(path: Path, *, mounts: Path = _MOUNTS) -> bool:
    """Whether a file is a mount of its own, as in a container that was given no more than the file; False where the system does not tell."""
    if not mounts.exists():
        return False
    escaped = re.sub(r"[ \t\n\\]", lambda found: f"\\{ord(found[0]):03o}", str(path))
    return any(line.split()[4] == escaped for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines())


def _sqlite(path: str) -> URL:
    if path in ("", ":memory:") or path.startswith("file:"):
        raise UnusableDatabase("a database in memory ends with the server; give SQLite the path of a file")
    real = os.path.realpath(path)
    _require_one_name(Path(real))
    return URL.create("sqlite", database=real)


def _require_one_name(path: Path) -> None:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return
    if not stat.S_ISREG(status.st_mode):
        raise UnusableDatabase(f"the database {path} is no file")
    if status.st_nlink > 1:
        raise UnusableDatabase(
            f"the database {path} has {status.st_nlink} names (hard links), and what was told last may stand in a file beside another of them: "
            "keep the one with a -wal beside it, if any has, and remove the others"
        )
    if mounted_alone(path):
        raise UnusableDatabase(
            f"the database {path} is mounted without its directory, so that its lock and what was told last would be kept apart from it: "
            "mount the directory"
        )


def _shown_port(address: str) -> str:
    """The port for people and logs; nothing if it may be part of a password that was written without its escapes, or without a host."""
    if address.count("@") != 1:
        return ""
    place = re.split("[/?]", address.partition("@")[2])[0]
    return f" {place.rpartition(':')[2]!r}"


def _postgresql(url: URL) -> URL:
    if url.drivername not in ("postgres", "postgresql", "postgresql+psycopg"):
        raise UnusableDatabase(f"{shown(url)} names a driver that is not used here; write postgresql://...")
    if importlib.util.find_spec("psycopg") is None:
        raise UnusableDatabase("PostgreSQL needs psycopg: pip install 'asktell[postgres]'")
    return url.set(drivername="postgresql+psycopg")
