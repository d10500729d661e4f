"""Two slots train small networks on one GPU at the same time: `make demo-gpu`, or `python -m examples.gpu.demo`.

Without a GPU it says so, and the two slots share the CPUs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from asktell.client import Categorical, Client, Float, Maximize, MedianRule, Ordinal, Study, Trial
from asktell.worker.devices import find

ROOT = Path(__file__).parents[2]
SLOTS = 2


def main(trials: int = 10) -> int:
    """Tune, and say on what, how much of it at the same time, and what came of it; the worker's exit status."""
    found = find("auto", os.environ).names
    if found:
        print(f"GPUs: {', '.join(found)}. {SLOTS} slots share the first one.", flush=True)
    else:
        print(
            f"There is no GPU that the drivers or CUDA_VISIBLE_DEVICES show: {SLOTS} slots share the CPUs.", flush=True
        )
    with tempfile.TemporaryDirectory() as folder, Client.local(Path(folder) / "asktell.db") as client:
        study = _study(client, trials)
        status = _work(study, client, gpus=found[0] if found else "none", logs=Path(folder) / "logs")
        study.refresh()
        ended = study.list_trials()
        on_gpu = [trial for trial in ended if "on_gpu" in trial.metrics and trial.value("on_gpu")]
        print(
            f"{len(on_gpu)} of {len(ended)} trials ran on a GPU; {_together(ended)} pairs of trials at the same time."
        )
        best = study.best_trial
        if best is not None:
            print(
                f"best: trial {best.number} with {best.value('accuracy'):.2%} of the held-back images: {dict(best.parameters)}"
            )
        if found and len(on_gpu) < study.counts.succeeded:
            print("The GPU is there, but PyTorch did not use it: is this build of torch made for it?")
        return status


def _study(client: Client, trials: int) -> Study:
    return client.create_study(
        "gpu",
        parameters=[
            Float("learning_rate", 1e-4, 1e-1, log=True),
            Ordinal("width", [8, 16, 32]),
            Float("dropout", 0.0, 0.6),
            Categorical("batch_size", [32, 64, 128]),
        ],
        objectives=[Maximize("accuracy")],
        stopping_rule=MedianRule(warmup_steps=3),
        max_trials=trials,
        seed=0,
    )


def _work(study: Study, client: Client, *, gpus: str, logs: Path) -> int:
    options = [
        "--study",
        study.id,
        "--target",
        client.target,
        "--slots",
        str(SLOTS),
        "--gpus",
        gpus,
        "--logs",
        str(logs),
    ]
    command = [str(Path(sys.executable).with_name("asktell")), "work", *options, "examples.gpu.training:objective"]
    return subprocess.run(command, cwd=ROOT, check=False).returncode  # noqa: S603


def _together(trials: Sequence[Trial]) -> int:
    """How many pairs of trials were under way at the same time."""
    spans = [(trial.start_time, trial.end_time) for trial in trials if trial.start_time and trial.end_time]
    return sum(max(one[0], other[0]) < min(one[1], other[1]) for one, other in combinations(spans, 2))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
