"""What the demo says of a run, and how it minds its processes."""

import io
import re
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from examples.digits import picture
from examples.digits.comparison import compare, table
from examples.digits.history import History, Result
from examples.digits.processes import Process, fleet, start
from examples.digits.random_search import RandomSearch
from examples.digits.screen import KEY_PARAMETERS, PlainScreen, say, screen

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
LONGEST = {
    "learning_rate": 1.2345e-05,
    "optimizer": "rmsprop",
    "batch_size": 256,
    "layers": 4,
    "width": 256,
    "activation": "sigmoid",
    "dropout": 0.012345,
    "weight_decay": 1.2345e-05,
}
RANDOM_SEARCH = RandomSearch(runs=((0.5, 0.9, 0.7), (0.6, 0.6, 0.8), (0.2, 0.3, 0.95)))


def history(*accuracies: float | None) -> History:
    return History(
        tuple(
            Result(number=number, worker="worker-1", parameters={"layers": 2}, accuracy=accuracy)
            for number, accuracy in enumerate(accuracies, start=1)
        )
    )


def sleeper(directory: Path, *, before: str = "") -> Process:
    """A process that does something first and then waits to be ended."""
    code = f"{before}\nimport sys, time; sys.stdout.flush(); time.sleep(600)"
    return start("sleeper", [sys.executable, "-c", code], log=directory / f"{time.monotonic_ns()}.log")


def await_line(process: Process) -> None:
    while not process.log.read_text().endswith("\n"):
        assert process.is_alive
        time.sleep(0.01)


def await_end(pid: int) -> None:
    with suppress(psutil.NoSuchProcess):
        # Where nobody reaps orphans, what has ended stays as a zombie.
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)


def words(renderable: object) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(renderable)
    return console.file.getvalue()


def test_the_best_is_the_earliest_of_the_highest_and_failures_do_not_count():
    best = history(None, 0.7, 0.9, 0.9).best
    assert best is not None
    assert best.number == 3
    assert history(None).best is None
    assert history(None, 0.7, None, 0.6).bests() == [None, 0.7, 0.7, 0.7]


def test_random_search_is_compared_at_the_same_number_of_trials():
    assert RANDOM_SEARCH.bests(2) == [0.9, 0.6, 0.3]
    comparison = compare(history(0.1, 0.61), random_search=RANDOM_SEARCH, defaults=0.5)
    assert comparison.random_median == 0.6
    assert comparison.random_trials == 2
    assert comparison.trials_to_random == 2


def test_a_longer_run_says_that_the_record_is_shorter():
    comparison = compare(history(0.1, 0.2, 0.3, 0.97), random_search=RANDOM_SEARCH, defaults=0.5)
    assert (comparison.trials, comparison.random_trials) == (4, 3)
    assert "best of 4 trials" in words(table(comparison))
    assert "best of 3 trials: median of 3 recorded seeds (80.00% to 95.00%)" in words(table(comparison))


def test_a_win_is_told_with_its_size():
    comparison = compare(history(0.5, 0.92, 0.94), random_search=RANDOM_SEARCH, defaults=0.5)
    assert comparison.sentence() == (
        "asktell beat 2 of 3 random searches; it makes 40% fewer errors than their median, which it passed after 2 of 3 trials."
    )


@pytest.mark.parametrize("best", [0.9, 0.85])
def test_a_run_no_better_than_random_search_says_so(best: float):
    comparison = compare(history(0.5, best, 0.5), random_search=RANDOM_SEARCH, defaults=0.5)
    assert "did NOT beat the median" in comparison.sentence()


def test_a_run_without_any_accuracy_has_no_comparison():
    with pytest.raises(ValueError, match="none of the 2 trials"):
        compare(history(None, None), random_search=RANDOM_SEARCH, defaults=0.5)


def test_the_picture_is_drawn_of_runs_with_failures_and_of_runs_longer_than_the_record(tmp_path: Path):
    path = tmp_path / "history.png"
    picture.draw(history(None, 0.3, 0.9, None, 0.95), random_search=RANDOM_SEARCH, defaults=0.6, path=path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_without_a_terminal_each_trial_is_one_line_and_none_is_shown_twice():
    output = io.StringIO()
    with screen(Console(file=output, width=40), trials=3) as shown:
        assert isinstance(shown, PlainScreen)
        for finished in (history(0.5), history(0.5), history(0.5, None, 0.75)):
            shown.show(finished, [])
    lines = output.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["1/3", "2/3", "3/3"]
    assert [line.split()[-1] for line in lines] == ["50.00%", "50.00%", "75.00%"]


def terminal(width: int) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)


def shown_in(console: Console, finished: History, processes: Sequence[Process] = ()) -> tuple[list[str], list[str]]:
    """The lines of the live view, and those that it leaves behind."""
    with screen(console, trials=50) as shown:
        shown.show(finished, processes)
        start = len(console.file.getvalue())
        shown.live.refresh()
        end = len(console.file.getvalue())
    return written(console, slice(start, end)), written(console, slice(end, None))


def written(console: Console, part: slice = slice(None)) -> list[str]:
    return [line.rstrip() for line in CONTROL.sub("", console.file.getvalue()[part]).splitlines()]


def a_trial(number: int, **how: Any) -> Result:
    return Result(**{"number": number, "worker": "worker-1", "parameters": LONGEST, "accuracy": 0.9, **how})


def test_in_a_terminal_the_view_shows_best_workers_and_how_to_kill_one(tmp_path: Path):
    with fleet() as processes:
        processes.append(sleeper(tmp_path))
        live, left = shown_in(terminal(80), history(0.5, 0.75), processes)
        pid = processes[0].pid
    assert live[-3:] == ["best so far: 75.00% in trial 2", f"workers: sleeper (pid {pid})", f"try: kill -9 {pid}"]
    assert left[-1] == "best so far: 75.00% in trial 2"
    assert "kill" not in " ".join(left)


@pytest.mark.parametrize(("width", "parameters"), [(30, 0), (80, 5), (120, 8)])
def test_number_accuracy_and_worker_are_whole_at_every_width_and_parameters_fill_the_rest(width: int, parameters: int):
    finished = History((a_trial(9), a_trial(48, accuracy=None), a_trial(50)))
    live, _ = shown_in(terminal(width), finished)
    assert max(map(len, live)) <= width
    header, *rows = (line.strip() for line in live[1:5])
    assert re.split(r"\s\s+", header.replace("trial accuracy", "trial  accuracy"))[3:] == [
        name.replace("_", " ") for name in KEY_PARAMETERS[:parameters]
    ]
    assert [row.split()[:3] for row in rows] == [
        ["9", "90.00%", "worker-1"],
        ["48", "-", "worker-1"],
        ["50", "90.00%", "worker-1"],
    ]
    assert "…" not in " ".join(live)


def test_a_trial_that_was_handed_over_is_shown_with_its_attempt():
    live, _ = shown_in(terminal(80), History((a_trial(1), a_trial(2, worker="worker-2", attempt=2))))
    assert "worker-2 (attempt 2)" in live[3]
    assert max(map(len, live)) <= 80


def test_in_a_terminal_lines_end_between_words_and_in_a_file_they_are_as_they_are():
    text = "The server listens on 127.0.0.1:37259; worker-1 is process 3969, worker-2 is process 3970."
    console, file = terminal(80), Console(file=io.StringIO(), width=80)
    for each in (console, file):
        say(each, text)
    assert [line.split() for line in written(console)] == [text.split()[:-2], text.split()[-2:]]
    assert written(file) == [text]


def test_leaving_the_fleet_ends_processes_and_what_they_started(tmp_path: Path):
    child = (
        "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid)"
    )
    with suppress(ConnectionError), fleet() as processes:
        processes.append(sleeper(tmp_path, before=child))
        await_line(processes[0])
        raise ConnectionError
    grandchild = int(processes[0].log.read_text())
    await_end(grandchild)
    assert not processes[0].is_alive


def test_a_process_that_fails_is_told_from_one_that_was_killed(tmp_path: Path):
    failing = sleeper(tmp_path, before="raise SystemExit('no such study')")
    killed = sleeper(tmp_path)
    killed.popen.kill()
    for process in (failing, killed):
        process.popen.wait()
    assert (failing.has_failed, failing.was_killed) == (True, False)
    assert (killed.has_failed, killed.was_killed) == (False, True)
    failing.stop()
    assert "no such study" in str(failing.breakage("failed"))
