"""Measures what the service takes and bears: `make bench-service`, or `python -m benchmarks.service --help`."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

import cyclopts
import grpc
import psutil
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from benchmarks.server import ROOT, Broken, end_in_order
from benchmarks.serving import crowd, histories, neighbours, prepared, renewals, throughput
from benchmarks.serving.databases import Databases
from benchmarks.serving.http2 import Stuck
from benchmarks.serving.line import Line, Say

HERE = ROOT / "benchmarks"
FILE = "service.md"


class Section(Protocol):
    """One measurement."""

    def __call__(self, say: Say, databases: Databases, environments: Path) -> Iterator[Line]:
        """Its lines, as they are found."""


SECTIONS: Mapping[str, Section] = {
    "tells": throughput.measure,
    "histories": histories.measure,
    "neighbours": neighbours.measure,
    "prepared": prepared.measure,
    "renewals": renewals.measure,
    "crowd": crowd.measure,
}

app = cyclopts.App(
    name="python -m benchmarks.service",
    help_format="plaintext",
    help_epilogue="For example: python -m benchmarks.service --only tells,crowd",
    version_flags=[],
)


@dataclass(slots=True)
class Report:
    """What was found, written down after each line, so that an interrupted run leaves what it measured."""

    path: Path
    preamble: str
    lines: list[Line]

    def add(self, line: Line) -> None:
        """Take a line in."""
        self.lines.append(line)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(self.preamble + "\n".join(_markdown(self.lines)) + "\n", encoding="utf-8")


@app.default
def main(
    *,
    only: str = ",".join(SECTIONS),
    record: Annotated[bool, Parameter(negative="")] = False,
    environments: Path = Path(".peers"),
) -> int:
    """Measure one server on SQLite and on PostgreSQL, both durable, beside what the databases reach without it; print a table.

    What else runs on the machine is measured along: ratios of what was measured in the same minute say more than times.

    Parameters
    ----------
    only
        What to measure, of tells, histories, neighbours, prepared, renewals and crowd.
    record
        Write the table to benchmarks/results/service.md, which is committed, instead of benchmarks/out/service.md.
    environments
        Directory of the peers' environments.
    """
    console = Console(width=None if sys.stdout.isatty() else 140)
    try:
        with Databases.opened() as databases:
            report = Report(HERE / ("results" if record else "out") / FILE, _preamble(databases), [])
            try:
                for name in _sections(only):
                    for line in SECTIONS[name](_sayer(console), databases, ROOT / environments):
                        report.add(line)
            finally:
                console.print(_table(report.lines))
    except (Broken, Stuck, grpc.RpcError, ValueError) as error:
        Console(stderr=True).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted.")
        return 130
    console.print(f"The table is in {report.path}.", soft_wrap=True, highlight=False)
    return 0


def _sections(only: str) -> list[str]:
    unknown = [name for name in only.split(",") if name not in SECTIONS]
    if unknown:
        raise ValueError(f"there is no measurement {unknown[0]!r}; there are {', '.join(SECTIONS)}")
    return only.split(",")


def _table(lines: Sequence[Line]) -> Table:
    table = Table(title="What the service takes and bears")
    for header in ("what", "figure", "bar", "", "made of"):
        table.add_column(header)
    for line in lines:
        details = "\n".join(f"{name}: {value}" for name, value in line.details.items())
        table.add_row(line.what, line.figure, line.bar, line.verdict, details, end_section=True)
    return table


def _markdown(lines: Sequence[Line]) -> Iterator[str]:
    yield "| what | figure | bar | | made of |"
    yield "|---|---|---|---|---|"
    for line in lines:
        details = "; ".join(f"{name} {value}" for name, value in line.details.items())
        yield f"| {line.what} | {line.figure} | {line.bar} | {line.verdict} | {details} |"


def _preamble(databases: Databases) -> str:
    sync = 1e3 * databases.sync_seconds()
    return (
        "# What the service takes and bears\n\n"
        f"By `make bench-service` on {platform.machine()} with {psutil.cpu_count()} cores, {platform.system()}, Python"
        f" {platform.python_version()}; the disk makes a page durable in {sync:.2f} ms. Load of the machine before:"
        f" {os.getloadavg()[0]:.1f}.\n\n"
    )


def _sayer(console: Console) -> Say:
    return lambda text: console.print(text, style="dim", soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    end_in_order()
    sys.exit(app())
