"""What the demo shows while it runs and at the end: live in a terminal, one line a trial elsewhere."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from examples.digits.history import History, Result
from examples.digits.processes import Process

ROWS = 8
KEY_PARAMETERS = (
    "learning_rate",
    "optimizer",
    "batch_size",
    "layers",
    "width",
    "activation",
    "dropout",
    "weight_decay",
)


class Screen(Protocol):
    """Where the demo shows how it goes."""

    def show(self, history: History, workers: Sequence[Process]) -> None:
        """Show how things stand. To be called as often as there may be news."""

    def note(self, text: str) -> None:
        """Say something that stays."""


@contextmanager
def screen(console: Console, *, trials: int) -> Iterator[Screen]:
    """A live view in a terminal, plain lines elsewhere."""
    if not console.is_terminal:
        yield PlainScreen(console, trials)
        return
    bar = Progress(
        TextColumn("trials"), BarColumn(bar_width=None), MofNCompleteColumn(), TimeElapsedColumn(), expand=True
    )
    bar.add_task("trials", total=trials)
    with Live(bar, console=console, refresh_per_second=4) as live:
        shown = LiveScreen(live, bar)
        try:
            yield shown
        finally:
            shown.end()


@dataclass(slots=True)
class PlainScreen:
    """One line for each trial that ended: for logs and pipes."""

    console: Console
    trials: int
    shown: int = 0

    def show(self, history: History, workers: Sequence[Process]) -> None:  # noqa: ARG002
        """Print the trials that ended since the last call."""
        for result in history.results[self.shown :]:
            self.shown += 1
            best = History(history.results[: self.shown]).bests()[-1]
            line = f"{self.shown:3}/{self.trials}  {_line(result)}  best {_percent(best)}"
            self.console.print(line, soft_wrap=True, highlight=False, markup=False)

    def note(self, text: str) -> None:
        """Print the text."""
        say(self.console, text)


@dataclass(slots=True)
class LiveScreen:
    """Progress, the best so far, the latest trials and the workers, redrawn in place."""

    live: Live
    bar: Progress
    results: Sequence[RenderableType] = ()

    def show(self, history: History, workers: Sequence[Process]) -> None:
        """Redraw."""
        self.bar.update(self.bar.task_ids[0], completed=len(history.results))
        self.results = [self.bar, _latest(history, self.live.console), _best_line(history)]
        self.live.update(Group(*self.results, *_workers_lines(workers)))

    def note(self, text: str) -> None:
        """Print the text above the live part."""
        say(self.live.console, text)

    def end(self) -> None:
        """Leave the results standing without the workers, which end now: there is nothing to kill any more."""
        self.live.update(Group(*(self.results or [self.bar])))


def say(console: Console, text: str, *, style: str = "") -> None:
    """Print text: a terminal's lines end between words, a file has the text as it is."""
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=not console.is_terminal)


def _latest(history: History, console: Console) -> Table:
    """The latest trials, with as many parameters as the terminal is wide enough for."""
    unlimited = console.options.update(width=sys.maxsize)
    fitting = (_trials(history, KEY_PARAMETERS[:count]) for count in range(len(KEY_PARAMETERS), 0, -1))
    for table in fitting:
        if console.measure(table, options=unlimited).maximum <= console.width:
            return table
    return _trials(history, ())


def _trials(history: History, parameters: Sequence[str]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("trial", "accuracy"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("worker", *parameters):
        table.add_column(name.replace("_", " "), no_wrap=True)
    for result in history.results[-ROWS:]:
        style = "bold green" if result == history.best else ""
        values = [_value(result.parameters.get(name)) for name in parameters]
        table.add_row(str(result.number), _percent(result.accuracy), _worker(result), *values, style=style)
    return table


def _best_line(history: History) -> str:
    best = history.best
    if best is None:
        return "best so far: -"
    return f"best so far: [bold green]{_percent(best.accuracy)}[/] in trial {best.number}"


def _workers_lines(workers: Sequence[Process]) -> list[str]:
    described = ", ".join(
        f"{worker.name} (pid {worker.pid})" if worker.is_alive else f"{worker.name} (gone)" for worker in workers
    )
    living = next((worker for worker in workers if worker.is_alive), None)
    hint = [f"[dim]try: kill -9 {living.pid}[/]"] if living else []
    return [f"workers: {described}", *hint]


def _line(result: Result) -> str:
    parameters = " ".join(f"{name}={_value(result.parameters.get(name))}" for name in KEY_PARAMETERS[:6])
    return f"trial {result.number:<3} {_percent(result.accuracy):>7}  {_worker(result)}  {parameters}"


def _worker(result: Result) -> str:
    """Who evaluated it, and which attempt it was if another worker had it before."""
    return f"{result.worker} (attempt {result.attempt})" if result.attempt > 1 else result.worker


def parameters_table(parameters: Mapping[str, Any], *, title: str) -> Table:
    """A table of parameters and their values."""
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("parameter")
    table.add_column("value", justify="right")
    for name, value in parameters.items():
        table.add_row(name, _value(value))
    return table


def _percent(accuracy: float | None) -> str:
    return "-" if accuracy is None else f"{accuracy:.2%}"


def _value(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
