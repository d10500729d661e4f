"""What a store has acknowledged is there after its process was killed."""

from __future__ import annotations

import subprocess
import sys

from asktell.server.application.ports import NewStudy
from asktell.server.domain.metric import Goal, Objective
from asktell.server.domain.space import Float, SearchSpace
from asktell.server.domain.study import Budget, StudyName, StudySpec
from asktell.server.persistence.store import open_store

KILLS = 3
ACKNOWLEDGED_BEFORE_THE_KILL = 100
NAME = StudyName("digits", "first")

# Sixteen callers add trials for ever; each number is printed when, and only when, its write was acknowledged.
WRITER = """
import asyncio, os, sys
from dataclasses import replace
from asktell.server.domain.study import StudyName
from asktell.server.domain.trial import Origin, Trial, TrialState
from asktell.server.persistence.store import open_store

NAME = StudyName("digits", "first")

def add(tx):
    locked = tx.lock_study(NAME, changes=1)
    number = locked.study.next_number
    trial = Trial(number=number, state=TrialState.QUEUED, parameters={"x": 0.5}, origin=Origin(policy="random"),
                  nonce="n", sequence=locked.first_sequence, create_time=locked.now)
    tx.insert_trials(locked.study.id, [trial])
    tx.update_study(replace(locked.study, next_number=number + 1))
    return number

async def caller(store):
    while True:
        number = await store.write(add)
        os.write(1, b"%d\\n" % number)

async def main():
    store = open_store(sys.argv[1])
    await asyncio.gather(*(caller(store) for _ in range(16)))

asyncio.run(main())
"""

ALL = 10**9


def acknowledged_until_killed(address: str) -> set[int]:
    with subprocess.Popen([sys.executable, "-c", WRITER, address], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(ACKNOWLEDGED_BEFORE_THE_KILL)]
        writer.kill()
        lines += writer.stdout.readlines()
    return {int(line) for line in lines if line.endswith("\n")}


async def stored(address: str) -> set[int]:
    store = open_store(address)
    found = await store.read(lambda tx: tx.find_study(NAME))
    assert found is not None
    trials = await store.read(lambda tx: tx.changed_trials(found.study.id, after=0, upto=ALL, limit=ALL))
    await store.close()
    numbers = {trial.number for trial in trials}
    assert numbers == set(range(1, found.study.next_number)), "a killed write left a part of itself"
    return numbers


async def create_study(address: str) -> None:
    spec = StudySpec(
        space=SearchSpace((Float(name="x", low=0.0, high=1.0),)), objectives=(Objective("loss", Goal.MINIMIZE),)
    )
    store = open_store(address)
    await store.write(lambda tx: tx.insert_study(NewStudy(name=NAME, spec=spec, seed=0, budget=Budget(), labels={})))
    await store.close()


async def test_no_acknowledged_write_is_lost_when_its_server_is_killed(address):
    await create_study(address)
    acknowledged: set[int] = set()
    for _ in range(KILLS):
        acknowledged |= acknowledged_until_killed(address)
        missing = acknowledged - await stored(address)
        assert missing == set()
    print(f"{len(acknowledged)} writes acknowledged, {KILLS} kills, 0 missing")
    assert len(acknowledged) >= KILLS * ACKNOWLEDGED_BEFORE_THE_KILL
