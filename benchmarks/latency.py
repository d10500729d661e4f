"""Measures what asks take: `make bench-latency`, or `python -m benchmarks.latency --help`."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import cyclopts
import psutil
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from asktell.client import AskTellError
from benchmarks import timings
from benchmarks.progress import Progress
from benchmarks.races import RACES, raced, runs_of
from benchmarks.running import Places
from benchmarks.seeds import parsed as parse_seeds
from benchmarks.server import ROOT, Broken, end_in_order, engine_version
from benchmarks.timings import Row

HERE = ROOT / "benchmarks"
SECTIONS: Mapping[str, Callable[[timings.Say], Iterator[Row]]] = {
    "sizes": timings.sizes,
    "devices": timings.devices,
    "cold-start": timings.cold_start,
    "overhead": timings.overhead,
    "memory-growth": timings.memory_growth,
}

app = cyclopts.App(
    name="python -m benchmarks.latency",
    help_format="plaintext",
    help_epilogue="For example: python -m benchmarks.latency --only cold-start,overhead",
    version_flags=[],
)


@app.default
def main(
    *,
    only: str = ",".join([*RACES, *SECTIONS]),
    seeds: str = "0-2",
    output: Annotated[Path, Parameter(show_default=False)] = HERE / "out" / "latency.json",
    environments: Path = Path(".peers"),
) -> int:
    """Time asks through gRPC on SQLite with one engine process, and print a table.

    Seconds say as much about the machine, and what else runs on it, as about asktell; processor seconds and ratios say more.

    Parameters
    ----------
    only
        What to measure, of race and two-objectives (beside Optuna and Ax where they are installed), sizes, devices (of gp-botorch),
        cold-start, overhead and memory-growth.
    seeds
        Runs of the races.
    output
        Where the figures go, as JSON; benchmarks/out/latency.json if not given.
    environments
        Directory of the peers' environments.
    """
    console = Console(width=None if sys.stdout.isatty() else 140)
    say = _sayer(console)
    rows: list[Row] = []
    try:
        for name in _sections(only):
            found = SECTIONS[name](say) if name in SECTIONS else _race(name, console, say, seeds, environments)
            for row in found:
                rows.append(row)
                _write(rows, output)
    except (AskTellError, Broken, ValueError) as error:
        Console(stderr=True).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted.")
        return 130
    finally:
        console.print(_table(rows))
    console.print(f"The figures are in {output}.", soft_wrap=True, highlight=False)
    return 0


def _sections(only: str) -> list[str]:
    known = [*RACES, *SECTIONS]
    unknown = [name for name in only.split(",") if name not in known]
    if unknown:
        raise ValueError(f"there is no measurement {unknown[0]!r}; there are {', '.join(known)}")
    return only.split(",")


def _race(name: str, console: Console, say: timings.Say, seeds: str, environments: Path) -> Iterator[Row]:
    race, numbers = RACES[name], parse_seeds(seeds)
    places = Places(HERE / "results", HERE / "out", ROOT / environments)
    with Progress(console, runs=runs_of(race, places, seeds=numbers)) as progress:
        yield from raced(race, say, places, progress, seeds=numbers)


def _table(rows: list[Row]) -> Table:
    table = Table(title="What asks take: medians; gRPC, SQLite, one engine process")
    for header in ("what", "figures", "the bar"):
        table.add_column(header)
    for row in rows:
        figures = (
            f"{name}: {value:,}" if isinstance(value, int | float) else value for name, value in row.figures.items()
        )
        table.add_row(row.what, "\n".join(figures), row.bar, end_section=True)
    return table


def _write(rows: list[Row], output: Path) -> None:
    """Write after each measurement, so that an interrupted run leaves what it measured."""
    report = {
        "machine": f"{platform.machine()}, {psutil.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        "engine": engine_version(),
        "rows": [asdict(row) for row in rows],
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _sayer(console: Console) -> timings.Say:
    return lambda text: console.print(text, style="dim", soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    end_in_order()
    sys.exit(app())
