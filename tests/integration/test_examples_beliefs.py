"""The examples of docs/surrogate.md and docs/enqueue.md do what they say."""

from __future__ import annotations


def test_the_example_of_the_surrogate_finds_what_matters(example) -> None:
    expected, importance, left_out = example("beliefs")
    assert 0.3 < float(expected.split()[5]) < 0.9
    assert importance.startswith("importance: learning_rate ")
    assert importance.endswith("dropout 0%")
    assert "of 40 results within one standard deviation" in left_out


def test_the_example_of_enqueueing_hands_out_what_was_enqueued(example) -> None:
    lines = example("enqueue")
    assert [line.rpartition(" ")[2] for line in lines] == ["user", "user", "user", "gp"]
    assert ["0.005" in lines[0], "0.02" in lines[1], "0.03" in lines[2]] == [True] * 3
