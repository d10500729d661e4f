"""What a server's health says while its database can be read and not written."""

from __future__ import annotations

import resource
import sys

import grpc
import psutil
import psycopg
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from psycopg import sql

from tests.processes import Processes, until
from tests.wire import Wire, refusal, small_study

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def await_health(wire: Wire, status: int) -> None:
    stub = health_pb2_grpc.HealthStub(wire.channel)
    until(lambda: stub.Check(health_pb2.HealthCheckRequest()).status == status)


def refused_creation(wire: Wire, study: str) -> tuple[grpc.StatusCode, str]:
    found = refusal(lambda: wire.create(study, small_study()))
    return found.code, found.message


def test_a_server_whose_role_may_not_write_serves_once_it_may(processes: Processes, migrated_url: str) -> None:
    with psycopg.connect(migrated_url, autocommit=True) as operator:
        operator.execute("CREATE ROLE lowly LOGIN")
        operator.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO lowly")
        server = processes.serve(migrated_url.replace("postgres@", "lowly@"))
        with Wire(server.target) as wire:
            code, message = refused_creation(wire, "early")
            assert code is grpc.StatusCode.UNAVAILABLE
            assert "grant the role" in message
            await_health(wire, NOT_SERVING)
            operator.execute("GRANT INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO lowly")
            await_health(wire, SERVING)
            assert wire.create("late", small_study()).name
            operator.execute("REVOKE UPDATE ON trials FROM lowly")
            await_health(wire, NOT_SERVING)
        server.end()
        operator.execute("DROP OWNED BY lowly; DROP ROLE lowly")


def test_a_server_of_a_read_only_database_serves_once_it_is_no_longer(processes: Processes, migrated_url: str) -> None:
    with psycopg.connect(migrated_url, autocommit=True) as operator:
        alter = sql.SQL("ALTER DATABASE {} ").format(sql.Identifier(operator.info.dbname))
        operator.execute(alter + sql.SQL("SET default_transaction_read_only = on"))
        with Wire(processes.serve(migrated_url).target) as wire:
            await_health(wire, NOT_SERVING)
            code, message = refused_creation(wire, "early")
            assert code is grpc.StatusCode.UNAVAILABLE
            assert "connect to the primary" in message
            operator.execute(alter + sql.SQL("RESET default_transaction_read_only"))
            await_health(wire, SERVING)
            assert wire.create("late", small_study()).name


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets one process limit another")
def test_a_server_whose_file_cannot_be_written_serves_once_it_can(processes: Processes, sqlite_file: str) -> None:
    server = processes.serve(sqlite_file)
    with Wire(server.target) as wire:
        await_health(wire, SERVING)
        process = psutil.Process(server.pid)
        _, most = process.rlimit(resource.RLIMIT_FSIZE)
        process.rlimit(resource.RLIMIT_FSIZE, (0, most))
        assert refused_creation(wire, "early")[0] is grpc.StatusCode.UNAVAILABLE
        await_health(wire, NOT_SERVING)
        process.rlimit(resource.RLIMIT_FSIZE, (most, most))
        await_health(wire, SERVING)
        assert wire.create("late", small_study()).name
