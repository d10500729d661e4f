"""A worker as a process of its own, over raw stubs.

`python -m tests.e2e.worker TARGET STUDY WORKER VALUE` asks for one trial, prints its number and attempt, trains until it reads a line, tells
VALUE, and prints the loss that stands or the reason of the refusal. It can be stopped or killed at any point and would not know. The trial as
it was handed out is on standard error by then, so that nobody need ask for it before its lease ends.
"""

from __future__ import annotations

import sys

import grpc

from tests.wire import Wire, refusal_of

HANDED_OUT = "handed out:"


def main(target: str, study: str, worker: str, value: str) -> None:
    with Wire(target) as wire:
        trial = wire.one(study, worker)
        print(HANDED_OUT, trial.SerializeToString().hex(), file=sys.stderr, flush=True)
        print(trial.number, trial.attempt, flush=True)
        sys.stdin.readline()
        try:
            told = wire.tell(trial, float(value))
        except grpc.RpcError as error:
            print(refusal_of(error).reason, flush=True)
        else:
            print(told.metrics["loss"].value, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
