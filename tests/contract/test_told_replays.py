"""What a replica remembers of a tell that another replica answered while this one's run was undone, on every store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from asktell.server.application.clerk import Clerk
from asktell.server.application.curves import Curves
from asktell.server.application.desk import Desk
from asktell.server.application.history import History
from asktell.server.application.leases import Renewals
from asktell.server.application.reports import Reports
from asktell.server.domain.errors import Conflict
from asktell.server.domain.trial import TrialState
from asktell.server.rpc.trial_servicer import TrialServicer
from asktell.v1 import trial_service_pb2 as pb
from tests.contract.test_clerk import NAME, create


class Overtaken:
    """A store whose first write is undone once its step has run; before it runs again, something else happens."""

    def __init__(self, store: Any, meanwhile: Callable[[], Awaitable[Any]]) -> None:
        self._store, self._meanwhile = store, [meanwhile]

    async def write(self, step: Callable[[Any], Any]) -> Any:
        if not self._meanwhile:
            return await self._store.write(step)

        def undone(tx: Any) -> None:
            step(tx)
            raise Conflict

        try:
            await self._store.write(undone)
        except Conflict:
            await self._meanwhile.pop()()
            raise


def servicer(store: Any, history: History, written: Any) -> TrialServicer:
    """A replica's on the store, whose tells are written to another one."""
    desk = Desk(store=store, engine=None, history=history, new_nonce=lambda: "n")
    clerk = Clerk(written)
    return TrialServicer(desk, clerk, Renewals(store, clerk), Reports(clerk, Curves(store), lambda _: None))


def told(number: int, token: str) -> pb.TellRequest:
    result = pb.TrialResult(number=number, lease_token=token)
    result.succeeded.metrics["y"].value = 1.0
    return pb.TellRequest(parent="projects/p/studies/one", results=[result], request_id=f"r{number}")


async def test_a_tell_that_another_replica_answered_meanwhile_is_remembered_as_it_was_stored(store):
    first, second = await create(store, NAME, active=2)
    other = servicer(store, History(store), store)

    async def tell_both() -> None:
        await other.Tell(told(second.number, second.lease.token), None)
        await other.Tell(told(first.number, first.lease.token), None)

    history = History(store)
    await history.read(NAME)
    await servicer(store, history, Overtaken(store, tell_both)).Tell(told(first.number, first.lease.token), None)
    known = (await history.read(NAME)).roster.trials
    assert {number: trial.state for number, trial in known.items()} == dict.fromkeys((1, 2), TrialState.SUCCEEDED)
    assert known == (await History(store).read(NAME)).roster.trials
