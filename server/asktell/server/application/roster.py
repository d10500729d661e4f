"""The trials of one study in memory, kept so that an ask need not walk over all of them."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from asktell.server.domain.policy import Observation
from asktell.server.domain.study import TrialCounts
from asktell.server.domain.trial import Trial, TrialState

RECENT = 128
"""How many changes are remembered as such."""


def observed(trial: Trial) -> Observation:
    """A trial that ended, as the model learns from it."""
    return Observation(trial.number, trial.state, trial.parameters, trial.metrics, trial.parent, trial.member)


@dataclass(slots=True)
class Roster:
    """All trials of a study as of `sequence`, by number, and what asks want to know of them. Used from one thread."""

    trials: dict[int, Trial] = field(default_factory=dict)
    sequence: int = 0
    _counts: Counter[TrialState] = field(default_factory=Counter)
    _queued: list[int] = field(default_factory=list)
    _pending: list[int] = field(default_factory=list)
    _observed: list[int] = field(default_factory=list)
    _observations: list[Observation] = field(default_factory=list)
    _recent: deque[Trial] = field(default_factory=deque)
    _forgotten: int = 0

    def learn(self, trials: Iterable[Trial], sequence: int) -> None:
        """Take in changed trials, in the order of their changes. Reads may end in another order than they began, so an older row never
        replaces a newer one.
        """
        for trial in trials:
            present = self.trials.get(trial.number)
            if present is None or present.sequence < trial.sequence:
                self._replace(present, trial)
        self.sequence = max(self.sequence, sequence)

    @property
    def counts(self) -> TrialCounts:
        """How many trials stand where."""
        return TrialCounts(**{state.value: count for state, count in self._counts.items()})

    @property
    def queued(self) -> Iterator[Trial]:
        """The trials that wait for a worker, by number."""
        return (self.trials[number] for number in self._queued)

    @property
    def unfinished(self) -> Iterator[Trial]:
        """The queued and active trials, by number."""
        return (self.trials[number] for number in self._pending)

    @property
    def observations(self) -> tuple[Observation, ...]:
        """What the model may learn from, in the order of numbers, which does not depend on the order of tells."""
        return tuple(self._observations)

    def checkpoints(self, numbers: Iterable[int]) -> dict[int, str]:
        """Where the trials of these numbers, 0 excepted, left their state. One that ended never changes that."""
        return {number: self.trials[number].checkpoint_uri for number in numbers if number}

    def lacks(self, stored: Trial) -> bool:
        """Whether the roster, which has all changes up to its sequence number, lacks one of them: a trial that was stored as this."""
        present = self.trials.get(stored.number)
        known = 0 if present is None else present.sequence
        return known < stored.sequence <= self.sequence

    def changes_after(self, sequence: int) -> list[Trial] | None:
        """The trials that changed after a sequence number, as they stood then; None if that is too long ago to know."""
        return None if sequence < self._forgotten else [trial for trial in self._recent if trial.sequence > sequence]

    def _replace(self, old: Trial | None, new: Trial) -> None:
        if old is not None:
            self._strike(old)
        self.trials[new.number] = new
        self._counts[new.state] += 1
        self._note(new)
        if new.state is TrialState.QUEUED:
            insort(self._queued, new.number)
        if not new.state.terminal:
            insort(self._pending, new.number)
        elif new.state is not TrialState.CANCELLED:
            place = bisect_left(self._observed, new.number)
            self._observed.insert(place, new.number)
            self._observations.insert(place, observed(new))

    def _note(self, changed: Trial) -> None:
        self._recent.append(changed)
        if len(self._recent) > RECENT:
            self._forgotten = max(self._forgotten, self._recent.popleft().sequence)

    def _strike(self, old: Trial) -> None:
        self._counts[old.state] -= 1
        if old.state is TrialState.QUEUED:
            del self._queued[bisect_left(self._queued, old.number)]
        if not old.state.terminal:
            del self._pending[bisect_left(self._pending, old.number)]
        elif old.state is not TrialState.CANCELLED:
            place = bisect_left(self._observed, old.number)
            del self._observed[place], self._observations[place]
