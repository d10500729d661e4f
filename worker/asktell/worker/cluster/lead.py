"""Follow a fleet from its start to its end, and show how far the study is."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from asktell.client import AskTellError, Study, TrialState
from asktell.worker.cluster.fleet import Engine, Fleet, Standing
from asktell.worker.cluster.on_slurm import script
from asktell.worker.cluster.options import Cluster
from asktell.worker.interruption import Interruption

LOOK_SECONDS = 1.0
"""How often the engine and the service are asked."""
MARGIN = 30.0
"""Seconds beyond the grace that the workers have to be gone in, before they are ended hard."""

logger = logging.getLogger("asktell.worker")


def lead(fleet: Fleet, cluster: Cluster, *, study: Study) -> int:
    """Start a fleet, follow it to its end, and return the exit status; with `dry_run` print what would be submitted.

    Raises:
        Misplaced: The cluster cannot be used so.
    """
    if cluster.dry_run:
        print(script(fleet, options=cluster.slurm_options), end="")
        return 0
    engine = cluster.engine()
    try:
        engine.start(fleet)
        # After the start: Ray sets handlers of its own.
        interruption = Interruption()
        with interruption.on_signals():
            return Lead(fleet, engine, study, interruption).run()
    finally:
        engine.close()


@dataclass(slots=True)
class View:
    """What a person sees: a bar on a terminal, else a line for whatever changes."""

    progress: Progress
    task: TaskID
    said: str = ""

    @classmethod
    @contextmanager
    def of(cls, study: Study) -> Iterator[View]:
        """A view until the end of the block."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        console = Console(stderr=True)
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            yield cls(progress, progress.add_task(study.id, total=study.budget.max_trials))

    def show(self, study: Study, standing: Standing) -> None:
        """Show how it stands."""
        ended, budget = finished(study), study.budget.max_trials
        self.progress.update(self.task, completed=ended, description=f"{study.id}: workers: {standing}")
        line = f"workers: {standing}; {ended}{f' of {budget}' if budget else ''} trials have ended"
        if self.progress.disable and line != self.said:
            logger.info("%s", line)
        self.said = line


def finished(study: Study) -> int:
    """How many trials have ended."""
    return sum(getattr(study.counts, state.value) for state in TrialState if state.terminal)


@dataclass(slots=True)
class Lead:
    """Follows a fleet on an engine."""

    fleet: Fleet
    engine: Engine
    study: Study
    interruption: Interruption
    _told_at: float | None = None
    _away: bool = field(default=False)

    def run(self) -> int:
        """Return the exit status: 0, 1 if workers failed, 130 after Ctrl-C."""
        with View.of(self.study) as view:
            while not (standing := self._look()).over:
                self._refresh()
                view.show(self.study, standing)
                self._steer(standing)
                self._pause()
            self._refresh()
            view.show(self.study, standing)
        return self._leave(standing)

    def _look(self) -> Standing:
        """How the workers stand. That all have ended is asked twice: one that is about to queue again may look so for a moment."""
        standing = self.engine.standing()
        if not standing.over:
            return standing
        self._pause()
        return self.engine.standing()

    def _steer(self, standing: Standing) -> None:
        """End the fleet when a person wishes it, or when workers still wait for room and the others have seen the study's end."""
        seen = self.fleet.whole and standing.done and not standing.running
        if self.interruption.wished or (seen and not self.study.counts.queued + self.study.counts.active):
            self._end()

    def _end(self) -> None:
        now = time.monotonic()
        late = self._told_at is not None and now > self._told_at + self.fleet.grace + MARGIN
        if self._told_at is None or late:
            self._told_at = now
            self.engine.end()

    def _pause(self) -> None:
        if self.interruption.wait(LOOK_SECONDS):
            time.sleep(LOOK_SECONDS / 10)

    def _refresh(self) -> None:
        try:
            self.study.refresh()
            self._away = False
        except AskTellError as error:
            if not self._away:
                logger.warning("the service does not answer here; the workers have patience of their own: %s", error)
            self._away = True

    def _leave(self, standing: Standing) -> int:
        for failure in dict.fromkeys(standing.failures):
            print(f"asktell work: a worker failed: {failure}", file=sys.stderr)
        logger.info("done: workers %s; %d trials ended", standing, finished(self.study))
        if self.interruption.wished:
            return 130 if self.interruption.by_keyboard else 0
        return 1 if standing.failures else 0
