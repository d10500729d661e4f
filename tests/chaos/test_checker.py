"""The checker sees what breaks a promise: a history that keeps them all, and one for each way to break one."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from asktell.v1 import metric_pb2 as metric
from asktell.v1 import trial_service_pb2 as trials
from tests.chaos.checker import RULES, SLACK, Happened, violations
from tests.chaos.history import Event, Recorder, read
from tests.wire import real, tell_request

STUDY = "projects/p/studies/s"
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = 10
Trial = trials.Trial


def stamp(second: float) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(BEGIN + timedelta(seconds=second))
    return message


@dataclass
class Story:
    """A history that is told line by line, each a second after the one before."""

    events: list[Event] = field(default_factory=list)
    stored: dict[int, trials.Trial] = field(default_factory=dict)
    refuses_late: bool = False
    _clock: itertools.count[int] = field(default_factory=itertools.count)
    _sequence: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def ask(self, worker: str, number: int, *, attempt: int = 1, at: float = 0, x: float | None = None) -> trials.Trial:
        """A worker gets a trial, by the database's clock at second `at`."""
        trial = Trial(
            name=f"{STUDY}/trials/{number}",
            number=number,
            state=Trial.STATE_ACTIVE,
            attempt=attempt,
            sequence=next(self._sequence),
            parameters={"x": real(number / 100 if x is None else x)},
            lease=trials.Lease(token=f"{number}-{attempt}", expire_time=stamp(at + LEASE)),
            start_time=stamp(at),
        )
        request = trials.AskRequest(parent=STUDY, request_id=f"ask-{worker}-{number}-{attempt}")
        self.add(worker, "Ask", request, trials.AskResponse(trials=[trial]))
        self.stored[number] = trial
        return trial

    def renew(self, worker: str, trial: trials.Trial, *, at: float) -> None:
        renewal = trials.LeaseRenewal(number=trial.number, lease_token=trial.lease.token)
        renewed = trials.RenewedLease(number=trial.number, lease=trials.Lease(expire_time=stamp(at + LEASE)))
        request = trials.RenewLeasesRequest(parent=STUDY, renewals=[renewal])
        self.add(worker, "RenewLeases", request, trials.RenewLeasesResponse(leases=[renewed]))

    def tell(self, worker: str, trial: trials.Trial, value: float) -> None:
        """A worker's tell is acknowledged."""
        told = Trial()
        told.CopyFrom(self.stored[trial.number])
        told.ClearField("lease")
        told.state = Trial.STATE_SUCCEEDED
        told.metrics["loss"].CopyFrom(metric.MetricValue(value=value))
        request = tell_request(trial, value, request_id=f"tell-{worker}-{trial.lease.token}")
        self.add(worker, "Tell", request, trials.TellResponse(trials=[told]))
        self.stored[trial.number] = told

    def fail(self, worker: str, trial: trials.Trial) -> None:
        """A worker's failure is acknowledged; another shall try."""
        result = trials.TrialResult(number=trial.number, lease_token=trial.lease.token, failed={"retry": True})
        queued = Trial(name=trial.name, number=trial.number, state=Trial.STATE_QUEUED, attempt=trial.attempt)
        self.add(worker, "Tell", trials.TellRequest(results=[result]), trials.TellResponse(trials=[queued]))

    def add(self, worker: str, method: str, request: object, reply: object = None, **fields: object) -> None:
        start = float(next(self._clock))
        event = Event(worker=worker, method=method, request=request, start=start, allowed=5, end=start + 0.5)
        self.events.append(replace(event, reply=reply, **fields))

    def broken(self) -> set[str]:
        """The rules that this story breaks."""
        happened = Happened(history=self.events, stored=list(self.stored.values()), refuses_late=self.refuses_late)
        return set(violations(happened))


def good_story() -> Story:
    """Two workers; a trial that expired after a renewal and was handed on; one that failed and was; a repeated call; an outage."""
    story = Story(refuses_late=True)
    one = story.ask("a", 1)
    story.tell("a", one, 1)
    story.events.append(replace(story.events[-1], start=20, end=20.5))
    lost = story.ask("a", 2, at=5)
    story.renew("a", lost, at=8)
    taken = story.ask("b", 2, attempt=2, at=18)
    story.add("a", "Tell", tell_request(lost, 3), code="FAILED_PRECONDITION", reason="LEASE_LOST")
    story.tell("b", taken, 2)
    failed = story.ask("b", 3, at=20)
    story.fail("b", failed)
    again = story.ask("b", 3, attempt=2, at=21)
    story.add("b", "Tell", tell_request(again, 3), code="UNAVAILABLE")
    story.tell("b", again, 3)
    lost_ask(story)
    return story


def lost_ask(story: Story) -> None:
    """An ask whose reply came at the second attempt, when the trial was another's."""
    story.add("a", "Ask", trials.AskRequest(parent=STUDY, request_id="ask-a-4-1"), code="UNAVAILABLE")
    story.ask("a", 4, at=30)
    story.tell("b", story.ask("b", 4, attempt=2, at=45), 4)
    claimed, taken, told = story.events[-3:]
    story.events[-3:] = [
        replace(taken, start=claimed.start, end=claimed.end),
        replace(claimed, start=taken.start, end=taken.end),
        told,
    ]


def test_a_good_story_breaks_no_rule() -> None:
    assert good_story().broken() == set()


def hang(story: Story) -> None:
    story.add("c", "Ask", trials.AskRequest(request_id="hangs"), end=None)


def be_late(story: Story) -> None:
    story.add("c", "Ask", trials.AskRequest(request_id="late"), code="UNAVAILABLE", end=1000 + SLACK)


def break_down(story: Story) -> None:
    story.add("c", "Ask", trials.AskRequest(request_id="broken"), code="INTERNAL")


def refuse_a_renewal(story: Story) -> None:
    story.add("c", "RenewLeases", trials.RenewLeasesRequest(), code="FAILED_PRECONDITION", reason="LEASE_LOST")


def answer_otherwise(story: Story) -> None:
    for number in (4, 5):
        reply = trials.AddTrialsResponse(trials=[Trial(number=number)])
        story.add("c", "AddTrials", trials.AddTrialsRequest(request_id="add"), reply)


def lose_a_tell(story: Story) -> None:
    story.tell("c", story.ask("c", 5), 1)
    story.stored[5] = next(event.reply.trials[0] for event in story.events if event.request_id == "ask-c-5-1")


def overwrite_a_tell(story: Story) -> None:
    story.stored[1].metrics["loss"].value = 7


def lose_a_trial(story: Story) -> None:
    del story.stored[3]


def hand_out_twice(story: Story) -> None:
    story.ask("c", 5, at=30)
    story.tell("d", story.ask("d", 5, at=30), 1)


def hand_on_too_early(story: Story) -> None:
    story.renew("c", story.ask("c", 5, at=30), at=35)
    story.tell("d", story.ask("d", 5, attempt=2, at=44), 1)


def count_backwards(story: Story) -> None:
    story.ask("c", 5, attempt=2, at=30)
    story.tell("d", story.ask("d", 5, attempt=1, at=50), 1)


def see_attempts_go_back(story: Story) -> None:
    story.tell("d", story.ask("d", 5, attempt=2, at=50), 1)
    later, ended = story.events[-2].reply.trials[0], story.stored[5]
    earlier = story.ask("c", 5, attempt=1, at=30)
    # The database had them in their order: only the clients saw it the other way round.
    earlier.sequence, later.sequence = later.sequence, earlier.sequence
    story.stored[5] = ended


def take_a_stale_tell(story: Story) -> None:
    stale = story.ask("c", 5, at=30)
    story.ask("d", 5, attempt=2, at=50)
    story.tell("c", stale, 1)


def change_an_ended_trial(story: Story) -> None:
    story.stored[1].message = "something else"


def leave_a_trial(story: Story) -> None:
    story.ask("c", 5)


def repeat_a_configuration(story: Story) -> None:
    story.tell("c", story.ask("c", 5, x=0.01), 1)


def skip_a_number(story: Story) -> None:
    story.tell("c", story.ask("c", 6), 1)


BREAKS: dict[Callable[[Story], None], set[str]] = {
    hang: {"stuck"},
    be_late: {"stuck"},
    break_down: {"unforeseen_errors"},
    refuse_a_renewal: {"unforeseen_errors"},
    answer_otherwise: {"unequal_replies"},
    lose_a_tell: {"lost_tells", "changed_ends", "unended_trials"},
    overwrite_a_tell: {"lost_tells", "changed_ends"},
    lose_a_trial: {"lost_tells", "changed_ends", "duplicates"},
    hand_out_twice: {"claimed_twice", "regressing_attempts", "overlapping_claims"},
    hand_on_too_early: {"overlapping_claims"},
    see_attempts_go_back: {"regressing_attempts"},
    count_backwards: {"regressing_attempts", "overlapping_claims"},
    take_a_stale_tell: {"stale_tells"},
    change_an_ended_trial: {"changed_ends"},
    leave_a_trial: {"unended_trials"},
    repeat_a_configuration: {"duplicates"},
    skip_a_number: {"duplicates"},
}


@pytest.mark.parametrize("breach", BREAKS, ids=lambda breach: breach.__name__)
def test_a_breach_is_seen(breach: Callable[[Story], None]) -> None:
    story = good_story()
    breach(story)
    assert story.broken() == BREAKS[breach]


def test_each_rule_is_broken_by_some_story() -> None:
    assert set().union(*BREAKS.values()) == {rule.__name__ for rule in RULES}


def test_a_recorded_history_reads_as_it_happened_also_what_never_ended(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "one.jsonl")
    story = good_story()
    ask, tell = story.events[0], story.events[1]
    first = recorder.begin("a", "Ask", ask.request, allowed=5)
    second = recorder.begin("b", "Tell", tell.request, allowed=6)
    recorder.end(first, reply=ask.reply)
    third = recorder.begin("c", "Ask", ask.request, allowed=7)
    recorder.end(third, code="UNAVAILABLE", reason="DATABASE_UNAVAILABLE")
    events = read([tmp_path / "one.jsonl"])
    assert [(event.worker, event.method, event.allowed) for event in events] == [
        ("a", "Ask", 5),
        ("b", "Tell", 6),
        ("c", "Ask", 7),
    ]
    assert (events[0].request, events[0].reply) == (ask.request, ask.reply)
    assert events[1].end is None
    assert second == 1
    assert (events[2].code, events[2].reason, events[2].reply) == ("UNAVAILABLE", "DATABASE_UNAVAILABLE", None)
    assert events[0].start <= events[1].start <= events[2].start <= events[2].end
