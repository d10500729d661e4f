"""What a desk hands out and lets wait, where other replicas and other studies are in the way."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from asktell.server.application import studies
from asktell.server.application.desk import STUDIES_WAITING, YIELDING, Desk
from asktell.server.application.history import History
from asktell.server.domain.errors import Overloaded
from asktell.server.domain.policy import Candidate, Decision, SuggestRequest
from asktell.server.domain.population import Population
from asktell.server.domain.study import Budget, StudyName
from asktell.server.domain.trial import Origin
from tests.integration.test_asking import NAME, House, desk_of, house, numbers


@dataclass
class Member:
    """An engine that trains the first member that is not being trained; a replica that is as quick trains it meanwhile, so many times."""

    home: House
    collisions: int
    asked: list[SuggestRequest] = field(default_factory=list)

    def policies(self) -> Collection[str]:
        return ["auto", "pbt"]

    async def suggest(self, request: SuggestRequest) -> Decision:
        self.asked.append(request)
        member = next(member for member in range(1, 100) if member not in request.pending_members)
        if len(self.asked) <= self.collisions:
            # Of other parameters, so that the member alone is the same.
            quick = desk_of(self.home.store, Always(10 - member, member))
            await self.home.ask(desk=quick)
        return Decision((Candidate({"x": len(self.asked) % 3}, Origin(policy="pbt"), 0, member),))


@dataclass
class Always:
    """An engine that offers one thing."""

    x: int
    member: int

    def policies(self) -> Collection[str]:
        return ["auto", "pbt"]

    async def suggest(self, request: SuggestRequest) -> Decision:
        return Decision((Candidate({"x": self.x}, Origin(policy="pbt"), 0, self.member),))


async def test_an_ask_that_collided_often_hands_out_no_member_that_is_trained_elsewhere_by_now(tmp_path: Path) -> None:
    async with house(tmp_path, population=Population(size=9)) as home:
        engine = Member(home, YIELDING)
        (given,) = (await home.ask(desk=desk_of(home.store, engine))).trials
        assert (given.member, given.number) == (YIELDING + 1, YIELDING + 1)
        assert len(engine.asked) == YIELDING + 1
        snapshot = await History(home.store).read(NAME)
        assert sorted(trial.member for trial in snapshot.pending) == list(range(1, YIELDING + 2))


async def test_asks_that_wait_for_many_studies_are_as_many_as_all_lines_together_may_hold(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        seen = await home.store.read(lambda tx: tx.find_study(NAME))
        names = [StudyName("p", f"s{number}") for number in range(STUDIES_WAITING + 1)]
        for name in names:
            command = studies.CreateStudy(name=name, spec=seen.study.spec, budget=Budget(), drawn_seed=0)
            await home.store.write(lambda tx, command=command: studies.create_study(tx, command))
        *full, another = names
        desk = Desk(
            store=home.store, engine=home.engine, history=History(home.store), new_nonce=lambda: "n", max_waiting=1
        )
        home.engine.gate.clear()
        asking = []
        # One of each study is being met, and one waits.
        for count, name in enumerate(full, start=1):
            asking.append(asyncio.create_task(home.ask(desk=desk, study=name)))
            async with asyncio.timeout(60):
                while len(home.engine.requests) < count:
                    await asyncio.sleep(0.001)
            asking.append(asyncio.create_task(home.ask(desk=desk, study=name)))
            await asyncio.sleep(0)
        late = asyncio.create_task(home.ask(desk=desk, study=another))
        await asyncio.sleep(0)
        home.engine.gate.set()
        await asyncio.gather(*asking)
        with pytest.raises(Overloaded, match=f"^0 asks wait for study '{another.study}' and 8 for all") as refused:
            await late
        assert refused.value.retry_after >= 1
        assert numbers(await home.ask(desk=desk, study=another)) == [1]
