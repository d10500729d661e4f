"""The policy `gp-botorch` on a GPU, in processes of a server. `make test-gpu` runs it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pynvml
import pytest
import torch

from asktell.client import Client, Float, Minimize, Origin, Study
from asktell.server.domain.policy import Decision, SuggestRequest
from asktell.server.policies import registry
from asktell.server.policies.engine import ProcessPoolEngine
from tests.processes import ASKTELL, Processes, Server
from tests.unit.test_policies_gp_botorch import SPACES
from tests.unit.test_policies_gp_botorch import study as in_the_midst

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]

DEVICE = "cuda:0"
TOO_LITTLE = 2**27
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


def asked(study: Study, times: int) -> list[Origin]:
    """The origins of trials, one after another, each told."""
    origins = []
    for _ in range(times):
        (trial,) = study.ask()
        trial.tell(loss=(trial.parameters["x"] - 3) ** 2 + trial.parameters["y"])
        origins.append(trial.origin)
    return origins


def on_gpu() -> set[int]:
    """Processes that hold memory of the first GPU."""
    pynvml.nvmlInit()
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        return {process.pid for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)}
    finally:
        pynvml.nvmlShutdown()


def test_a_server_chooses_on_its_gpu(study: Study, server: Server) -> None:
    origins = asked(study, 15)
    assert [origin.fallback for origin in origins] == [""] * 15
    assert sum(origin.acquisition is not None for origin in origins) >= 5
    assert study.best_trial.value("loss") < 1
    children = psutil.Process(server.pid).children(recursive=True)
    assert {child.pid for child in children} & on_gpu()


@contextmanager
def crowded() -> Iterator[Callable[[], None]]:
    """The GPU's memory taken, but for what is too little for a model; what others have given back since then is taken when called."""
    taken = []

    def take() -> None:
        free, _ = torch.cuda.mem_get_info(0)
        if free > TOO_LITTLE:
            taken.append(torch.empty(free - TOO_LITTLE, dtype=torch.uint8, device=DEVICE))

    take()
    yield take
    taken.clear()
    torch.cuda.empty_cache()


def test_while_others_have_all_of_its_memory_the_cpu_computes(study: Study) -> None:
    asked(study, 4)
    with crowded() as take:
        origins = []
        for _ in range(10):
            take()
            origins += asked(study, 1)
    modelled = [origin for origin in origins if origin.acquisition is not None]
    assert len(modelled) >= 3
    assert all(origin.fallback.startswith(f"{DEVICE} failed, so the CPU computed: ") for origin in modelled)
    assert [origin.fallback for origin in asked(study, 2)] == ["", ""]


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
    """The decision; after that on trial 15 CUDA does nothing more for the process."""
    decision = registry.suggest(request)
    if request.next_number == 15:
        try:
            torch.ones(2, device=DEVICE)[torch.full((1,), 99, device=DEVICE)].cpu()
        except RuntimeError:
            pass
    return decision


async def test_a_process_for_which_cuda_is_broken_is_replaced_and_the_ask_has_its_choice() -> None:
    engine = ProcessPoolEngine(workers=1, compute=suggest_and_break, torch_device=DEVICE)
    request = in_the_midst(SPACES["numbers"])
    try:
        first = await engine.suggest(request)
        second = await engine.suggest(replace(request, next_number=16))
    finally:
        await engine.close()
    for decision in (first, second):
        (candidate,) = decision.candidates
        assert (candidate.origin.policy, candidate.origin.fallback) == ("gp-botorch", "")
        assert candidate.origin.acquisition is not None
