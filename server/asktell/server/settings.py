"""What can be set when a server starts: by flag, by environment variable, or left as it is."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import loky
from cyclopts import Parameter, validators
from platformdirs import user_data_path

from asktell.server.application import failpoints


class StartError(Exception):
    """The server cannot start, for a reason that its user can mend."""


LAST_PORT = 65_535


def default_database() -> str:
    """A SQLite file in the user's data directory. Raises StartError if there is no such directory and none can be made."""
    try:
        directory = user_data_path("asktell", appauthor=False, ensure_exists=True)
    except RuntimeError as error:
        raise StartError(f"{_user()} has no home directory to keep a database in: {_ELSEWHERE}") from error
    except OSError as error:
        raise StartError(
            f"{_user()} has no data directory to keep a database in: {error.filename}: {error.strerror}; {_ELSEWHERE}"
        ) from error
    return f"sqlite:///{directory / 'asktell.db'}"


_ELSEWHERE = "say where it shall be by --database or ASKTELL_DATABASE"


def _user() -> str:
    return f"the user {os.geteuid()}" if sys.platform != "win32" else "this user"


def default_engine_processes() -> int:
    """All cores that this process may use but one, at most four: further ones help only when many studies ask at once."""
    return max(1, min(4, int(loky.cpu_count()) - 1))


def _check_listen(_: object, listen: str | None) -> None:
    if listen is None:
        return
    host, separator, port = listen.rpartition(":")
    if not (host and separator and port.isascii() and port.isdecimal() and int(port) <= LAST_PORT):
        raise ValueError(f"{listen!r} is not HOST:PORT with a port from 0 to 65535")


def _check_failpoints(_: object, description: str) -> None:
    failpoints.read(description)


def _check_database(_: object, database: str | None) -> None:
    # An empty variable of the shell is a mistake: the default would be another database than was meant.
    if database is not None and not database.strip():
        raise ValueError(
            "the database's address is empty; give one, or leave it out for the file in the user's data directory"
        )


_FILE = validators.Path(exists=True, dir_okay=False)

DatabaseAddress = Annotated[str | None, Parameter(env_var="ASKTELL_DATABASE", validator=_check_database)]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of a server. Each flag has an environment variable; a flag wins."""

    listen: Annotated[str, Parameter(env_var="ASKTELL_LISTEN", validator=_check_listen)] = "127.0.0.1:50051"
    """HOST:PORT to listen on; port 0 takes a free one. Without a certificate there is no encryption and no access control: keep it to
    networks you trust."""

    server_cert: Annotated[Path | None, Parameter(env_var="ASKTELL_SERVER_CERT", validator=_FILE)] = None
    """File with the server's certificate, in PEM: connections are encrypted. Read again when it changes."""

    server_key: Annotated[Path | None, Parameter(env_var="ASKTELL_SERVER_KEY", validator=_FILE)] = None
    """File with the certificate's key, in PEM."""

    client_ca: Annotated[Path | None, Parameter(env_var="ASKTELL_CLIENT_CA", validator=_FILE)] = None
    """File with the authorities, in PEM, of which clients must have a certificate: nobody else can connect."""

    database: DatabaseAddress = None
    """Database: a path or sqlite:///PATH for one server, postgresql://USER@HOST/NAME for several, with the password in PGPASSWORD or
    ~/.pgpass. A SQLite file in the user's data directory if not given."""

    prometheus_listen: Annotated[
        str | None, Parameter(env_var="ASKTELL_PROMETHEUS_LISTEN", validator=_check_listen)
    ] = None
    """HOST:PORT of a page for Prometheus, http://HOST:PORT/metrics, with what the server counts of its calls, candidates and leases, for all
    who reach it; of several server processes each has one, on the ports that follow. None if not given."""

    migrate: Annotated[bool | None, Parameter(env_var="ASKTELL_MIGRATE")] = None
    """Bring the schema up to date at the start; by default on SQLite only: on PostgreSQL, `asktell migrate` is a step of the deployment."""

    processes: Annotated[int, Parameter(env_var="ASKTELL_PROCESSES", validator=validators.Number(gte=1, lte=64))] = 1
    """Server processes that share the port, for more calls than one core answers; on PostgreSQL only. Each has a share of the clients, engine
    processes and 14 connections to the database of its own; one that dies or hangs is started anew."""

    hang_limit: Annotated[
        float, Parameter(env_var="ASKTELL_HANG_LIMIT", validator=validators.Number(gte=2, lte=3600))
    ] = 30.0
    """Seconds without a sign of life after which one of several server processes is killed, to be started anew."""

    engine_processes: Annotated[
        int | None, Parameter(env_var="ASKTELL_ENGINE_PROCESSES", validator=validators.Number(gte=1, lte=64))
    ] = None
    """Processes that choose candidates, of each server process; all cores but one, at most 4, shared out among server processes, if not
    given."""

    torch_device: Annotated[str, Parameter(env_var="ASKTELL_TORCH_DEVICE")] = "cpu"
    """Where the policy `gp-botorch` computes: a device of torch's with double precision, such as `cuda:0`. The other policies use the CPU."""

    ask_time_limit: Annotated[
        float, Parameter(env_var="ASKTELL_ASK_TIME_LIMIT", validator=validators.Number(gt=0, lte=3600))
    ] = 20.0
    """Seconds that choosing a candidate may take, if the caller's deadline is not earlier; then the best found so far is handed out."""

    max_waiting_asks: Annotated[
        int, Parameter(env_var="ASKTELL_MAX_WAITING_ASKS", validator=validators.Number(gte=1, lte=100_000))
    ] = 256
    """Asks that may wait for one study, and an eighth of those that may wait in all; further ones are RESOURCE_EXHAUSTED, with when to
    come again."""

    speculate: Annotated[bool, Parameter(env_var="ASKTELL_SPECULATE")] = True
    """Prepare candidates after a tell and between asks, while an engine process is idle, so that the next ask need not wait for them."""

    lease_check_interval: Annotated[
        float, Parameter(env_var="ASKTELL_LEASE_CHECK_INTERVAL", validator=validators.Number(gt=0, lte=3600))
    ] = 1.0
    """Seconds between looks for leases that ran out."""

    drain: Annotated[float, Parameter(env_var="ASKTELL_DRAIN", validator=validators.Number(gte=0, lte=3600))] = 10.0
    """Seconds that calls under way may take to finish after SIGTERM."""

    max_connection_age: Annotated[
        float, Parameter(env_var="ASKTELL_MAX_CONNECTION_AGE", validator=validators.Number(gte=1))
    ] = 600.0
    """Seconds after which a connection is closed gently, so that clients find new replicas."""

    log_level: Annotated[Literal["debug", "info", "warning", "error"], Parameter(env_var="ASKTELL_LOG_LEVEL")] = "info"
    """Least severe log lines to show; `debug` shows every call."""

    log_format: Annotated[Literal["auto", "console", "json"], Parameter(env_var="ASKTELL_LOG_FORMAT")] = "auto"
    """Log lines for people or for programs; `auto` is `console` in a terminal, else `json`. They go to standard error."""

    failpoints: Annotated[str, Parameter(env_var="ASKTELL_FAILPOINTS", validator=_check_failpoints)] = ""
    """For tests of what survives a crash: places in the code where the server dies, such as `ask.committed=kill@3`; never in production."""

    @property
    def database_url(self) -> str:
        """The database, with the default filled in."""
        return default_database() if self.database is None else self.database

    @property
    def engines(self) -> int:
        """The number of engine processes of a server process, with the default filled in."""
        return self.engine_processes or max(1, default_engine_processes() // self.processes)

    def prometheus_of(self, place: int) -> str | None:
        """HOST:PORT of the page of one of several server processes, the first at 0. Raises StartError if there is no such port."""
        if self.prometheus_listen is None:
            return None
        host, _, port = self.prometheus_listen.rpartition(":")
        own = int(port) and int(port) + place
        if own > LAST_PORT:
            raise StartError(
                f"--prometheus-listen {self.prometheus_listen}: {self.processes} processes need as many ports"
            )
        return f"{host}:{own}"

    @property
    def embedded(self) -> bool:
        """Whether the database is a SQLite file: then this server is the only one, and keeps its schema itself."""
        return not self.database_url.startswith(("postgresql:", "postgresql+", "postgres:"))

    @property
    def migrates(self) -> bool:
        """Whether the schema is brought up to date at the start."""
        return self.embedded if self.migrate is None else self.migrate
