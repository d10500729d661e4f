"""The engine's processes: killed, stuck, busy, and the answers that come all the same."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest
import uvloop

from asktell.server.domain.metric import Goal, MetricValue, Objective
from asktell.server.domain.policy import Decision, Observation, SuggestRequest
from asktell.server.domain.space import Float, SearchSpace
from asktell.server.domain.trial import TrialState
from asktell.server.policies import child, registry, torch_device
from asktell.server.policies.engine import ProcessPoolEngine
from asktell.server.policies.worker import Worker

SPACE = SearchSpace((Float(name="x", low=0.0, high=1.0), Float(name="y", low=0.0, high=1.0)))
FIRST = SuggestRequest(
    space=SPACE, objectives=(Objective("cost", Goal.MINIMIZE),), policy="auto", seed=1, count=1, next_number=1
)
LATER = replace(
    FIRST,
    next_number=9,
    observations=tuple(
        Observation(number, TrialState.SUCCEEDED, {"x": number / 9, "y": 0.5}, {"cost": MetricValue(number % 5)})
        for number in range(1, 9)
    ),
)
DOOMED = replace(LATER, seed=666)


@asynccontextmanager
async def engine(compute=registry.suggest, **options):
    made = ProcessPoolEngine(compute=compute, **{"workers": 1, **options})
    try:
        yield made
    finally:
        await made.close()


def hanging(fifo: Path, *, times: int):
    """A computation that, for a doomed request, tells its process id through the fifo and then never ends, the first `times` times."""
    fifo.with_suffix(".count").write_text("0")
    return partial(hang, fifo, times)


def hang(fifo: Path, times: int, request: SuggestRequest) -> Decision:
    count = fifo.with_suffix(".count")
    if request.seed == 666:
        hung = int(count.read_text())
        if hung < times:
            count.write_text(str(hung + 1))
            fifo.write_text(f"{os.getpid()}\n")
            signal.pause()
    return registry.suggest(request)


class Unsendable(Exception):
    def __init__(self, number: int, more: str) -> None:
        super().__init__(f"{number} and {more}")


def chatty(request: SuggestRequest) -> Decision:
    print("nobody reads this", flush=True)
    return registry.suggest(request)


def refuse(request: SuggestRequest) -> Decision:
    raise ValueError(f"number {request.next_number}")


def refuse_oddly(request: SuggestRequest) -> Decision:
    raise Unsendable(request.next_number, "more")


def die(_request: SuggestRequest) -> Decision:
    os._exit(3)


@pytest.fixture
def fifo(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def pass_time(seconds: float) -> None:
    """Let the event loop's clock, by which computations end, go on by so much at once: it takes nobody that long, and nobody is late."""
    loop = asyncio.get_running_loop()
    loop.time = partial(later, loop.time, seconds)


def later(clock, seconds: float) -> float:
    return clock() + seconds


async def told_pid(fifo: Path) -> int:
    return int(await asyncio.to_thread(fifo.read_text))


def only(decision: Decision):
    (candidate,) = decision.candidates
    return candidate


async def test_the_first_ask_starts_no_process_and_warms_one_up_for_later():
    async with engine() as running:
        first = only(await running.suggest(FIRST))
        assert first.parameters == {"x": 0.5, "y": 0.5}
        await running.warm_up()
        later = only(await running.suggest(LATER))
        assert later.origin.method == "acquisition"
        assert not later.origin.fallback
        assert later.parameters == only(registry.suggest(LATER)).parameters
    assert "auto" in running.policies()


async def test_the_event_loop_goes_on_while_a_process_starts_and_computes():
    async with engine() as running:
        asked = asyncio.create_task(running.suggest(LATER))
        turns = 0
        while not asked.done():
            await asyncio.sleep(0)
            turns += 1
        assert not only(await asked).origin.fallback
        assert turns > 1_000


async def test_a_process_killed_in_the_midst_is_replaced_and_the_ask_repeated(fifo):
    async with engine(hanging(fifo, times=1)) as running:
        asked = asyncio.create_task(running.suggest(DOOMED))
        os.kill(await told_pid(fifo), signal.SIGKILL)
        candidate = only(await asked)
        assert candidate.origin.method == "acquisition"
        assert not candidate.origin.fallback


async def test_a_request_that_kills_twice_is_answered_by_chance(fifo):
    async with engine(hanging(fifo, times=2)) as running:
        asked = asyncio.create_task(running.suggest(DOOMED))
        for _ in range(2):
            os.kill(await told_pid(fifo), signal.SIGKILL)
        candidate = only(await asked)
        assert (candidate.origin.policy, candidate.origin.method) == ("gp", "random")
        assert "died 2 times" in candidate.origin.fallback
        assert SPACE.check(candidate.parameters)
        assert not only(await running.suggest(LATER)).origin.fallback


def test_a_process_that_died_while_idle_is_replaced_at_the_next_ask_on_the_servers_event_loop():
    async def ask_after_death() -> Decision:
        async with engine() as running:
            before = set(psutil.Process().children())
            await running.warm_up()
            (idle,) = set(psutil.Process().children()) - before
            idle.kill()
            # Until the event loop has taken in the end of it, which nobody else may do.
            while psutil.pid_exists(idle.pid):
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            return await running.suggest(LATER)

    assert not only(uvloop.run(ask_after_death())).origin.fallback


def lose_the_device(request: SuggestRequest) -> Decision:
    """A computation after which nothing can be computed on the device."""
    torch_device.lose()
    return replace(registry.suggest(request), hint=str(os.getpid()).encode())


@pytest.mark.parametrize("workers", [1, 2])
async def test_processes_that_lose_their_device_give_their_answers_and_are_replaced(workers):
    async with engine(lose_the_device, workers=workers) as running:
        rounds = [await asyncio.gather(*(running.suggest(LATER) for _ in range(workers))) for _ in range(2)]
    decisions = [decision for each in rounds for decision in each]
    for decision in decisions:
        assert (only(decision).origin.method, only(decision).origin.fallback) == ("acquisition", "")
    assert len({decision.hint for decision in decisions}) == 2 * workers


async def test_a_process_that_dies_of_an_import_is_replaced_for_the_next_ask(monkeypatch, tmp_path):
    module = tmp_path / "needed_module.py"
    module.write_text("import os\nos._exit(9)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "modules", lambda _: [module.stem])
    async with engine() as running:
        assert "died 2 times" in only(await running.suggest(LATER)).origin.fallback
        module.write_text("")
        assert not only(await running.suggest(LATER)).origin.fallback


async def test_an_import_that_failed_is_tried_again(monkeypatch, tmp_path):
    module = tmp_path / "not_there_yet.py"
    worker = Worker(registry.suggest, start_limit=60.0)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        await worker.start()
        with pytest.raises(ModuleNotFoundError):
            await worker.load(module.stem)
        await worker.loaded()
        module.write_text("")
        await worker.load(module.stem)
    finally:
        await worker.close()


async def test_a_stuck_computation_is_given_up_and_its_process_ended(fifo):
    async with engine(hanging(fifo, times=1), grace=0.2) as running:
        await running.warm_up()
        asked = asyncio.create_task(running.suggest(replace(DOOMED, time_limit=60.0)))
        stuck = psutil.Process(await told_pid(fifo))
        pass_time(60.0)
        candidate = only(await asked)
        assert candidate.origin.method == "random"
        assert candidate.origin.fallback == "the computation did not end within 60 s"
        await asyncio.to_thread(stuck.wait, 10)
        assert not only(await running.suggest(LATER)).origin.fallback


async def test_an_ask_behind_a_long_computation_gets_an_answer_in_its_own_time(fifo):
    async with engine(hanging(fifo, times=1), grace=0.2) as running:
        await running.warm_up()
        hung = asyncio.create_task(running.suggest(replace(DOOMED, time_limit=60.0)))
        await told_pid(fifo)
        candidate = only(await running.suggest(replace(LATER, time_limit=0.2)))
        assert not hung.done()
        assert candidate.origin.fallback == "none of 1 processes was free within 0.2 s"
        pass_time(60.0)
        await hung


async def test_an_asker_that_goes_away_leaves_no_process_in_use(fifo):
    async with engine() as running:
        await running.warm_up()
        gone = asyncio.create_task(running.suggest(LATER))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert gone.cancelled()
        assert not only(await running.suggest(LATER)).origin.fallback


async def test_a_process_that_cannot_start_costs_a_random_answer_and_no_error():
    async with engine(die) as running:
        candidate = only(await running.suggest(LATER))
        assert candidate.origin.method == "random"
        assert "died 2 times" in candidate.origin.fallback


async def test_no_time_at_all_still_gives_a_candidate():
    async with engine() as running:
        candidate = only(await running.suggest(replace(LATER, time_limit=0.0)))
        assert candidate.origin.method == "random"
        assert candidate.origin.fallback


async def test_an_engine_is_one_process_and_closing_leaves_none_behind():
    before = set(psutil.Process().children())
    async with engine() as running:
        await running.warm_up()
        (worker,) = set(psutil.Process().children()) - before
        assert child.__name__ in worker.cmdline()
        assert os.getpgid(worker.pid) != os.getpgid(0), "Ctrl-C in the terminal reaches the server alone"
    await asyncio.to_thread(worker.wait, 10)


async def test_errors_come_back_even_those_that_cannot_be_sent_and_prints_do_no_harm(capfd):
    worker = Worker(registry.suggest, start_limit=60.0)
    try:
        await worker.start()
        assert only(await worker.run(chatty, LATER)).origin.method == "acquisition"
        with pytest.raises(ValueError, match="number 9"):
            await worker.run(refuse, LATER)
        with pytest.raises(RuntimeError, match=r"^Unsendable: 9 and more$"):
            await worker.run(refuse_oddly, LATER)
    finally:
        await worker.close()
    assert "nobody reads this" in capfd.readouterr().err


async def test_slow_quick_policies_hold_up_neither_other_threads_nor_the_close(monkeypatch):
    begun, free = threading.Semaphore(0), threading.Event()

    def slow(request: SuggestRequest) -> Decision:
        begun.release()
        free.wait()
        return Decision(())

    monkeypatch.setattr(registry, "suggest", slow)
    try:
        async with engine() as running:
            asked = [asyncio.create_task(running.suggest(replace(FIRST, policy="random"))) for _ in range(64)]
            await asyncio.to_thread(begun.acquire)
            assert await asyncio.to_thread(lambda: "free") == "free"
        assert not free.is_set()
        # They wait for a thread that computes, or were never begun.
        assert sum(task.done() for task in asked) >= 60
    finally:
        free.set()
        await asyncio.gather(*asked, return_exceptions=True)


async def test_what_nobody_waits_for_is_computed_by_an_idle_process_alone_and_only_where_a_model_takes_time(fifo):
    async with engine(hanging(fifo, times=1)) as made:
        assert await made.suggest_ahead(FIRST) is None, "an initial design takes no time to speak of"
        ahead = await made.suggest_ahead(LATER)
        assert only(ahead).parameters == only(await made.suggest(LATER)).parameters
        stuck = asyncio.create_task(made.suggest(DOOMED))
        pid = await told_pid(fifo)
        assert await made.suggest_ahead(LATER) is None, "the one process is busy"
        os.kill(pid, signal.SIGKILL)
        assert len((await stuck).candidates) == 1
