"""Workers as actors of Ray: each holds its processors and GPUs, and one whose machine is lost is started anew elsewhere."""

from __future__ import annotations

import logging
import os
import socket
import time
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from asktell.worker.cluster.fleet import Fleet, Misplaced, Standing
from asktell.worker.cluster.placed import Farewell, Placed

NAMESPACE = "asktell"
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a lost actor is started anew, doubled with each loss of the same one."""
KNOCK_SECONDS = 10.0
THREADS = 3
"""Of an actor: one runs the worker, the others answer meanwhile."""

logger = logging.getLogger("asktell.worker")


@dataclass(slots=True)
class Seat:
    """One worker of the fleet, in one actor after another."""

    number: int
    actor: Any = None
    placed: Any = None
    farewell: Any = None
    losses: int = 0
    not_before: float = 0.0
    over: bool = False
    failure: str = ""

    @property
    def running(self) -> bool:
        """Whether the actor has been given a machine."""
        return self.actor is not None and bool(ray.wait([self.placed], timeout=0)[0])


@dataclass(slots=True)
class RayEngine:
    """Runs a fleet on a Ray cluster.

    The cluster's autoscaler sees actors that wait for room and brings machines for them. When this process ends, so do the actors.

    Attributes:
        address: `auto`, HOST:PORT or `ray://HOST:PORT` of a cluster, or `local` to start one on this machine.
        working_dir: A directory or archive that is sent to the machines; None if they see the fleet's directory themselves.
    """

    address: str = "auto"
    working_dir: str | None = None
    _fleet: Fleet | None = None
    _seats: list[Seat] = field(default_factory=list)
    _ended: bool = False

    def start(self, fleet: Fleet) -> None:
        """Ask for all actors at once."""
        _knock(self.address)
        try:
            ray.init(
                address=self.address,
                namespace=NAMESPACE,
                runtime_env={"working_dir": self.working_dir} if self.working_dir else None,
                logging_level=logging.WARNING,
                log_to_driver=False,
            )
        except Exception as error:
            raise Misplaced(f"Ray at {self.address}: {error}") from error
        self._fleet = fleet
        self._seats = [Seat(number) for number in range(1, fleet.workers + 1)]
        for seat in self._seats:
            self._place(seat, fleet)

    def _place(self, seat: Seat, fleet: Fleet) -> None:
        actor = ray.remote(Placed).options(
            name=f"{fleet.study}-{os.getpid()}-{seat.number}-{seat.losses}",
            num_cpus=fleet.cpus,
            num_gpus=fleet.gpus,
            max_concurrency=THREADS,
            max_restarts=0,
        )
        # What was sent is where the actor stands: Ray unpacks it and goes there.
        seat.actor = actor.remote(fleet.arguments, "." if self.working_dir else str(fleet.directory))
        seat.placed = seat.actor.__ray_ready__.remote()
        seat.farewell = seat.actor.run.remote()

    def standing(self) -> Standing:
        """Look at every actor; start those anew whose machine was lost."""
        for seat in self._seats:
            if not seat.over:
                self._look(seat)
        at_work = [seat for seat in self._seats if not seat.over]
        running = sum(seat.running for seat in at_work)
        failures = tuple(seat.failure for seat in self._seats if seat.failure)
        return Standing(
            waiting=len(at_work) - running,
            running=running,
            done=sum(seat.over and not seat.failure for seat in self._seats),
            failures=failures,
        )

    def _look(self, seat: Seat) -> None:
        if seat.actor is None:
            self._try_again(seat)
        elif ray.wait([seat.farewell], timeout=0)[0]:
            self._take_leave(seat)

    def _try_again(self, seat: Seat) -> None:
        if self._ended:
            seat.over = True
        elif self._fleet is not None and time.monotonic() >= seat.not_before:
            self._place(seat, self._fleet)

    def _take_leave(self, seat: Seat) -> None:
        try:
            farewell: Farewell = ray.get(seat.farewell)
        except RayActorError as error:
            if getattr(error, "actor_init_failed", False):
                self._fail(seat, str(error))
            else:
                self._lose(seat, error)
        except RayError as error:
            self._fail(seat, str(error))
        else:
            seat.over = True
            seat.failure = "" if farewell.status == 0 else f"exit status {farewell.status}: {farewell.words}"
            ray.kill(seat.actor)

    def _fail(self, seat: Seat, why: str) -> None:
        # An actor whose run raised would hold its processors and GPUs until the whole fleet ends.
        ray.kill(seat.actor)
        seat.over, seat.failure = True, why

    def _lose(self, seat: Seat, error: RayActorError) -> None:
        # One that was only out of reach must not go on beside its successor.
        ray.kill(seat.actor)
        seat.actor = None
        pause = min(FIRST_PAUSE * 2**seat.losses, LONGEST_PAUSE)
        seat.losses += 1
        seat.not_before = time.monotonic() + pause
        if not self._ended:
            logger.warning("worker %d was lost, another starts in %.3g s: %s", seat.number, pause, _first_line(error))

    def end(self) -> None:
        """Tell the workers to end, and withdraw the actors that wait; the second time, kill all."""
        for seat in self._seats:
            if seat.over or seat.actor is None:
                continue
            if self._ended or not seat.running:
                ray.kill(seat.actor)
                seat.over = True
            else:
                seat.actor.end.remote()
        self._ended = True

    def close(self) -> None:
        """Leave the cluster; actors that are left end."""
        ray.shutdown()


def _knock(address: str) -> None:
    """Misplaced if nobody listens at a given address: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_SECONDS):
            pass
    except OSError as error:
        raise Misplaced(f"no Ray at {address}: {error}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
