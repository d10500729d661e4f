"""A configuration that kills whoever tries it is tried `max_attempts` times, learnt as failed, and never offered again (P17)."""

from __future__ import annotations

import signal
import sys

import pytest

from asktell.v1 import search_space_pb2 as space
from asktell.v1 import trial_service_pb2 as trials
from tests.chaos.cluster import Cluster
from tests.chaos.seed import say
from tests.processes import Processes
from tests.wire import Wire, seconds, small_study, text

CHOICES = ("a", "b", "poison", "c", "d")
ATTEMPTS = 3
WORKER = """
import os, signal, sys
from asktell.client import Client

with Client(sys.argv[1], project="p") as client:
    for trial in client.get_study(sys.argv[2]).trials():
        if trial.parameters["choice"] == "poison":
            os.kill(os.getpid(), signal.SIGKILL)
        trial.tell(loss=len(trial.parameters["choice"]))
"""
Trial = trials.Trial


@pytest.mark.parametrize("policy", ["random", "gp"])
def test_a_poisonous_configuration_is_given_up_and_never_offered_again(
    processes: Processes, three: Cluster, policy: str
) -> None:
    message = small_study(policy=policy, max_attempts=ATTEMPTS, lease_duration=seconds(1))
    del message.spec.parameters[:]
    message.spec.parameters.add(name="choice", categorical_spec=space.CategoricalSpec(choices=map(text, CHOICES)))
    with Wire(three.servers[0].target) as wire:
        study = wire.create(f"poison-{policy}", message).name
        deaths = 0
        while True:
            worker = processes.start([sys.executable, "-c", WORKER, three.target, study.rpartition("/")[2]])
            if (status := worker.wait()) == 0:
                break
            assert status == -signal.SIGKILL, worker.errors()
            deaths += 1
        stored = wire.all_trials(study)
        answer = wire.ask(study)
    assert deaths == ATTEMPTS
    assert sorted(choice(trial) for trial in stored) == sorted(CHOICES)
    states = {choice(trial): (trial.state, trial.attempt) for trial in stored}
    assert states.pop("poison") == (Trial.STATE_FAILED, ATTEMPTS)
    assert set(states.values()) == {(Trial.STATE_SUCCEEDED, 1)}
    assert (list(answer.trials), answer.reason) == ([], trials.AskResponse.REASON_EXHAUSTED)
    assert answer.study_state == trials.AskResponse.STATE_CLOSED
    say(f"{policy}: the poison killed {deaths} workers and was given up; the other {len(states)} were told")


def choice(trial: trials.Trial) -> str:
    return str(trial.parameters["choice"].string_value)
