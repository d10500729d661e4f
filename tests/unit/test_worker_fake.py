"""A study in memory that hands out trials and takes what is told of them, and stops, loses or refuses them on demand."""

from __future__ import annotations

import inspect
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from asktell.client import Answer, AskTellError, Reason, Study, Trial, TrialCounts, TrialState


@dataclass
class FakeTrial:
    number: int
    study: FakeStudy
    parameters: dict = field(default_factory=lambda: {"x": 0.5})
    attempt: int = 1
    checkpoint_uri: str = ""
    checkpoints: list = field(default_factory=list)
    last_checkpoint: str = ""
    silence: float = 0.0
    lease: None = None
    parent: int = 0
    create_time: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    state: TrialState = TrialState.ACTIVE
    should_stop: bool = False
    lost: bool = False
    message: str = ""
    reports: list = field(default_factory=list)
    said: tuple = ()
    kept: bool = False

    @property
    def name(self) -> str:
        return f"projects/default/studies/{self.study.id}/trials/{self.number}"

    def report(self, metrics, *, step):
        assert self.kept, "nobody keeps the lease"
        if self.study.deaf:
            raise self.study.deaf.pop(0)
        self.reports.append((step, dict(metrics)))
        if self.number in self.study.stops:
            self.should_stop, self.message = True, "no longer promising"
        if self.number in self.study.losses:
            self.should_stop, self.lost, self.message = True, True, "another has it"
        return SimpleNamespace(should_stop=self.should_stop, lost=self.lost, message=self.message)

    def checkpoint(self, uri):
        assert self.kept, "nobody keeps the lease"
        if self.study.deaf:
            raise self.study.deaf.pop(0)
        self.checkpoints.append(uri)
        return SimpleNamespace(should_stop=self.should_stop, lost=self.lost, message=self.message)

    def tell(self, metrics, *, checkpoint_uri=""):
        self.last_checkpoint = checkpoint_uri
        self._end("succeeded", dict(metrics), TrialState.SUCCEEDED)

    def fail(self, message, *, retry=False, checkpoint_uri=""):
        self.last_checkpoint = checkpoint_uri
        self._end("failed", (message, retry), TrialState.QUEUED if retry else TrialState.FAILED)

    def infeasible(self, message):
        self._end("infeasible", message, TrialState.INFEASIBLE)

    def stop(self, metrics=None, *, message="", checkpoint_uri=""):
        self.last_checkpoint = checkpoint_uri
        self._end("stopped", (dict(metrics or {}), message), TrialState.STOPPED)

    def release(self, *, checkpoint_uri=""):
        self.last_checkpoint = checkpoint_uri
        self._end("released", None, TrialState.QUEUED)

    def give_back(self):
        with suppress(AskTellError):
            self.release()

    def _end(self, what, content, state):
        if self.study.refusals:
            raise self.study.refusals.pop(0)
        assert not self.said, f"trial {self.number} was told twice: {self.said}, then {what}"
        self.said, self.state = (what, content), state

    @contextmanager
    def keep_alive(self) -> Iterator[FakeTrial]:
        self.kept = True
        try:
            yield self
        finally:
            self.kept = False


@dataclass
class FakeStudy:
    """`budget` trials, then closed. `refusals` meet the next tells, `deaf` the next reports, `away` the next asks; trials are
    as `first` says. So many as `elsewhere` says have succeeded at other workers. Several threads may ask at once.
    """

    budget: int = 1
    metrics: tuple[str, ...] = ("loss",)
    id: str = "fake"
    trials: list[FakeTrial] = field(default_factory=list)
    stops: set[int] = field(default_factory=set)
    losses: set[int] = field(default_factory=set)
    refusals: list[AskTellError] = field(default_factory=list)
    deaf: list[AskTellError] = field(default_factory=list)
    away: list[AskTellError | Reason] = field(default_factory=list)
    asked: list[dict] = field(default_factory=list)
    first: dict = field(default_factory=dict)
    parameters: dict = field(default_factory=lambda: {"x": 0.5})
    elsewhere: int = 0
    counts: TrialCounts = field(default_factory=TrialCounts)
    one_by_one: threading.Lock = field(default_factory=threading.Lock)

    def refresh(self) -> None:
        states = Counter(trial.state.value for trial in self.trials)
        self.counts = TrialCounts(**states | {"succeeded": states["succeeded"] + self.elsewhere})

    def ask_once(self, **how) -> Answer:
        with self.one_by_one:
            return self._answer(how)

    def _answer(self, how: dict) -> Answer:
        self.asked.append(how)
        if self.away:
            first = self.away.pop(0)
            if isinstance(first, Exception):
                raise first
            return Answer([], closed=False, reason=first, retry_after=timedelta(0))
        if len(self.trials) >= self.budget:
            return Answer([], closed=True, reason=Reason.BUDGET_SPENT, retry_after=None)
        self.trials.append(FakeTrial(len(self.trials) + 1, self, dict(self.parameters), **self.first))
        return Answer(self.trials[-1:], closed=False, reason=Reason.NONE, retry_after=None)

    def get_trial(self, number):
        trial = self.trials[number - 1]
        holder = "another" if number in self.losses else self.asked[-1]["worker_id"]
        return SimpleNamespace(attempt=trial.attempt, worker_id=holder, state=trial.state, message=trial.message)

    @property
    def said(self) -> list[tuple]:
        return [trial.said for trial in self.trials]


@pytest.mark.parametrize(("fake", "real"), [(FakeTrial, Trial), (FakeStudy, Study)])
def test_the_fakes_take_what_the_real_ones_take(fake: type, real: type) -> None:
    shared = [name for name, method in vars(fake).items() if inspect.isfunction(method) and not name.startswith("_")]
    assert shared
    for name in shared:
        wanted = inspect.signature(getattr(real, name)).parameters
        taken = [
            each
            for each in inspect.signature(getattr(fake, name)).parameters.values()
            if each.kind is not each.VAR_KEYWORD
        ]
        assert {each.name for each in taken} <= set(wanted), f"{real.__name__}.{name} has no such parameters"
