"""The policy `gp-botorch` on a GPU, in processes of a server. `make test-gpu` runs it."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pynvml
import pytest
import torch

from asktell.client import Client, FinishedTrial, Float, Minimize, Origin, Study
from asktell.server.domain.policy import Decision, SuggestRequest
from asktell.server.policies import gp_botorch, registry, torch_device
from asktell.server.policies.botorch_model import Improvement
from asktell.server.policies.engine import ProcessPoolEngine
from tests.processes import ASKTELL, Processes, Server
from tests.unit.test_policies_gp_botorch import SPACES
from tests.unit.test_policies_gp_botorch import study as in_the_midst

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]

DEVICE = "cuda:0"
LEAST = 2**19
MODEST = 2**27
SOME_TIME = {"ASKTELL_TORCH_DEVICE": DEVICE, "ASKTELL_ASK_TIME_LIMIT": "100"}
"""torch and CUDA take seconds to load."""


@pytest.fixture
def server(processes: Processes, tmp_path: Path) -> Server:
    return processes.serve(str(tmp_path / "asktell.db"), environment=SOME_TIME)


@pytest.fixture
def study(server: Server) -> Iterator[Study]:
    with Client(server.target) as client:
        yield client.create_study(
            "bowl",
            parameters=[Float("x", -5, 10), Float("y", 1e-3, 1, log=True)],
            objectives=[Minimize("loss")],
            policy="gp-botorch",
            seed=0,
        )


def asked(study: Study, times: int, *, meanwhile: Callable[[], None] = lambda: None) -> list[Origin]:
    """The origins of trials, one after another, each told; what happens `meanwhile` is over before the next can be chosen."""
    origins = []
    for _ in range(times):
        (trial,) = study.ask()
        meanwhile()
        trial.tell(loss=(trial.parameters["x"] - 3) ** 2 + trial.parameters["y"])
        origins.append(trial.origin)
    return origins


def finished(count: int) -> list[FinishedTrial]:
    """Trials that were run elsewhere, all over the space."""
    generator = random.Random(0)
    return [
        FinishedTrial(parameters={"x": x, "y": y}, metrics={"loss": (x - 3) ** 2 + y})
        for x, y in ((generator.uniform(-5, 10), generator.uniform(1e-3, 1)) for _ in range(count))
    ]


def on_gpu(server: Server) -> set[int]:
    """The server's processes that hold memory of the GPU."""
    pynvml.nvmlInit()
    try:
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(DEVICE).uuid}")
        holding = {process.pid for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)}
    finally:
        pynvml.nvmlShutdown()
    return holding & {child.pid for child in psutil.Process(server.pid).children(recursive=True)}


def test_a_server_chooses_on_its_gpu(study: Study, server: Server) -> None:
    origins = asked(study, 15)
    assert [origin.fallback for origin in origins] == [""] * 15
    assert sum(origin.acquisition is not None for origin in origins) >= 5
    assert study.best_trial.value("loss") < 1
    assert on_gpu(server)


@contextmanager
def crowded() -> Iterator[Callable[[], None]]:
    """The GPU's memory taken, to the last half megabyte; what others have given back since then is taken when called."""
    taken = []

    def take() -> None:
        size, _ = torch.cuda.mem_get_info(DEVICE)
        while size >= LEAST:
            try:
                taken.append(torch.empty(size, dtype=torch.uint8, device=DEVICE))
            except torch.OutOfMemoryError:
                size //= 2

    take()
    yield take
    taken.clear()
    torch.cuda.empty_cache()


def test_while_others_have_all_of_its_memory_the_cpu_computes_in_the_same_process(study: Study, server: Server) -> None:
    # A model of few observations finds room in what the process keeps for CUDA's libraries.
    study.import_trials(finished(500))
    *_, before = asked(study, 2)
    assert (before.acquisition is not None, before.fallback) == (True, "")
    processes = on_gpu(server)
    with crowded() as take:
        # The first may have been chosen before.
        _, *origins = asked(study, 6, meanwhile=take)
    for origin in origins:
        assert origin.acquisition is not None
        assert origin.fallback.startswith(f"the CPU computed, as the computation on {DEVICE} failed: ")
    # Here, too.
    _, *after = asked(study, 3)
    assert [origin.fallback for origin in after] == ["", ""]
    assert on_gpu(server) == processes != set()


@pytest.mark.parametrize("fails", [False, True])
def test_what_was_computed_leaves_the_memory_to_others(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    taken = []

    def search(improvement: Improvement, *arguments: Any, **options: Any) -> Any:
        if improvement.X_baseline.is_cuda:
            taken.append(torch.cuda.memory_allocated(DEVICE))
            if fails:
                raise RuntimeError("no")
        return ordinary(improvement, *arguments, **options)

    ordinary = gp_botorch.optimize_acqf
    monkeypatch.setattr(gp_botorch, "optimize_acqf", search)
    torch_device.use(DEVICE)
    try:
        with monkeypatch.context() as patches:
            patches.setattr(gp_botorch, "optimize_acqf", ordinary)
            # What libraries keep for their own use is there after this.
            registry.suggest(in_the_midst(SPACES["numbers"]))
        before = torch.cuda.memory_allocated(DEVICE)
        large = in_the_midst(SPACES["numbers"], count=1_000, pending=3)
        chosen = [registry.suggest(large).candidates[0] for _ in range(2)]
    finally:
        torch_device.use(torch_device.CPU)
    excuse = f"the CPU computed, as the computation on {DEVICE} failed: RuntimeError: no"
    assert [candidate.origin.fallback for candidate in chosen] == [excuse if fails else ""] * 2
    assert min(taken) > before + 2**23
    assert torch.cuda.memory_allocated(DEVICE) <= before + 2**20
    assert torch.cuda.memory_reserved(DEVICE) <= MODEST


SEEN = """
import json, torch
print(json.dumps(dict(loss=torch.cuda.device_count())))
print("on", torch.cuda.get_device_properties(0).uuid, file=open("seen", "w"))
"""


def test_a_training_has_the_gpu_that_its_worker_was_given_by_a_part_of_its_uuid(
    study: Study, server: Server, processes: Processes, tmp_path: Path
) -> None:
    uuid = str(torch.cuda.get_device_properties(0).uuid)
    options = ["--study", study.id, "--target", server.target, "--gpus", f"GPU-{uuid[:13]}", "--max-trials", "1"]
    worker = processes.start([ASKTELL, "work", *options, "--", sys.executable, "-c", SEEN], cwd=tmp_path)
    assert worker.wait() == 0, worker.errors()
    assert study.get_trial(1).value("loss") == 1
    assert (tmp_path / "seen").read_text() == f"on {uuid}\n"


def suggest_and_break(request: SuggestRequest) -> Decision:
    """The decision, with the process's number for a hint; after that on trial 15 CUDA does nothing more for the process."""
    decision = registry.suggest(request)
    if request.next_number == 15:
        with suppress(RuntimeError):
            torch.ones(2, device=DEVICE)[torch.full((1,), 99, device=DEVICE)].cpu()
    return replace(decision, hint=str(os.getpid()).encode())


@pytest.mark.parametrize("workers", [1, 2])
async def test_processes_for_which_cuda_is_broken_answer_by_the_cpu_and_are_replaced(workers: int) -> None:
    engine = ProcessPoolEngine(workers=workers, compute=suggest_and_break, torch_device=DEVICE)
    request = in_the_midst(SPACES["numbers"])
    rounds = []
    try:
        for number in (15, 16, 17):
            asks = [engine.suggest(replace(request, next_number=number)) for _ in range(workers)]
            rounds.append(await asyncio.gather(*asks))
    finally:
        await engine.close()
    for number, decisions in enumerate(rounds, 15):
        for decision in decisions:
            (candidate,) = decision.candidates
            assert candidate.origin.acquisition is not None
            excuse = f"the CPU computed, as the computation on {DEVICE} failed: " if number == 16 else ""
            assert candidate.origin.fallback.startswith(excuse)
            assert bool(candidate.origin.fallback) == bool(excuse)
    first, second, third = ({decision.hint for decision in decisions} for decisions in rounds)
    assert first == second
    assert len(first) == len(third) == workers
    assert not first & third
