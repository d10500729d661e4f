"""Ask/tell adapters of the systems that a user could pick. Each runs in an environment that has its library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from benchmarks.problem import Configuration, Outcome, Problem


class Peer(Protocol):
    """One optimisation under way."""

    def ask(self) -> tuple[Any, dict[str, Any]]:
        """A token of the peer's own, and a configuration. There may be several asks before their tells."""

    def tell(self, token: Any, configuration: Configuration, outcome: Outcome) -> None:
        """The outcome of the configuration that came with the token."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a peer is: the module and name of its class, and its environment, empty if it is this project's own."""

    module: str
    name: str
    environment: str = ""

    def load(self) -> Callable[[Problem, int], Peer]:
        """What starts an optimisation of a problem with a seed. ImportError where the library is not installed."""
        start: Callable[[Problem, int], Peer] = getattr(import_module(f"benchmarks.peers.{self.module}"), self.name)
        return start


ASKTELL = "asktell"
PEERS: Mapping[str, Entry] = {
    ASKTELL: Entry("served", "Served"),
    "random": Entry("random_search", "RandomSearch"),
    "optuna_tpe": Entry("optuna_samplers", "Tpe", environment="optuna-ax"),
    "optuna_gp": Entry("optuna_samplers", "GaussianProcess", environment="optuna-ax"),
    "optuna_nsga2": Entry("optuna_samplers", "Nsga2", environment="optuna-ax"),
    "ax": Entry("ax_client", "Ax", environment="optuna-ax"),
    "hebo": Entry("hebo_optimizer", "Hebo", environment="hebo"),
}
