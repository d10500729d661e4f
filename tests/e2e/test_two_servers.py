"""Two servers on one PostgreSQL hand no trial out twice, lose no tell, and keep to the budget."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from asktell.v1 import trial_service_pb2 as trials
from tests.processes import Processes
from tests.wire import Wire, small_study

WORKERS = 8
PARALLEL = 5


@pytest.mark.parametrize(("policy", "budget"), [("random", 80), ("gp", 16)])
def test_two_servers_hand_no_trial_out_twice(processes: Processes, migrated_url: str, policy: str, budget: int) -> None:
    targets = [processes.serve(migrated_url).target for _ in range(2)]
    with Wire(targets[0]) as wire:
        limits = {"max_trials": budget, "max_parallel": PARALLEL}
        study = wire.create("shared", small_study(policy=policy, budget=limits)).name

    told = threading.Condition()

    def work(index: int) -> tuple[list[trials.Trial], list[int]]:
        taken, active = [], []
        with Wire(targets[index % 2]) as own:
            while True:
                answer = own.ask(study, f"w{index}")
                for trial in answer.trials:
                    taken.append(trial)
                    active.append(own.study(study).trial_counts.active)
                    own.tell(trial, (trial.parameters["x"].double_value - 0.3) ** 2)
                with told:
                    told.notify_all()
                    if not answer.trials:
                        told.wait(answer.retry_after.ToTimedelta().total_seconds())
                if answer.study_state == trials.AskResponse.STATE_CLOSED:
                    return taken, active

    with ThreadPoolExecutor(WORKERS) as pool:
        shares = list(pool.map(work, range(WORKERS)))
    taken = [trial for share, _ in shares for trial in share]
    assert sorted(trial.number for trial in taken) == list(range(1, budget + 1))
    assert len({trial.parameters["x"].double_value for trial in taken}) == budget
    assert max(count for _, active in shares for count in active) <= PARALLEL
    with Wire(targets[1]) as wire:
        counts = wire.study(study).trial_counts
        stored = {trial.number: trial.metrics["loss"].value for trial in wire.all_trials(study)}
    assert (counts.succeeded, counts.active, counts.queued, counts.failed) == (budget, 0, 0, 0)
    assert stored == {trial.number: (trial.parameters["x"].double_value - 0.3) ** 2 for trial in taken}
