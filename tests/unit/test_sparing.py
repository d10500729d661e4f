"""What happens again and again is said now and then."""

from __future__ import annotations

from asktell.server.application.sparing import Sparing


def test_each_reason_is_said_at_once_and_then_once_a_minute_with_how_often_it_came() -> None:
    now = [0.0]
    sparing = Sparing(clock=lambda: now[0])
    assert [sparing.count("full") for _ in range(3)] == [1, 0, 0]
    assert sparing.count("gone") == 1
    now[0] = 59.9
    assert sparing.count("full") == 0
    now[0] = 60.0
    assert [sparing.count("full") for _ in range(2)] == [4, 0]
    now[0] = 500.0
    assert sparing.count("full") == 2
    assert sparing.count("gone") == 1
