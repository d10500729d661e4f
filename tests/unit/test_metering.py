"""What calls end with is counted as it was, and a loop that hangs is seen from outside it."""

from __future__ import annotations

import asyncio
import math
from types import SimpleNamespace

import grpc
import pytest

from asktell.server.application.metering import CallMeter, Kind, Meter
from asktell.server.policies.registry import POLICIES
from asktell.server.prometheus import PrometheusMeter
from asktell.server.rpc.boundary import _metered


class Seen(CallMeter):
    def __init__(self) -> None:
        self.began_times = 0
        self.codes: list[str] = []

    def began(self) -> None:
        self.began_times += 1

    def ended(self, code: str, seconds: float) -> None:
        assert seconds >= 0
        self.codes.append(code)


async def counted(outcome: object, *, code: grpc.StatusCode | None = None, left: float | None = None) -> str:
    """What a call that returns or raises the outcome is counted as."""

    async def handle(_request: object, _context: object) -> object:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    context = SimpleNamespace(code=lambda: code, time_remaining=lambda: left)
    seen = Seen()
    call = _metered(handle, seen)
    if isinstance(outcome, BaseException):
        with pytest.raises(type(outcome)) as raised:
            await call("request", context)
        assert raised.value is outcome
    else:
        assert await call("request", context) is outcome
    assert seen.began_times == 1
    (found,) = seen.codes
    return found


@pytest.mark.parametrize(
    ("outcome", "code", "left", "expected"),
    [
        (b"reply", None, None, "OK"),
        (b"reply", None, 0.0, "OK"),
        (ValueError("odd"), grpc.StatusCode.NOT_FOUND, None, "NOT_FOUND"),
        (ValueError("odd"), None, None, "UNKNOWN"),
        (asyncio.CancelledError(), None, None, "CANCELLED"),
        (asyncio.CancelledError(), None, 5.0, "CANCELLED"),
        (asyncio.CancelledError(), None, 0.007, "DEADLINE_EXCEEDED"),
        (asyncio.CancelledError(), None, 0.0, "DEADLINE_EXCEEDED"),
    ],
)
async def test_a_call_is_counted_by_how_it_ends_and_ends_so(
    outcome: object, code: grpc.StatusCode | None, left: float | None, expected: str
) -> None:
    assert await counted(outcome, code=code, left=left) == expected


def test_who_counts_nothing_is_not_in_the_way() -> None:
    async def handle(_request: object, _context: object) -> None: ...

    assert _metered(handle, Meter().calls(Kind.UNARY, "s", "m")) is handle


def test_a_loop_that_hangs_is_silent_whatever_the_database_did_last(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("asktell.server.prometheus.time", SimpleNamespace(monotonic=lambda: now[0]))
    meter = PrometheusMeter()

    def shown(name: str) -> float:
        found = meter._registry.get_sample_value(name)
        assert found is not None
        return found

    assert math.isnan(shown("asktell_database_up")), "it has not been asked"
    meter.asked(reached=True)
    now[0] += 40.0
    assert (shown("asktell_database_up"), shown("asktell_silent_seconds")) == (1.0, 40.0)
    meter.asked(reached=False)
    assert (shown("asktell_database_up"), shown("asktell_silent_seconds")) == (0.0, 0.0)


def test_what_alerts_look_at_is_there_before_it_happens() -> None:
    meter = PrometheusMeter(POLICIES)
    meter.calls(Kind.UNARY, "asktell.v1.TrialService", "Ask")

    def shown(name: str, **labels: str) -> float | None:
        return meter._registry.get_sample_value(name, labels)

    for policy in POLICIES:
        for prepared in ("true", "false"):
            labels = {"policy": policy, "method": "random", "fallback": "true", "prepared": prepared}
            assert shown("asktell_candidates_total", **labels) == 0
    for code in ("OK", "Internal", "Unknown", "Unavailable", "ResourceExhausted", "DeadlineExceeded", "Canceled"):
        call = {"grpc_type": "unary", "grpc_service": "asktell.v1.TrialService", "grpc_method": "Ask"}
        assert shown("grpc_server_handled_total", **call, grpc_code=code) == 0
    for state in ("succeeded", "stopped", "infeasible", "failed", "queued"):
        assert shown("asktell_results_total", state=state) == 0
    assert shown("asktell_leases_expired_total") == 0
