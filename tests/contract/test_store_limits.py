"""A study's limit of active trials where replicas hand out at one time, on every store."""

from __future__ import annotations

import itertools
import time
from typing import Any

from asktell.server.application import trials
from asktell.server.application.ask import Answer, Ask, Reason
from asktell.server.domain.trial import TrialState
from tests.contract.test_store_asks import NAME, Hinting, Overtaken, Replica, create, fresh, replica

NONCES = itertools.count()


async def enqueue(store: Any, *values: float) -> None:
    new = [trials.NewTrial(parameters={"x": value}) for value in values]
    adding = trials.AddTrials(study=NAME, trials=new, nonces=[f"q{next(NONCES)}" for _ in values])
    await store.write(lambda tx: trials.add_trials(tx, adding, pack=lambda added: b""))


async def asked(home: Replica, x: float) -> Answer:
    """What an ask gets that will have this value alone."""
    given: list[Answer] = []

    def pack(answer: Answer) -> bytes:
        given.append(answer)
        return b""

    command = Ask(study=NAME, count=1, worker_id="w", deadline=time.monotonic() + 30, fixed={"x": x})
    await home.desk.ask(command, pack=pack)
    await home.desk.settle()
    return given[-1]


async def active(store: Any) -> list[int]:
    listed = trials.ListTrials(study=NAME, after=0, limit=1000)
    found = await store.read(lambda tx: trials.list_trials(tx, listed))
    return [trial.number for trial in found if trial.state is TrialState.ACTIVE]


async def test_a_queued_trial_that_another_replica_hands_out_meanwhile_counts_against_a_new_one(store):
    await create(store, max_parallel=1)
    await enqueue(store, 0.25)
    other = replica(store, Hinting(fresh))
    # The engine gives the second trial 1/2.
    home = replica(store, Overtaken(fresh, meanwhile=lambda: asked(other, 0.25)))
    answer = await asked(home, 0.5)
    assert (answer.trials, answer.reason, answer.closed) == ((), Reason.MAX_PARALLEL, False)
    assert await active(store) == [1]


async def test_a_queued_trial_that_another_replica_hands_out_meanwhile_counts_against_another_queued_one(store):
    await create(store, max_parallel=1)
    await enqueue(store, 0.25, 0.5)
    home, other = replica(store, Hinting(fresh)), replica(store, Hinting(fresh))
    read, reads = home.desk.history.read, []

    async def read_early(*name: Any, **how: Any) -> Any:
        snapshot = await read(*name, **how)
        reads.append(snapshot)
        if len(reads) == 1:
            await asked(other, 0.25)
        return snapshot

    home.desk.history.read = read_early
    answer = await asked(home, 0.5)
    assert (answer.trials, answer.reason, answer.closed) == ((), Reason.MAX_PARALLEL, False)
    assert await active(store) == [1]
    assert len(reads) == 2
