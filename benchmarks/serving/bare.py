"""What the databases reach without a service: durable commits of single rows by the drivers that the service uses.

A row has as many bytes as a tell writes. Clients are threads, each with one row under way: on SQLite they hand their rows to one writer,
which commits whatever waits together, as the service's does; on PostgreSQL each has a connection, whose commits the database groups.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue

import psycopg

from benchmarks.serving.databases import SQLITE

ROWS = 10_000
PAYLOAD = 600
"""Bytes of a row: what a trial with six parameters has."""
LARGEST_GROUP = 128

Commit = Callable[[int, str], None]


def commits(kind: str, address: str, *, clients: int, seconds: float) -> float:
    """Durable single-row updates per second on a new database."""
    with (_sqlite if kind == SQLITE else _postgresql)(address, clients) as committers:
        return _rate(committers, seconds)


def _rate(committers: list[Commit], seconds: float) -> float:
    """All clients at once; each updates rows of its own."""
    clients, counts = len(committers), [0] * len(committers)
    payload = "y" * PAYLOAD
    began = time.perf_counter()

    def work(client: int, commit: Commit) -> None:
        row = client
        while time.perf_counter() - began < seconds:
            commit(row, payload)
            row = (row + clients) % ROWS
            counts[client] += 1

    threads = [threading.Thread(target=work, args=each) for each in enumerate(committers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - began)


@contextmanager
def _sqlite(path: str, clients: int) -> Iterator[list[Commit]]:
    with closing(sqlite3.connect(Path(path), isolation_level=None, check_same_thread=False)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE bare (id INTEGER PRIMARY KEY, payload TEXT NOT NULL)")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO bare VALUES (?, ?)", ((row, "x" * PAYLOAD) for row in range(ROWS)))
        connection.execute("COMMIT")
        rows: SimpleQueue[tuple[int, str, Future[None]] | None] = SimpleQueue()
        writer = threading.Thread(target=_write, args=(connection, rows))
        writer.start()

        def commit(row: int, payload: str) -> None:
            done: Future[None] = Future()
            rows.put((row, payload, done))
            done.result()

        try:
            yield [commit] * clients
        finally:
            rows.put(None)
            writer.join()


def _write(connection: sqlite3.Connection, rows: SimpleQueue[tuple[int, str, Future[None]] | None]) -> None:
    while (first := rows.get()) is not None:
        group = [first]
        try:
            while len(group) < LARGEST_GROUP and (following := rows.get_nowait()) is not None:
                group.append(following)
        except Empty:
            pass
        connection.execute("BEGIN IMMEDIATE")
        for row, payload, _ in group:
            connection.execute("UPDATE bare SET payload = ? WHERE id = ?", (payload, row))
        connection.execute("COMMIT")
        for _, _, done in group:
            done.set_result(None)


@contextmanager
def _postgresql(url: str, clients: int) -> Iterator[list[Commit]]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE bare (id BIGINT PRIMARY KEY, payload TEXT NOT NULL)")
        fill = "INSERT INTO bare SELECT row, repeat('x', %s) FROM generate_series(0, %s) row"
        connection.execute(fill, (PAYLOAD, ROWS - 1))
    connections = [psycopg.connect(url, autocommit=True) for _ in range(clients)]

    def committer(connection: psycopg.Connection[tuple[object, ...]]) -> Commit:
        def commit(row: int, payload: str) -> None:
            connection.execute("UPDATE bare SET payload = %s WHERE id = %s", (payload, row))

        return commit

    try:
        yield [committer(connection) for connection in connections]
    finally:
        for connection in connections:
            connection.close()
