"""Stored fits: they come back as they were left, or not at all; and they change no choice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asktell.server.domain.metric import Goal, MetricValue, Objective
from asktell.server.domain.policy import MAX_HINT, Observation, SuggestRequest
from asktell.server.domain.space import Categorical, Float, Int, SearchSpace, key
from asktell.server.domain.trial import TrialState
from asktell.server.policies import learning, registry
from asktell.server.policies.hints import Fits, digest_of
from asktell.server.policies.kernel import Layout
from asktell.server.policies.labels import Noise

SPACE = SearchSpace(
    (
        Float(name="x", low=0.0, high=1.0),
        Float(name="rate", low=1e-4, high=1.0, log=True),
        Int(name="i", low=0, high=9),
        Categorical(name="c", choices=("a", "b", "c")),
    )
)
TRIALS = 40
FINITE = st.floats(allow_nan=False)


def cost(p):
    return (p["x"] - 0.3) ** 2 + p["rate"] + abs(p["i"] - 6) / 9 + {"a": 0.3, "b": 0.0, "c": 0.7}[p["c"]]


def wide(count):
    return SearchSpace(tuple(Float(name=f"x{index}", low=0.0, high=1.0) for index in range(count)))


def unknown():
    raise AssertionError("a fit that should have been known was made again")


def left(fits):
    """The hint after these fits were made."""
    maker = Fits()
    for digest, point in fits.items():
        maker.recall(digest, lambda point=point: point, keep=lambda: True)
    return maker.hint()


def known(hint, digest):
    """Whether a hint has this fit."""
    calls = []
    Fits(hint).recall(digest, lambda: calls.append(1) or np.zeros(1), keep=lambda: True)
    return not calls


def in_the_midst(*, space=SPACE, function=cost, count=14, pending=2, **changes):
    """A request after `count` random trials of which the last few are pending."""
    asking = SuggestRequest(
        space=space,
        objectives=(Objective("cost", Goal.MINIMIZE),),
        policy="random",
        seed=3,
        count=count,
        next_number=1,
    )
    drawn = [candidate.parameters for candidate in registry.suggest(asking).candidates]
    observations = tuple(
        Observation(number, TrialState.SUCCEEDED, p, {"cost": MetricValue(function(p))})
        for number, p in enumerate(drawn[: count - pending], 1)
    )
    ended = tuple(drawn[count - pending :])
    return replace(
        asking, policy="gp", count=1, next_number=count + 1, observations=observations, pending=ended, **changes
    )


def bits(decision):
    """What was decided, to the last bit, without the time that it took."""
    return [(key(c.parameters), replace(c.origin, compute_duration=None)) for c in decision.candidates]


@given(
    st.dictionaries(
        st.binary(min_size=16, max_size=16), st.lists(FINITE, max_size=20).map(np.array), min_size=1, max_size=5
    )
)
def test_what_was_left_comes_back_bit_by_bit(fits):
    hint = left(fits)
    assert len(hint) <= MAX_HINT
    taken = Fits(hint)
    for digest, point in fits.items():
        back = taken.recall(digest, unknown, keep=lambda: True)
        assert back.astype("<f8").tobytes() == point.astype("<f8").tobytes()
    assert taken.hint() == hint


def test_a_fit_that_time_cut_short_and_one_that_was_not_used_are_not_kept():
    fits = Fits(left({b"a" * 16: np.ones(3)}))
    assert fits.recall(b"b" * 16, lambda: np.zeros(3), keep=lambda: False).tolist() == [0.0] * 3
    assert fits.hint() == b""


def test_fits_that_are_too_many_for_a_hint_are_left_out_and_the_others_kept():
    many = {bytes([index]) * 16: np.full(102, float(index)) for index in range(9)}
    hint = left(many)
    assert len(hint) <= MAX_HINT
    assert [known(hint, digest) for digest in many] == [True] * 4 + [False] * 5


def test_a_point_that_fits_into_no_hint_leaves_none():
    assert left({b"a" * 16: np.zeros(600)}) == b""


@pytest.fixture(scope="module")
def whole():
    """A request, its decision, and what it was decided without a hint."""
    request = in_the_midst()
    decision = registry.suggest(request)
    assert len(decision.hint) > 100
    return request, decision


@given(position=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_makes_a_hint_none(whole, position, bit):
    hint = bytearray(whole[1].hint)
    hint[position % len(hint)] ^= 1 << bit
    assert not Fits(bytes(hint))._stored


def test_every_flipped_byte_and_every_truncation_makes_a_hint_none(whole):
    hint = whole[1].hint
    assert Fits(hint)._stored
    for place in range(len(hint)):
        assert not Fits(hint[:place])._stored
        assert not Fits(hint[:place] + bytes([hint[place] ^ 0xFF]) + hint[place + 1 :])._stored
    assert not Fits(hint + b"\0")._stored


@given(st.binary(max_size=2 * MAX_HINT))
def test_garbage_is_none(garbage):
    assert not Fits(garbage)._stored


def another_version(hint):
    """A hint of the version to come: whole, with its own mark and a checksum that is right."""
    assert hint.startswith(b"asktell fits 4, ")
    return hint.replace(b"asktell fits 4, ", b"asktell fits 5, ", 1)


SPOILT = {
    "flipped in the mark": lambda hint: bytes([hint[0] ^ 1]) + hint[1:],
    "flipped in the checksum": lambda hint: (
        mark := hint.index(b"\n") + 1,
        hint[:mark] + bytes([hint[mark] ^ 64]) + hint[mark + 1 :],
    )[1],
    "flipped in a number": lambda hint: hint[:-1] + bytes([hint[-1] ^ 1]),
    "cut in half": lambda hint: hint[: len(hint) // 2],
    "cut by a byte": lambda hint: hint[:-1],
    "longer by a byte": lambda hint: hint + b"\0",
    "garbage": lambda hint: bytes(range(256)) * 16,
    "another version": another_version,
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_spoilt_hint_is_fitted_again_and_changes_no_candidate(whole, spoil, monkeypatch):
    request, decision = whole
    fits, fit = [], learning.fit
    monkeypatch.setattr(learning, "fit", lambda *args, **options: fits.append(1) or fit(*args, **options))
    good = registry.suggest(replace(request, hint=decision.hint))
    assert (len(fits), bits(good), good.hint) == (0, bits(decision), decision.hint)
    spoilt = registry.suggest(replace(request, hint=spoil(decision.hint)))
    assert (len(fits), bits(spoilt), spoilt.hint) == (2, bits(decision), decision.hint)


def test_a_hint_of_another_study_is_of_no_use_and_does_no_harm(whole):
    request, decision = whole
    other = registry.suggest(in_the_midst(function=lambda p: -cost(p)))
    assert other.hint != decision.hint
    assert bits(registry.suggest(replace(request, hint=other.hint))) == bits(decision)


@pytest.mark.parametrize("failing", [False, True], ids=["two fits", "three fits"])
def test_a_hint_of_a_hundred_parameters_keeps_within_its_bytes_and_has_all_fits(failing):
    def function(p):
        return float("nan") if failing and p["x0"] < 0.4 else sum(p.values())

    request = in_the_midst(space=wide(100), function=function, count=24)
    decision = registry.suggest(request)
    assert not decision.candidates[0].origin.fallback
    assert 0 < len(decision.hint) <= MAX_HINT
    assert len(Fits(decision.hint)._stored) == 2 + failing
    assert bits(registry.suggest(replace(request, hint=decision.hint))) == bits(decision)


def test_whatever_a_fit_depends_on_is_in_its_digest():
    layout = Layout(np.array([0, 1]), np.array([True, True]), 2)
    rows, labels = np.arange(6.0).reshape(3, 2), np.arange(3.0)
    silent = Noise(np.zeros(3))
    digests = [
        digest_of(rows, labels, layout, noise=silent, trend=False),
        digest_of(rows, labels, layout, noise=silent, trend=True),
        digest_of(rows, labels, layout, noise=Noise(np.zeros(3), complete=True), trend=False),
        digest_of(rows, labels, layout, noise=Noise(np.array([0.0, 0.1, 0.0])), trend=False),
        digest_of(rows, labels[::-1], layout, noise=silent, trend=False),
        digest_of(rows[::-1], labels, layout, noise=silent, trend=False),
        digest_of(rows.reshape(2, 3), labels, layout, noise=silent, trend=False),
        digest_of(rows, labels, Layout(np.array([0, 0]), np.array([True, True]), 1), noise=silent, trend=False),
        digest_of(rows, labels, Layout(np.array([0, 1]), np.array([True, False]), 2), noise=silent, trend=False),
        digest_of(rows, labels, layout),
        digest_of(rows, labels, layout, chance=True),
    ]
    assert len(set(digests)) == len(digests)
    assert digest_of(rows.copy(order="F"), labels.copy(), layout, noise=silent, trend=False) == digests[0]


@pytest.mark.parametrize("workers", [1, 8], ids=["sequential", "eight pending"])
def test_a_study_is_the_same_with_hints_and_without(workers, monkeypatch):
    fits, fit = [], learning.fit
    monkeypatch.setattr(learning, "fit", lambda *args, **options: fits.append(1) or fit(*args, **options))
    with_hints = study(workers, keep=True)
    made = len(fits)
    without = study(workers, keep=False)
    assert with_hints == without
    assert sum("acquisition" in repr(each) for each in without) >= TRIALS - 15
    assert made < 0.7 * (len(fits) - made), "hints spare fits"


def study(workers, *, keep):
    """What was decided for each trial of a study whose workers end in turn; whose hints are kept, or lost every time."""
    observations, decisions, hint = [], [], b""
    running = []
    for number in range(1, TRIALS + 1):
        if len(running) == workers:
            ended, p = running.pop(0)
            observations.append(Observation(ended, TrialState.SUCCEEDED, p, {"cost": MetricValue(cost(p))}))
        request = SuggestRequest(
            space=SPACE,
            objectives=(Objective("cost", Goal.MINIMIZE),),
            policy="gp",
            seed=9,
            count=1,
            next_number=number,
            observations=tuple(observations),
            pending=tuple(p for _, p in running),
            hint=hint,
        )
        decision = registry.suggest(request)
        assert len(decision.hint) <= MAX_HINT
        hint = (decision.hint or hint) if keep else b""
        decisions.append(bits(decision))
        running.append((number, decision.candidates[0].parameters))
    return decisions
