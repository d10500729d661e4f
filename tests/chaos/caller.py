"""A worker on the other side of a bad line: `python -m tests.chaos.caller TARGET STUDY SECONDS`.

It asks and tells through the shipped client, each call with SECONDS of time and no repetition but gRPC's own, and prints a JSON line for
each call: what, how it ended, how long it took, and for an acknowledged tell the trial. It ends when its standard input is closed.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from asktell.client import AskTellError, Client

T = TypeVar("T")


def timed(what: str, call: Callable[[], T]) -> T | None:
    """The call's result, None if it failed; either way a line says so."""
    start = time.monotonic()
    told: dict[str, object] = {"call": what, "end": "ok"}
    result: T | None = None
    try:
        result = call()
        told["number"] = getattr(result, "number", 0)
    except AskTellError as error:
        told["end"] = type(error).__name__
        told["message"] = str(error)
    print(json.dumps({**told, "took": time.monotonic() - start}), flush=True)
    return result


def main(target: str, study_id: str, seconds: float) -> None:
    hung_up = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), hung_up.set()), daemon=True).start()
    with Client(target, project="p", timeout=seconds, retry_for=0) as client:
        study = client.get_study(study_id)
        while not hung_up.is_set():
            asked = timed("ask", lambda: study.ask(worker_id="far"))
            for trial in asked or ():
                # Told until it is acknowledged: to tell it again changes nothing.
                while timed("tell", lambda trial=trial: trial.tell(loss=trial.number / 7) or trial) is None:
                    if hung_up.is_set():
                        return
            hung_up.wait(0.01)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
