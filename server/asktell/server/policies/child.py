"""The other end of a `Worker`: a process that reads calls from its standard input and writes what they return to its standard output.

A call is a pickle of a function and its arguments, what comes back a pickle of whether it returned and what, or of what it raised; each after
its length in bytes. It imports little: what it imports stays in each process's memory.
"""

from __future__ import annotations

import os
import pickle
import struct
from typing import Any, BinaryIO

LENGTH = struct.Struct("!Q")


def packed(content: Any) -> bytes:
    """A pickle, after its length."""
    body = pickle.dumps(content, pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(body)) + body


def serve(calls: BinaryIO, replies: BinaryIO) -> None:
    """Answer calls until there are no more."""
    while header := calls.read(LENGTH.size):
        body = calls.read(*LENGTH.unpack(header))
        replies.write(_answer(body))
        replies.flush()


def _answer(body: bytes) -> bytes:
    try:
        function, arguments = pickle.loads(body)  # noqa: S301 - from the server, which started this process
        return packed((True, function(*arguments)))
    except Exception as error:  # noqa: BLE001 - the caller gets it
        return _packed_error(error)


def _packed_error(error: Exception) -> bytes:
    try:
        reply = packed((False, error))
        pickle.loads(reply[LENGTH.size :])  # noqa: S301 - made here
    except Exception:  # noqa: BLE001 - whatever a class of errors does when it is pickled
        return packed((False, RuntimeError(f"{type(error).__name__}: {error}")))
    return reply


def main() -> None:
    """Serve on the standard streams. What anything else prints goes to standard error."""
    calls, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    serve(calls, replies)


if __name__ == "__main__":
    main()
