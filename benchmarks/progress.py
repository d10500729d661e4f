"""How far long work has come: bars in a terminal, a line for each piece of work elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich import progress
from rich.console import Console


class Progress:
    """Shows runs, and the trials of the run under way."""

    def __init__(self, console: Console, *, runs: int) -> None:
        self._console, self._runs, self._done = console, runs, 0
        self._began = time.monotonic()
        self._what, self._trials = "", 0
        self._bars = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=None),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            expand=True,
        )
        self._total = self._bars.add_task("runs", total=runs)
        self._current = self._bars.add_task("", total=1)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def begin(self, what: str, *, runs: int, trials: int) -> None:
        """Say what comes next."""
        self._what, self._trials = what, trials
        self._bars.reset(self._current, description=what, total=trials)
        if not self._console.is_terminal:
            self._say(f"{what}: {runs} runs of {trials} trials")

    def advance(self, seed: int, done: int, *, last: bool) -> None:
        """So many trials of the run with this seed are done."""
        self._bars.update(self._current, completed=done, description=f"{self._what}, seed {seed}")
        if last:
            self._done += 1
            self._bars.update(self._total, completed=self._done)
            if not self._console.is_terminal:
                elapsed = time.monotonic() - self._began
                self._say(f"  {self._done}/{self._runs} seed {seed} is done, {elapsed:.0f} s since the start")

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)
