"""Where a service listens: a target as gRPC takes it, checked before gRPC tries for a minute what cannot work."""

from __future__ import annotations

import os
import re
from typing import Final
from urllib.parse import unquote

from asktell.client.errors import InvalidArgument

PORT: Final = 50051

_OTHER_SCHEMES = ("unix:", "unix-abstract:", "vsock:", "xds:", "google-c2p:")
"""What follows these is no host with a port."""
_DNS = re.compile(r"(dns:(?://[^/]*/)?)(.*)", re.DOTALL)
_ADDRESSES = re.compile(r"(ipv[46]:)(.*)", re.DOTALL)
_FOREIGN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(?:[^/@]*@)?([^/]*)")
_WITH_PORT = re.compile(r"(\[[^\[\]/\s]+\]|[^\[\]/:,\s]+):([0-9]+)")
_FILE = re.compile(r"[/\\]|\.(?:db|sqlite3?)$", re.IGNORECASE)


def check(target: str, *, source: str = "target") -> None:
    """Raise InvalidArgument, with what to write instead, for what is no target of gRPC's; `source` is where it was given.

    A target is `localhost:50051`, `[::1]:50051`, `dns:///host:50051`, `ipv4:10.0.0.1:50051,10.0.0.2:50051`, `unix:/path` and so on. Of one
    without a port gRPC would take 443.
    """
    if not isinstance(target, str):
        raise _error(source, f"{target!r} is a {type(target).__name__}, not a text{_opening(target)}")
    if target.startswith(_OTHER_SCHEMES):
        return
    if several := _ADDRESSES.fullmatch(target):
        for address in several[2].split(","):
            _check_address(address, of=target, source=source)
    elif by_name := _DNS.fullmatch(target):
        _check_address(by_name[2], of=target, source=source)
    else:
        _check_scheme(target, source=source)
        _check_address(target, of=target, source=source)


def _check_scheme(target: str, *, source: str) -> None:
    if target.startswith("sqlite:///"):
        raise _error(source, f"{target!r} looks like a file{_opening(target.removeprefix('sqlite:///'))}")
    foreign = _FOREIGN.match(target)
    if foreign is None:
        return
    scheme, host = foreign.groups()
    shown = repr(f"{scheme}://{host}")  # A password is nobody's business.
    if scheme.startswith("postgres"):
        raise _error(source, f"{shown} is a database: write where `asktell serve` listens, such as localhost:{PORT}")
    write = host if _WITH_PORT.fullmatch(host) else f"{host or 'localhost'}:{PORT}"
    raise _error(source, f"{shown} has a scheme, {scheme}://: write {write}")


def _check_address(address: str, *, of: str, source: str) -> None:
    """Raise InvalidArgument unless the address, a part `of` the target, has a host and a port."""
    address = unquote(address)
    found = _WITH_PORT.fullmatch(address)
    if found is None:
        raise _error(source, f"{of!r} {_lack(address)}")
    if not 0 < int(found[2]) <= 65_535:
        raise _error(source, f"{of!r} has the port {found[2]}, not one from 1 to 65535: write {found[1]}:{PORT}")


def _lack(address: str) -> str:
    """What is wrong with an address, and what to write."""
    plain = address.strip(" /")
    host, _, port = plain.partition(":")
    if _WITH_PORT.fullmatch(plain):
        return f"is more than a host and a port: write {plain}"
    if _FILE.search(address):
        return f"looks like a file{_opening(address)}"
    if plain.count(":") > 1:
        return f"has no port, or its IPv6 address no brackets: write [::1]:{PORT}"
    if port:
        return f"has no host: write localhost:{port}" if not host else f"has no number for a port: write {host}:{PORT}"
    return f"has no port: write {host or 'localhost'}:{PORT}"


def _opening(path: object) -> str:
    """How the file is opened, if it is one."""
    if not isinstance(path, str | os.PathLike):
        return f": write localhost:{PORT}"
    name = os.fspath(path)
    return (
        f": Client.local({name!r}) opens it, `asktell serve --database {name}` serves it;"
        " while a Client.local has it open, its client.target is where it can be reached"
    )


def _error(source: str, description: str) -> InvalidArgument:
    return InvalidArgument(f"{source}: {description}", reason="BAD_TARGET", field_violations=((source, description),))
