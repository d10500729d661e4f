"""The examples of docs/worker.md do what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*module: str) -> str:
    command = [sys.executable, "-m", *module]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170, check=True).stdout


def test_a_shell_script_is_tuned_in_three_slots_and_its_best_log_is_shown() -> None:
    counts, best, title, said, *measurements = run("examples.worker.demo").splitlines()
    succeeded, infeasible = (int(re.findall(rf"{name}=(\d+)", counts)[0]) for name in ("succeeded", "infeasible"))
    assert succeeded + infeasible == 12
    assert infeasible > 0
    number = re.fullmatch(r"best: trial (\d+), what it wrote:", best)[1]
    assert title.startswith(f"=== trial {number}, attempt 1, ")
    assert re.fullmatch(rf"slot [123], trial {number}: (sgd|adam) at \S+, momentum \S+", said)
    assert len(measurements) == 6


def test_two_slots_train_on_one_gpu_at_once_or_say_that_there_is_none() -> None:
    first, *_, ran, best = run("examples.gpu.demo", "2").splitlines()
    on_gpu, pairs = map(
        int, re.fullmatch(r"(\d) of 2 trials ran on a GPU; (\d) pairs of trials at the same time\.", ran).groups()
    )
    assert (first.startswith("There is no GPU"), on_gpu) in [(True, 0), (False, 2)]
    assert pairs == 1
    assert best.startswith("best: trial ")
