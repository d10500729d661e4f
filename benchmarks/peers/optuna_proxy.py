"""Optuna's gRPC storage proxy in front of a database, and threads that tell trials through it.

A program of the peers' environment: `serve URL PORT` until it is killed, or `load PORT THREADS EACH`, which prints what it took as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

HOST = "127.0.0.1"
STUDY = "bench"
PATIENCE = 60.0


def serve(url: str, port: int) -> None:
    """Serve a database, whose schema is made first."""
    import optuna  # noqa: PLC0415 - the peers' environment has it.

    # SQLite's own default of five seconds ends in "database is locked" here.
    arguments = {"timeout": PATIENCE} if url.startswith("sqlite") else {}
    storage = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": arguments, "pool_size": 20})
    optuna.storages.run_grpc_proxy_server(storage, host=HOST, port=port)


def load(port: int, threads: int, each: int) -> None:
    """Have each thread ask for its trials, then all tell at once."""
    import optuna  # noqa: PLC0415

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.GrpcStorageProxy(host=HOST, port=port)
    storage.wait_server_ready(PATIENCE)
    sampler = optuna.samplers.RandomSampler()
    study = optuna.create_study(storage=storage, study_name=STUDY, sampler=sampler, load_if_exists=True)

    def ask(_thread: int) -> list[Any]:
        trials = [study.ask() for _ in range(each)]
        for trial in trials:
            trial.suggest_float("x", 0, 1)
        return trials

    def tell(trials: list[Any]) -> list[float]:
        return [_timed(lambda trial=trial: study.tell(trial, 0.25)) for trial in trials]

    with ThreadPoolExecutor(threads) as pool:
        asked = list(pool.map(ask, range(threads)))
        began, spent = time.perf_counter(), time.process_time()
        taken = [seconds for of_thread in pool.map(tell, asked) for seconds in of_thread]
        wall = time.perf_counter() - began
    print(json.dumps({"per_second": len(taken) / wall, "seconds": sorted(taken), "cpu": time.process_time() - spent}))


def _timed(call: Any) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        load(*map(int, sys.argv[2:5]))
