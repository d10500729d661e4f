"""What a server counts of its work, on a page that Prometheus reads."""

from __future__ import annotations

import io
import math
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    make_wsgi_app,
)

from asktell.server.application.metering import CallMeter, Kind, Meter
from asktell.server.domain.policy import Candidate
from asktell.server.domain.trial import Trial, TrialState

# When each counter began: a third of the page, which Prometheus does not need to see a restart.
disable_created_metrics()  # type: ignore[no-untyped-call]

log = structlog.get_logger("asktell.prometheus")

READERS = 8
"""Readers of the page at a time; further ones are hung up on. Each takes a thread and a file descriptor, which calls need."""
PATIENCE = 10.0
"""Seconds in which a reader must say something, or take what it is sent."""

_LATENCIES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0)
"""Upper ends of the buckets, in seconds: from a tell's milliseconds to the longest that an ask may take."""
_METHOD = ("grpc_type", "grpc_service", "grpc_method")
_CODES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "INTERNAL",
    "UNAVAILABLE",
)
"""What calls end with."""
_TOLD = (TrialState.SUCCEEDED, TrialState.STOPPED, TrialState.INFEASIBLE, TrialState.FAILED, TrialState.QUEUED)
_RANDOM = "random"
"""The method of a point that stands in for a model's."""


class PrometheusMeter(Meter):
    """Counts in memory, from the start of the server on. The calls' names are those of gRPC's exporters, which dashboards know.

    What alerts look at is there from the start, at 0: Prometheus takes no notice of the first value that it sees of a counter.
    """

    def __init__(self, policies: Collection[str] = ()) -> None:
        self._registry = registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        self._started = Counter("grpc_server_started", "Calls that came.", _METHOD, registry=registry)
        self._handled = Counter(
            "grpc_server_handled", "Calls that ended, by status code.", (*_METHOD, "grpc_code"), registry=registry
        )
        self._seconds = Histogram(
            "grpc_server_handling_seconds",
            "How long calls took, the wait in line of an ask included.",
            _METHOD,
            buckets=_LATENCIES,
            registry=registry,
        )
        self._candidates = Counter(
            "asktell_candidates",
            "Candidates handed out, by how they were chosen; fallback: not as the policy usually does, as for want of time or after an error;"
            " prepared: ahead of the ask.",
            ("policy", "method", "fallback", "prepared"),
            registry=registry,
        )
        for policy in policies:
            for prepared in (False, True):
                self._candidates.labels(policy, _RANDOM, "true", _said(prepared))
        self._choosing = Histogram(
            "asktell_choice_seconds",
            "How long it took to choose a candidate.",
            ("policy",),
            buckets=_LATENCIES,
            registry=registry,
        )
        self._results = Counter(
            "asktell_results", "Results told, by what became of the trial.", ("state",), registry=registry
        )
        for state in _TOLD:
            self._results.labels(state.value)
        self._expired = Counter(
            "asktell_leases_expired", "Leases that ran out: of workers that were lost.", registry=registry
        )
        self._database = Gauge(
            "asktell_database_up",
            "Whether the database answered and took writes, when it was last asked; NaN before.",
            registry=registry,
        )
        self._database.set(math.nan)
        self._asked = time.monotonic()
        self.show(
            "asktell_silent_seconds",
            "Since the event loop, which answers all calls, last asked the database, as it does twice a second.",
            lambda: time.monotonic() - self._asked,
        )
        about = Gauge("asktell_build_info", "1, with the version.", ("version",), registry=registry)
        about.labels(version("asktell")).set(1)

    def calls(self, kind: Kind, service: str, method: str) -> CallMeter:
        """What counts the calls of a method, which is shown from now on."""
        labels = kind.value, service, method
        for code in _CODES:
            self._handled.labels(*labels, _spelled(code))
        return _Calls(labels, self._started.labels(*labels), self._seconds.labels(*labels), self._handled)

    def show(self, name: str, what: str, read: Callable[[], float]) -> None:
        """Show a gauge."""
        Gauge(name, what, registry=self._registry).set_function(read)

    def handed(self, candidates: Sequence[Candidate], *, prepared: bool) -> None:
        """Count candidates, each with its share of the time that choosing took."""
        for candidate in candidates:
            origin = candidate.origin
            self._candidates.labels(origin.policy, origin.method, _said(bool(origin.fallback)), _said(prepared)).inc()
            self._choosing.labels(origin.policy).observe(origin.compute_duration.total_seconds())

    def told(self, trials: Sequence[Trial]) -> None:
        """Count results."""
        for trial in trials:
            self._results.labels(trial.state.value).inc()

    def expired(self, leases: int) -> None:
        """Count leases."""
        self._expired.inc(leases)

    def asked(self, *, reached: bool) -> None:
        """Show that the event loop goes round, and whether the database answered."""
        self._asked = time.monotonic()
        self._database.set(reached)

    @contextmanager
    def served(self, listen: str) -> Iterator[str]:
        """Serve the page at HOST:PORT during the block, on threads of its own; HOST:PORT with a port that was free for 0. Raises OSError if it
        cannot be had.
        """
        host, _, port = listen.rpartition(":")
        try:
            server = _Page(host.strip("[]"), int(port), self._registry)
        except (OSError, UnicodeError) as error:
            raise OSError(f"cannot listen for Prometheus on {listen}: {error}") from error
        thread = threading.Thread(target=server.serve_forever, args=(_POLL,), name="prometheus", daemon=True)
        thread.start()
        try:
            yield f"{host}:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


_POLL = 0.05
"""Seconds that the page's end may have to be waited for."""


@dataclass(frozen=True, slots=True)
class _Calls(CallMeter):
    labels: tuple[str, str, str]
    started: Counter
    seconds: Histogram
    handled: Counter

    def began(self) -> None:
        self.started.inc()

    def ended(self, code: str, seconds: float) -> None:
        self.handled.labels(*self.labels, _spelled(code)).inc()
        self.seconds.observe(seconds)


def _spelled(code: str) -> str:
    """A status code as gRPC's exporters have it: NotFound for NOT_FOUND."""
    return _IRREGULAR.get(code) or code.title().replace("_", "")


_IRREGULAR = {"OK": "OK", "CANCELLED": "Canceled"}


def _said(what: bool) -> str:  # noqa: FBT001 - a label's value.
    return "true" if what else "false"


class _Reader(WSGIRequestHandler):
    """One connection. The library's own server has no end for one that says nothing."""

    timeout = PATIENCE

    def get_stderr(self) -> io.StringIO:
        # What a reader sends that is no request is not for the server's log, whose lines are JSON.
        return io.StringIO()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the base class has it.
        log.debug("page", peer=self.client_address[0], said=format % args)


class _Page(ThreadingMixIn, WSGIServer):
    """The server of the page: whatever its readers do, it takes no more than a few threads and descriptors, and says little of it."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        self._free = threading.BoundedSemaphore(READERS)
        self.address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        super().__init__((host, port), _Reader)
        self.set_app(make_wsgi_app(registry))

    def server_bind(self) -> None:
        # HTTPServer's looks the host's name up, for which a broken name server takes seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def get_request(self) -> Any:
        try:
            return super().get_request()
        except OSError:
            # As where there is no descriptor left: it is tried again at once.
            time.sleep(_POLL)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            log.debug("page_busy", peer=client_address[0])
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:
            # No thread could be started, to release it.
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - as the base class has it.
        log.debug("page_unread", peer=client_address[0], exc_info=True)
