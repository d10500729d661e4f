"""Exactly-once: a repeated request gets the reply that the first one got."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from asktell.server.application.ports import Locked, Replay, Request, Store, Transaction
from asktell.server.domain.errors import AlreadyExists, Conflict, Unavailable

T = TypeVar("T")

_ATTEMPTS = 3


class Unchanged(Exception):
    """Ends a transaction without a change, sequence numbers included: the call has its `reply` already, or nothing to do."""

    def __init__(self, reply: Any) -> None:
        super().__init__("there is nothing to change")
        self.reply = reply


async def write_once(store: Store, step: Callable[[Transaction], T]) -> T:
    """Run a step and return its reply, also that of one that ended as Unchanged.

    A copy of the request that was answered while the step waited for the study makes it run again: then it finds the reply. So does whatever
    else another call did meanwhile that the step cannot go by.
    """
    for _ in range(_ATTEMPTS):
        try:
            return await store.write(step)
        except Unchanged as end:
            reply: T = end.reply
            return reply
        except Conflict:
            continue
    raise Unavailable(f"other calls got in the way of this one {_ATTEMPTS} times; try again")


def replay_of(request: Request | None, replay: Replay | None) -> bytes | None:
    """The earlier reply, None if there is none; AlreadyExists if the id was used with another payload."""
    if request is None or replay is None:
        return None
    if replay.fingerprint != request.fingerprint:
        raise AlreadyExists(
            f"request_id {request.id!r} was used for another {request.method} of this study", reason="REQUEST_ID_REUSED"
        )
    return replay.response


def refuse_replay(locked: Locked, request: Request | None) -> None:
    """Raise Unchanged if the request was answered before."""
    earlier = replay_of(request, locked.replay)
    if earlier is not None:
        raise Unchanged(earlier)


def keep_reply(tx: Transaction, locked: Locked, request: Request | None, response: bytes) -> bytes:
    """Keep the reply for repetitions of the request, if it has an id."""
    if request is not None:
        tx.save_replies(locked.study.id, [(request, response)], now=locked.now)
    return response
