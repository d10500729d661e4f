"""The demo: a server, two worker processes, and a small network to tune. `make demo`, or `python -m examples.digits.demo --help`."""

import re
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter, validators
from rich.console import Console

from asktell.client import AskTellError, Client, Study, Trial, TrialState
from examples.digits import picture
from examples.digits.comparison import compare, table
from examples.digits.history import History, Result
from examples.digits.processes import ASKTELL, Broken, Process, fleet, start
from examples.digits.random_search import DECIMALS, recorded
from examples.digits.record_random import accuracy
from examples.digits.screen import Screen, parameters_table, say, screen
from examples.digits.space import DEFAULTS, DEFAULTS_IN_WORDS, OBJECTIVE, PARAMETERS, STUDY

WORKERS = 2
LEASE = 15
"""Seconds until the trial of a worker that was killed goes to another."""
GLANCE = 0.4
"""Seconds between two looks at the study."""
ANNOUNCEMENT = re.compile(r"^asktell serves on (\S+)$", re.MULTILINE)
PATIENCE = 60.0
"""Seconds that the server has to come up."""

app = cyclopts.App(name="python -m examples.digits.demo", help_format="plaintext", version_flags=[])


@app.default
def main(
    *,
    trials: Annotated[int, Parameter(validator=validators.Number(gte=2))] = 40,
    seed: int = 0,
    output: Path = Path("demo-output"),
) -> int:
    """Tune a small PyTorch network on handwritten digits: one server, two worker processes.

    Parameters
    ----------
    trials
        How many configurations to try. Random search was recorded with 40.
    seed
        Seed of the study. With two workers the order of results, and so the course, still varies a little.
    output
        Directory for the database, the logs and the picture; a previous demo's files in it are replaced.
    """
    console = Console()
    _end_in_order_on(signal.SIGTERM, signal.SIGHUP)
    try:
        with fleet() as processes:
            history = Demo(console, output.resolve(), processes).run(trials=trials, seed=seed)
        _conclude(console, history, output=output)
    except Broken as error:
        Console(stderr=True).print(
            f"The demo broke: {error}", style="red", markup=False, highlight=False, soft_wrap=True
        )
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted: server and workers are stopped.")
        return 130
    return 0


@dataclass(slots=True)
class Demo:
    """Runs the study. Every process that it starts goes into `processes`, whose owner ends them."""

    console: Console
    output: Path
    processes: list[Process]
    target: str = ""
    workers: list[Process] = field(default_factory=list)

    def run(self, *, trials: int, seed: int) -> History:
        """Tune until the study's trials have ended; Broken if the server or a worker fails."""
        began = time.monotonic()
        _clear(self.output)
        server = self._serve()
        try:
            history = self._tune(server, trials=trials, seed=seed)
        except AskTellError as error:
            raise server.breakage(f"refused or did not answer: {error}") from error
        say(self.console, f"{len(history.results)} trials in {time.monotonic() - began:.0f} s.\n")
        return history

    def _tune(self, server: Process, *, trials: int, seed: int) -> History:
        with Client(self.target, retry_for=1.0) as client:
            study = client.create_study(
                STUDY, parameters=PARAMETERS, objectives=[OBJECTIVE], max_trials=trials, seed=seed, lease_duration=LEASE
            )
            for _ in range(WORKERS):
                self._work()
            self._announce()
            with screen(self.console, trials=trials) as shown:
                return self._watch(study, server, shown, trials=trials)

    def _serve(self) -> Process:
        database = f"sqlite:///{self.output / 'demo.db'}"
        server = self._start("server", ["serve", "--listen", "127.0.0.1:0", "--database", database])
        self.target = _await_announcement(server)
        return server

    def _work(self) -> None:
        name = f"worker-{len(self.workers) + 1}"
        arguments = ["work", "--study", STUDY, "--target", self.target, "--worker-id", name]
        self.workers.append(self._start(name, [*arguments, "examples.digits.objective:train"]))

    def _start(self, name: str, arguments: Sequence[str]) -> Process:
        process = start(name, [ASKTELL, *arguments], log=self.output / f"{name}.log")
        self.processes.append(process)
        return process

    def _announce(self) -> None:
        pids = ", ".join(f"{worker.name} is process {worker.pid}" for worker in self.workers)
        say(self.console, f"The server listens on {self.target}; {pids}.")
        hint = f"To see what happens when a worker dies: kill -9 {self.workers[0].pid}"
        say(self.console, f"{hint} (its trial goes to the other one within {LEASE} s).\n")

    def _watch(self, study: Study, server: Process, shown: Screen, *, trials: int) -> History:
        missed: set[str] = set()
        while True:
            # Looked at first: workers that end after their last trial are not missed.
            is_abandoned = not any(worker.is_alive for worker in self.workers)
            history = self._history(study)
            shown.show(history, self.workers)
            if len(history.results) >= trials:
                return history
            self._look_after(server, shown, missed)
            if is_abandoned:
                self._work()
                shown.note(f"No worker is left, but trials are: {self.workers[-1].name} takes over.")
            time.sleep(GLANCE)

    def _history(self, study: Study) -> History:
        ended = [(trial.end_time, trial) for trial in study.list_trials() if trial.end_time and trial.state.terminal]
        ended.sort(key=lambda pair: (pair[0], pair[1].number))
        return History(tuple(_result(trial) for _, trial in ended))

    def _look_after(self, server: Process, shown: Screen, missed: set[str]) -> None:
        if not server.is_alive:
            raise server.breakage("ended")
        for worker in self.workers:
            if worker.has_failed:
                raise worker.breakage("failed")
            if worker.was_killed and worker.name not in missed:
                missed.add(worker.name)
                shown.note(f"{worker.name} was killed; its trial goes to another worker within {LEASE} s.")


def _result(trial: Trial) -> Result:
    metric = trial.metrics.get(OBJECTIVE.metric) if trial.state is TrialState.SUCCEEDED else None
    return Result(
        number=trial.number,
        worker=trial.worker_id,
        parameters=trial.parameters,
        accuracy=None if metric is None else round(metric.value, DECIMALS),
        attempt=trial.attempt,
    )


def _await_announcement(server: Process) -> str:
    """The target that the server says it serves on, once it does."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if match := ANNOUNCEMENT.search(server.log.read_text(encoding="utf-8")):
            return match[1]
        if not server.is_alive:
            raise server.breakage("ended before it listened")
        time.sleep(0.05)
    raise server.breakage(f"did not listen within {PATIENCE:.0f} s")


def _conclude(console: Console, history: History, *, output: Path) -> None:
    best = history.best
    if best is None:
        raise Broken(f"none of the {len(history.results)} trials came to an accuracy")
    random_search = recorded()
    comparison = compare(history, random_search=random_search, defaults=accuracy(DEFAULTS))
    chosen = {spec.name: best.parameters[spec.name] for spec in PARAMETERS if spec.name in best.parameters}
    console.print(parameters_table(chosen, title=f"Best: trial {best.number}"))
    console.print(table(comparison))
    say(console, f"Defaults: {DEFAULTS_IN_WORDS}.")
    say(console, comparison.sentence(), style="bold")
    path = output / "history.png"
    picture.draw(history, random_search=random_search, defaults=comparison.defaults, path=path)
    say(console, f"\nThe picture is {path}, the study {output / 'demo.db'}.")


def _clear(output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    for pattern in ("demo.db*", "*.log", "history.png"):
        for file in output.glob(pattern):
            file.unlink()


def _end_in_order_on(*signals: signal.Signals) -> None:
    def interrupt(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    for number in signals:
        signal.signal(number, interrupt)


if __name__ == "__main__":
    sys.exit(app())
