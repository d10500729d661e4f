"""A study with a fidelity at two replicas of one PostgreSQL: each configuration goes on once, by what both know."""

from __future__ import annotations

import itertools
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from asktell import client as at
from tests.processes import Processes

RUNGS = (1, 3, 9)
TRIALS = 60


def configuration(trial: at.Trial) -> object:
    return trial.parameters["x"], trial.parameters["c"]


def loss(trial: at.Trial) -> float:
    x, epochs = float(trial.parameters["x"]), int(trial.parameters["epochs"])  # type: ignore[arg-type]
    return float((x - 0.3) ** 2 + 1 / epochs)


def work(target: str, worker: int) -> None:
    """Evaluate trials until there are none; the checkpoint tells how far the configuration was trained."""
    with at.Client(target) as client:
        study = client.get_study("raised")
        for trial in study.trials(worker_id=f"worker-{worker}"):
            trial.tell(loss=loss(trial), checkpoint_uri=f"file:///trials/{trial.number}")


def test_eight_workers_at_two_replicas_let_nothing_go_on_twice_or_from_nowhere(
    processes: Processes, migrated_url: str
) -> None:
    targets = [processes.serve(migrated_url).target for _ in range(2)]
    with at.Client(targets[0]) as client:
        study = client.create_study(
            "raised",
            parameters=[at.Float("x", 0, 1), at.Categorical("c", ["a", "b"]), at.Int("epochs", 1, 9, log=True)],
            objectives=[at.Minimize("loss")],
            fidelity=at.Fidelity("epochs"),
            policy="random",
            seed=1,
            max_trials=TRIALS,
        )
        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(work, target, worker) for worker, target in enumerate(targets * 4)]:
                done.result(timeout=120)
        trials = {trial.number: trial for trial in study.list_trials()}
        assert len(trials) == TRIALS
        assert len({(configuration(trial), trial.parameters["epochs"]) for trial in trials.values()}) == TRIALS
        for trial in trials.values():
            parent, level = trials.get(trial.parent), RUNGS.index(trial.parameters["epochs"])  # type: ignore[arg-type]
            if level == 0:
                assert (parent, trial.checkpoint_uri) == (None, f"file:///trials/{trial.number}")
            else:
                assert parent is not None
                assert configuration(parent) == configuration(trial)
                assert parent.parameters["epochs"] == RUNGS[level - 1]
                assert trial.origin.method == "promotion"
        levels = Counter(trial.parameters["epochs"] for trial in trials.values())
        assert all(3 * levels[high] <= 2 * levels[low] for low, high in itertools.pairwise(RUNGS))
        best = study.best_trial
        assert best is not None
        assert best.parameters["epochs"] == 9
        assert loss(best) == min(loss(trial) for trial in trials.values() if trial.parameters["epochs"] == 9)
