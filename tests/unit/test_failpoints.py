"""Failpoints do what they are armed to do, when they are to, and nothing else."""

import pytest

from asktell.server.application import failpoints
from asktell.server.domain.errors import Unavailable


@pytest.fixture(autouse=True)
def _disarmed():
    yield
    failpoints.arm("")


def test_an_unarmed_failpoint_does_nothing():
    failpoints.reach("ask.chosen")


def test_a_failpoint_acts_at_the_nth_reach_alone():
    failpoints.arm("tell.updated=error@2, ask.chosen=error")
    failpoints.reach("tell.updated")
    with pytest.raises(Unavailable, match=r"failpoint tell\.updated"):
        failpoints.reach("tell.updated")
    failpoints.reach("tell.updated")
    failpoints.reach("ask.inserted")


def test_arming_anew_disarms_what_was_armed():
    failpoints.arm("ask.chosen=error")
    failpoints.arm("ask.inserted=sleep:0")
    failpoints.reach("ask.chosen")
    failpoints.reach("ask.inserted")


@pytest.mark.parametrize(
    "text", ["nowhere=kill", "ask.chosen", "ask.chosen=explode", "ask.chosen=kill@0", "ask.chosen=sleep:long"]
)
def test_what_is_no_failpoint_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        failpoints.arm(text)
