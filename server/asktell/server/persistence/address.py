"""Where the database is, and whether it can be used from here."""

from __future__ import annotations

import importlib.util
import os
import re
import stat
import sys
from pathlib import Path
from urllib.parse import unquote

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

NETWORK_FILE_SYSTEMS = frozenset(
    {
        *("afs", "beegfs", "ceph", "cifs", "davfs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "smb3", "smbfs"),
        *("fuse.ceph", "fuse.glusterfs", "fuse.sshfs"),
    }
)


_MOUNTS = Path("/proc/self/mountinfo")

_WRITE = (
    "write postgresql://USER@HOST/NAME, with the password in PGPASSWORD or ~/.pgpass, or give the path of a SQLite file"
)
_HIDE_OR_ESCAPE = "percent-encode the password (@ is %40, / is %2F, ? is %3F, # is %23), or leave it out and set PGPASSWORD or write ~/.pgpass"

# What would be taken for a path, and become a file that has a password for a name.
_KEYWORDS = re.compile(
    r"(?:^|[\s;,'\"])(?:host|hostaddr|port|dbname|database|user|username|password|passfile|service|servicefile|sslmode)\s*=",
    re.IGNORECASE,
)
_SCHEME = re.compile(
    r"\s*(?:jdbc|postgres\w*|postgis|pgsql|psql|pg|cockroach\w*|redshift|mysql|mariadb|mssql|sqlserver|oracle|mongodb|redis|sqlite3?|https?)(?:\+\w+)?(?::|//)",
    re.IGNORECASE,
)
_ACCOUNT = re.compile(r"[^/:@]*:[^@]*@")

# As libpq has it; SQLAlchemy knows hosts and sockets of this kind in the query alone.
_PLACES = re.compile(r"(\w+(?:\+\w+)?://)((?:[^:/]*(?::[^@]*)?@)?)([^/?]*)(.*)", re.DOTALL)
_PLACE = re.compile(r"(\[[^\[\]@]+\]|[^\[\]@:]*)(?::([0-9]*))?")

# What libpq takes in a URL's query that is nobody's business.
_SECRETS = ("password", "sslpassword")


class UnusableDatabase(Exception):
    """A database that this server cannot use, whatever its state; the message says why and what to do."""


def database_url(address: str) -> URL:
    """The URL of a database: `postgresql://...`, `sqlite:///path` or a bare path; UnusableDatabase for anything else.

    A SQLite file gets the one name under which all find its lock and its write-ahead log: that without symbolic links. One that has several
    such names, or has them away from its directory, is refused.
    """
    if not address.strip():
        raise UnusableDatabase("the database's address is empty; give postgresql://..., sqlite:///path or a path")
    _require_no_other_form(address)
    if "://" not in address:
        return _sqlite(address)
    url = _parsed(address)
    if url.get_backend_name() in ("postgresql", "postgres"):
        return _postgresql(url)
    if url.drivername in ("sqlite", "sqlite+pysqlite") and not url.query:
        return _sqlite(url.database or "")
    raise UnusableDatabase(f"{shown(url)} is neither postgresql://... nor sqlite:///path nor a path")


def sqlite_path(url: URL) -> Path | None:
    """The file of a SQLite database; None for PostgreSQL."""
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


def shown(url: URL) -> str:
    """A URL for people and logs, without its password, wherever in it that is."""
    secret = [name for name in url.query if name.lower() in _SECRETS]
    return url.difference_update_query(secret).render_as_string(hide_password=True)


def require_local(path: Path) -> None:
    """Raise UnusableDatabase if the directory of a database is missing, lies on a network file system, where SQLite's locks fail, or if this
    user may not write the file and those that SQLite and the server keep beside it.
    """
    if not path.parent.is_dir():
        raise UnusableDatabase(f"the database {path} cannot be made: {path.parent} is no directory")
    kind = file_system(path.parent)
    if kind in NETWORK_FILE_SYSTEMS:
        raise UnusableDatabase(
            f"the database {path} lies on a network file system ({kind}), where SQLite loses data; use a local disk, or PostgreSQL"
        )
    _require_writable(path)


def _require_writable(path: Path) -> None:
    """SQLite itself says no more than `unable to open database file`."""
    user = f"the user {os.geteuid()}" if sys.platform != "win32" else "this user"
    if not _may(path.parent, os.W_OK | os.X_OK):
        raise UnusableDatabase(
            f"the database {path} needs files beside it, and {user} cannot write to {path.parent}: give that user the directory,"
            " mount it writable, or name another place by --database"
        )
    for each in (path, *(Path(f"{path}{suffix}") for suffix in ("-wal", "-shm", ".lock"))):
        if each.exists() and not _may(each, os.R_OK | os.W_OK):
            raise UnusableDatabase(
                f"the database {path} cannot be used: {user} cannot read and write {each}: give that user the file, or name another"
                " database by --database"
            )


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


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


def _require_no_other_form(address: str) -> None:
    """Raise UnusableDatabase for what other programs take as the address of a server, without a word of it: a password may be anywhere."""
    if _KEYWORDS.search(address.partition("://")[0]):
        raise UnusableDatabase(f"the database's address is a list of keywords, which is not taken here: {_WRITE}")
    if "://" in address:
        return
    if scheme := _SCHEME.match(address):
        raise UnusableDatabase(f"the database's address begins with {scheme[0].strip()} but not with ://; {_WRITE}")
    if _ACCOUNT.match(address):
        raise UnusableDatabase(
            f"the database's address looks like USER:PASSWORD@HOST without postgresql://; {_WRITE}, ./ before a name that has : and @"
        )


def _parsed(address: str) -> URL:
    """The URL, whose parts are what its writer meant; UnusableDatabase, without a word of a password, if they may not be."""
    address, places = _without_places(address)
    try:
        url = make_url(address).update_query_dict(places)
    except ArgumentError as error:
        raise UnusableDatabase(
            "the database's address is no URL; give postgresql://..., sqlite:///path or a path"
        ) from error
    except ValueError as error:
        raise UnusableDatabase(
            f"the database's address has a port{_shown_port(address)} that is no number; give postgresql://USER@HOST:PORT/NAME;"
            f" if what is taken for the port belongs to the password, {_HIDE_OR_ESCAPE}"
        ) from error
    _require_whole(url, address)
    return url


def _require_whole(url: URL, address: str) -> None:
    """Raise UnusableDatabase if part of a password stands where the driver would look for a host, and say so."""
    rest = _PLACES.fullmatch(address)
    options = rest[4].partition("?")[2].split("&") if rest else []
    if "@" in (url.host or "") or (url.password is not None and "@" in (url.database or "")):
        raise UnusableDatabase(f"the database's address has one @ too many: {_HIDE_OR_ESCAPE}")
    if any("=" not in option for option in options if option):
        raise UnusableDatabase(
            f"the database's address has something other than NAME=VALUE after its ?; if that belongs to the password, {_HIDE_OR_ESCAPE}"
        )


def _without_places(address: str) -> tuple[str, dict[str, str]]:
    """Take several hosts, or the directory of a socket, out of where libpq has them, to be `host` and `port` of the query.

    `postgresql://u@a:1,b:2/d` is `postgresql://u@/d?host=a,b&port=1,2`, and `postgresql://u@%2Frun/d` is `postgresql://u@/d?host=/run`.
    """
    found = _PLACES.fullmatch(address)
    if found is None or not (
        found[1].startswith("postgres") and ("," in found[3] or found[3].upper().startswith("%2F"))
    ):
        return address, {}
    places = [_PLACE.fullmatch(each) for each in found[3].split(",")]
    if None in places:
        return address, {}
    hosts, ports = zip(*((unquote(each[1]).strip("[]"), each[2] or "") for each in places if each), strict=True)
    query = {"host": ",".join(hosts), "port": ",".join(ports)}
    return f"{found[1]}{found[2]}{found[4]}", {name: value for name, value in query.items() if value.strip(",")}


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
    if "," in place:
        return ""
    return f" {place.rpartition(':')[2]!r}"


def _postgresql(url: URL) -> URL:
    if url.drivername not in ("postgres", "postgresql", "postgresql+psycopg"):
        raise UnusableDatabase(f"{shown(url)} names a driver that is not used here; write postgresql://...")
    if importlib.util.find_spec("psycopg") is None:
        raise UnusableDatabase("PostgreSQL needs psycopg: pip install 'asktell[postgres]'")
    url = url.set(drivername="postgresql+psycopg")
    try:
        url.get_dialect()().create_connect_args(url)
    except (ArgumentError, ValueError) as error:
        raise UnusableDatabase(
            "the hosts and ports of the database's address do not go together: write ?host=A:5432&host=B:5432, or ?host=A,B&port=5432,5432"
        ) from error
    return url
