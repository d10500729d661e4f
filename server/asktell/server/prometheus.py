"""What a server counts of its work, on a page that Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)

from asktell.server.application.metering import CallMeter, Kind, Meter
from asktell.server.domain.policy import Candidate
from asktell.server.domain.trial import Trial, TrialState

# When each counter began: a third of the page, which Prometheus does not need to see a restart.
disable_created_metrics()  # type: ignore[no-untyped-call]

_LATENCIES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0)
"""Upper ends of the buckets, in seconds: from a tell's milliseconds to the longest that an ask may take."""
_METHOD = ("grpc_type", "grpc_service", "grpc_method")
_TOLD = (TrialState.SUCCEEDED, TrialState.STOPPED, TrialState.INFEASIBLE, TrialState.FAILED)


class PrometheusMeter(Meter):
    """Counts in memory, from the start of the server on. The calls' names are those of gRPC's exporters, which dashboards know."""

    def __init__(self) -> None:
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
            "Candidates handed out, by how they were chosen; fallback: not as the policy usually does, for want of time or after an error;"
            " prepared: ahead of the ask.",
            ("policy", "method", "fallback", "prepared"),
            registry=registry,
        )
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
            "Whether the database answered and took writes, when it was last asked.",
            registry=registry,
        )
        Gauge("asktell_build_info", "1, with the version.", ("version",), registry=registry).labels(
            version("asktell")
        ).set(1)

    def calls(self, kind: Kind, service: str, method: str) -> CallMeter:
        """What counts the calls of a method, which is shown from now on."""
        labels = kind.value, service, method
        self._handled.labels(*labels, _spelled("OK"))
        return _Calls(labels, self._started.labels(*labels), self._seconds.labels(*labels), self._handled)

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

    def reached(self, *, database: bool) -> None:
        """Show whether the database answered."""
        self._database.set(database)

    def show(self, name: str, what: str, read: Callable[[], float]) -> None:
        """Show a gauge."""
        Gauge(name, what, registry=self._registry).set_function(read)

    @contextmanager
    def served(self, listen: str) -> Iterator[str]:
        """Serve the page at HOST:PORT during the block, on a thread of its own; HOST:PORT with a port that was free for 0. Raises OSError if it
        cannot be had.
        """
        host, _, port = listen.rpartition(":")
        try:
            server, thread = start_http_server(int(port), host.strip("[]"), self._registry)
        except OSError as error:
            raise OSError(f"cannot listen for Prometheus on {listen}: {error}") from error
        try:
            yield f"{host}:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


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
