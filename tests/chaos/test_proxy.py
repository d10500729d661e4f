"""The proxy loses what it counts, in the dangerous window: the work is done and the client does not know."""

from __future__ import annotations

from grpc import RpcError

from asktell.v1 import trial_service_pb2 as trials
from tests.chaos.proxy import LossyProxy
from tests.processes import Processes
from tests.wire import Wire, small_study

CALLS = 60


def test_a_lost_reply_is_one_of_work_that_was_done(processes: Processes, sqlite_file: str) -> None:
    server = processes.serve(sqlite_file)
    with Wire(server.target) as direct, LossyProxy(server.port, share=1, seed=1) as proxy:
        study = direct.create("lost", small_study()).name
        with Wire(proxy.target) as wire:
            for index in range(3):
                request = trials.AskRequest(parent=study, worker_id="w", request_id=f"id-{index}")
                try:
                    wire.call("Ask", request)
                except RpcError:
                    assert len(direct.all_trials(study)) == index + 1
                else:
                    raise AssertionError("the reply was not lost")
        assert (proxy.replies, proxy.lost) == (3, 3)


def test_a_share_of_the_replies_is_lost_and_each_call_still_happens_once(
    processes: Processes, sqlite_file: str
) -> None:
    server = processes.serve(sqlite_file)
    with Wire(server.target) as direct, LossyProxy(server.port, share=0.2, seed=1) as proxy:
        study = direct.create("share", small_study()).name
        with Wire(proxy.target, wait=True) as wire:
            for index in range(CALLS):
                request = trials.AskRequest(parent=study, worker_id="w", request_id=f"id-{index}")
                assert [trial.number for trial in wire.surely("Ask", request).trials] == [index + 1]
        assert proxy.lost > 0
        assert proxy.replies == CALLS + proxy.lost
        assert len(direct.all_trials(study)) == CALLS
