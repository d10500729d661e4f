"""Compares asktell with its peers: `make bench`, or `python -m benchmarks.bench --help`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter, validators
from rich.console import Console
from rich.table import Table

from benchmarks import curves, tables
from benchmarks.cliffs import SUFFIX
from benchmarks.peers import ASKTELL, PEERS
from benchmarks.problems import PROBLEMS
from benchmarks.progress import Progress
from benchmarks.running import Job, Places, missing, run
from benchmarks.score import RANDOM, Board, falls
from benchmarks.seeds import parsed as parse_seeds
from benchmarks.server import ROOT, Broken, Server, end_in_order, served
from benchmarks.suites import DEFAULT, SUITES, Suite

HERE = ROOT / "benchmarks"
CLEAN, CLIFFS = "sequential", "cliffs"

app = cyclopts.App(
    name="python -m benchmarks.bench",
    help_format="plaintext",
    help_epilogue="For example: python -m benchmarks.bench --suites sequential --problems branin,levy8 --seeds 0-1 --peers asktell",
    version_flags=[],
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is compared, and where it is shown."""

    console: Console
    places: Places
    suites: tuple[Suite, ...]
    peers: tuple[str, ...]
    seeds: tuple[int, ...]

    def run(self) -> list[str]:
        """Run what is missing, and say what failed; Broken if the server does not start."""
        jobs = [
            job
            for suite in self.suites
            for job in missing(suite, self.places, peers=self._of(suite), seeds=self.seeds, trials=suite.trials)
        ]
        self._note_absent()
        if not jobs:
            self.console.print("All runs are recorded.")
            return []
        with self._server(jobs) as server, Progress(self.console, runs=_count(jobs)) as progress:
            return run(jobs, self.places, server, progress)

    def show(self) -> None:
        """Print each suite's tables, write them to a page of its name, and draw its curves."""
        self.places.fresh.mkdir(parents=True, exist_ok=True)
        for suite in self.suites:
            shown = self._cliffs(suite) if suite.name == CLIFFS else self._suite(suite)
            for item in shown:
                self.console.print(item, soft_wrap=isinstance(item, str), highlight=False)
            _write(shown, self.places.fresh / f"{suite.name}.md")
        where = _short(self.places.fresh)
        self.console.print(
            f"The tables are in {where}, a page a suite, the runs and pictures beside them.", soft_wrap=True
        )

    def _of(self, suite: Suite) -> list[str]:
        """Those of the peers that the suite is for."""
        return [peer for peer in self.peers if peer in suite.peers]

    def _suite(self, suite: Suite) -> list[Table | str]:
        board = self._board(suite, self.seeds)
        notes = [f"{peer} is left out: {count} of its runs are missing." for peer, count in board.missing.items()]
        if RANDOM not in board.peers:
            return [*notes, "Nothing can be scored without random search's runs."]
        curves.draw(board, suite, trials=suite.trials, path=self.places.fresh / f"{suite.name}.png")
        recorded = self._recorded(suite, board)
        if recorded:
            notes.append(
                "* recorded on another day: what an ask took is not to be compared; `make bench-latency` does."
            )
        problems = tables.problems_table(board, suite, suite.trials)
        peers = tables.peers_table(board, suite, suite.trials, recorded=recorded)
        return [problems, peers, *notes, *tables.verdicts(board, suite, suite.trials), *self._fewer_seeds(suite, board)]

    def _fewer_seeds(self, suite: Suite, board: Board) -> Iterator[Table | str]:
        """The peers once more, with seeds that those that were left out have."""
        for seeds in dict.fromkeys(map(board.seeds_of, board.missing)):
            if seeds:
                fewer = self._board(suite, seeds)
                yield tables.peers_table(fewer, suite, suite.trials, recorded=self._recorded(suite, fewer))

    def _board(self, suite: Suite, seeds: tuple[int, ...]) -> Board:
        return Board.of(self.places.runs(suite), problems=suite.problems, seeds=seeds, trials=suite.trials)

    def _cliffs(self, suite: Suite) -> list[Table | str]:
        clean, cliffs = self.places.runs(SUITES[CLEAN]), self.places.runs(suite)
        wanted = [run for run in cliffs if run.problem in suite.problems]
        found = falls(clean, wanted, seeds=self.seeds, trials=suite.trials)
        return [tables.falls_table(found), *tables.cliff_verdicts(found)] if found else ["No cliff was run yet."]

    def _recorded(self, suite: Suite, board: Board) -> set[str]:
        if self.places.fresh == self.places.recorded:
            return {peer for peer in board.peers if not all(run.cpu for run in board.of_peer(peer))}
        return set(board.peers) - {path.stem for path in (self.places.fresh / suite.name).glob("*.jsonl")}

    def _note_absent(self) -> None:
        wanted = {peer for suite in self.suites for peer in self._of(suite)}
        absent = [peer for peer in PEERS if peer in wanted and self.places.python(peer) is None]
        if absent:
            self.console.print(f"Not installed (make bench-peers): {', '.join(absent)}; recorded runs stand in.")

    def _server(self, jobs: Sequence[Job]) -> AbstractContextManager[Server | None]:
        return _temporary_server() if any(job.peer == ASKTELL for job in jobs) else nullcontext()


@app.default
def main(  # noqa: PLR0913 - one keyword for each option.
    *,
    suites: str = ",".join(DEFAULT),
    peers: str = ",".join(PEERS),
    problems: str = "",
    seeds: Annotated[str, Parameter(name="--seeds")] = "0-4",
    trials: Annotated[int | None, Parameter(validator=validators.Number(gte=2))] = None,
    record: Annotated[bool, Parameter(negative="")] = False,
    full: Annotated[bool, Parameter(negative="")] = False,
    score_only: Annotated[bool, Parameter(negative="")] = False,
    output: Annotated[Path, Parameter(show_default=False)] = HERE / "out",
    environments: Path = Path(".peers"),
) -> int:
    """Run asktell and its peers, print tables, draw curves. What was run is not run again; all peers' recorded runs are scored.

    Parameters
    ----------
    suites
        What to run, of sequential (one worker), parallel (eight workers), cliffs, outside (problems outside the public set), mixint, biobj,
        constrained (COCO's, with integers, two objectives, constraints), and conditional (conditional parameters).
    peers
        Who is run, where the library is installed; `make bench-peers` installs them.
    problems
        Names of problems; all of the suites' if not given. The suite of cliffs takes those of them that have one.
    seeds
        Such as 0-4 or 0,2,5.
    trials
        Asks in each run; as many as the suite says if not given. Shorter runs are scored on what is recorded of longer ones.
    record
        Write to benchmarks/results, which is committed, instead of the output.
    full
        Take all of COCO's functions of a suite: hours.
    score_only
        Run nothing.
    output
        Directory of new runs, tables and pictures; benchmarks/out if not given.
    environments
        Directory of the peers' environments.
    """
    console = Console(width=None if sys.stdout.isatty() else 140)
    recorded = HERE / "results"
    try:
        comparison = Comparison(
            console,
            Places(recorded, recorded if record else output.absolute(), ROOT / environments),
            tuple(_narrowed(suites, problems, trials, full=full)),
            _names(peers, PEERS, what="peer"),
            parse_seeds(seeds),
        )
        failures = [] if score_only else comparison.run()
        comparison.show()
    except (Broken, ValueError) as error:
        _complain(str(error))
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted; the same command goes on with the run that was under way.")
        return 130
    _complain(*failures)
    return 1 if failures else 0


def _complain(*texts: str) -> None:
    for text in texts:
        Console(stderr=True).print(text, style="red", markup=False, highlight=False, soft_wrap=True)


def _narrowed(suites: str, problems: str, trials: int | None, *, full: bool) -> Iterator[Suite]:
    """The suites with the chosen problems alone: those named, or all of the suite's choice, or with `full` all that it has."""
    names = set(_names(problems, PROBLEMS, what="problem")) if problems else set(PROBLEMS)
    for name in _names(suites, SUITES, what="suite"):
        suite = SUITES[name]
        offered = ((full or problems) and suite.everything) or suite.problems
        chosen = tuple(problem for problem in offered if {problem, problem.removesuffix(SUFFIX)} & names)
        if chosen:
            yield replace(suite, problems=chosen, trials=trials or suite.trials)


def _names(text: str, known: Collection[str], *, what: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"there is no {what} {unknown[0]!r}; there are {', '.join(known)}")
    return names


@contextmanager
def _temporary_server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="asktell-bench-") as directory, served(Path(directory)) as server:
        yield server


def _count(jobs: Sequence[Job]) -> int:
    return sum(len(job.seeds) for job in jobs)


def _write(items: Sequence[Table | str], path: Path) -> None:
    """Write tables and sentences as Markdown."""
    paragraphs = [tables.markdown(item) if isinstance(item, Table) else item for item in items]
    path.write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")


def _short(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


if __name__ == "__main__":
    end_in_order()
    sys.exit(app())
