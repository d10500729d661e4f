"""Models that are sharded by FSDP, in one process; `test_frameworks_ranks.py` has two that are killed and stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

from asktell import client as at
from asktell.integrations.pytorch import Loop
from tests.trainings import WorkersTrial, on_each_device, one_thread  # noqa: F401 - a fixture.


@pytest.fixture(autouse=True, scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """This process as a group of its own."""
    place = tmp_path_factory.mktemp("group") / "store"
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(0)
    distributed.init_process_group(backend, init_method=place.as_uri(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


class Sharded:
    def __init__(self, learning_rate: float = 0.05, *, device: str = "cpu") -> None:
        self.device = device
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
        fully_shard(self.model, mesh=init_device_mesh(device, (1,)))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=learning_rate)

    def train(self, trial: WorkersTrial, epochs: int, *, dies_in: int = 0) -> list[int]:
        """The epochs that were begun; one that dies is never saved."""
        begun = []
        for epoch in Loop(trial, model=self.model, optimizer=self.optimizer).epochs(epochs):
            begun.append(epoch)
            self.optimizer.zero_grad()
            self.model(torch.ones(2, 4, device=self.device)).square().mean().backward()
            self.optimizer.step()
            if epoch == dies_in:
                break
        return begun

    @property
    def weights(self) -> list[torch.Tensor]:
        moments = [state["exp_avg_sq"] for state in self.optimizer.state.values()]
        return [each.detach().full_tensor() for each in [*self.model.parameters(), *moments]]


def equal(first: Sharded, second: Sharded) -> bool:
    return all(map(torch.equal, first.weights, second.weights))


@on_each_device
def test_a_sharded_training_goes_on_to_the_very_same_weights_and_keeps_its_last_state_alone(
    tmp_path: Path, device: str
) -> None:
    trial, (undisturbed, begun, resumed) = WorkersTrial(1, tmp_path / "a"), (Sharded(device=device) for _ in range(3))
    undisturbed.train(WorkersTrial(2, tmp_path / "b"), 5)
    assert begun.train(trial, 5, dies_in=3) == [1, 2, 3]
    # Of an epoch whose saving was broken off.
    (trial.checkpoint_dir / "shards-3").mkdir()
    assert resumed.train(trial, 5) == [3, 4, 5]
    assert equal(resumed, undisturbed)
    assert sorted(path.name for path in trial.checkpoint_dir.iterdir()) == ["loop.pt", "shards-5"]


def test_a_child_has_the_weights_of_its_parent_and_its_own_learning_rate(tmp_path: Path) -> None:
    parent, trained = WorkersTrial(1, tmp_path / "parent"), Sharded()
    trained.train(parent, 2)
    child = Sharded(learning_rate=0.5)
    assert child.train(parent.child(2, tmp_path / "child"), 2) == []
    assert equal(child, trained)
    assert child.optimizer.param_groups[0]["lr"] == 0.5


def test_a_state_that_is_not_sharded_is_no_state_of_a_sharded_model(tmp_path: Path) -> None:
    trial, whole = WorkersTrial(1, tmp_path), nn.Linear(4, 1)
    optimizer = torch.optim.Adam(whole.parameters())
    list(Loop(trial, model=whole, optimizer=optimizer).epochs(1))
    with pytest.raises(
        at.FailedPrecondition, match=r"has model, optimizer, but this training model \(sharded\), optimizer \(sharded\)"
    ):
        Sharded().train(trial, 2)


def test_a_sharded_optimizer_without_its_model_is_refused(tmp_path: Path) -> None:
    trial, sharded = WorkersTrial(1, tmp_path), Sharded()
    with pytest.raises(at.InvalidArgument, match="optimizer: has sharded parameters that are those of no other part"):
        Loop(trial, optimizer=sharded.optimizer)
    with pytest.raises(at.InvalidArgument, match="optimizer: has sharded parameters that are those of no other part"):
        Loop(trial, optimizer=sharded.optimizer, model=Sharded().model)


@pytest.mark.filterwarnings("ignore:FSDP is switching to use `NO_SHARD`")
def test_a_model_of_the_former_fsdp_is_refused(tmp_path: Path) -> None:
    model = FullyShardedDataParallel(nn.Linear(4, 1), device_id=torch.device("cpu"))
    with pytest.raises(at.InvalidArgument, match="model: is a FullyShardedDataParallel: shard it by"):
        Loop(WorkersTrial(1, tmp_path), model=model)
