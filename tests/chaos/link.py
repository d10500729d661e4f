"""Two network namespaces and the line between them, on which packets can be lost.

The line is this process: it carries packets from one TUN device to the other, and leaves out as many as it is told to. That needs root, the
command `ip` and /dev/net/tun, but neither iptables nor netem. Nothing of it reaches the network of the machine.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import random
import select
import struct
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import ClassVar

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
DEVICE = "tun0"
LARGEST = 65_536


class CannotLink(Exception):
    """This machine makes no such namespaces; the message is why."""


@dataclass(slots=True)
class Link:
    """`loss` is the share of packets that are lost, 1 for a cut line; `with` makes the line and takes it away."""

    CLIENT: ClassVar[str] = "192.0.2.1"
    SERVER: ClassVar[str] = "192.0.2.2"
    seed: int = 0
    loss: float = 0.0
    dropped: int = 0
    carried: int = 0
    _ends: dict[str, int] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _line: threading.Thread | None = None

    def command(self, side: str, *command: str) -> list[str]:
        """The command as it runs on one side, `client` or `server`."""
        return ["ip", "netns", "exec", self._namespace(side), *command]

    def __enter__(self) -> Link:
        try:
            for side, address in (("client", self.CLIENT), ("server", self.SERVER)):
                self._make_side(side, address)
        except (CannotLink, OSError) as error:
            self._remove()
            raise CannotLink(str(error)) from error
        self._line = threading.Thread(target=self._carry, name="line", daemon=True)
        self._line.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._line is not None:
            self._line.join()
        self._remove()

    def _namespace(self, side: str) -> str:
        return f"asktell-{os.getpid()}-{side}"

    def _make_side(self, side: str, address: str) -> None:
        namespace = self._namespace(side)
        _ip("netns", "add", namespace)
        self._ends[side] = _open_tun(namespace)
        _ip("-n", namespace, "link", "set", "lo", "up")
        _ip("-n", namespace, "address", "add", f"{address}/30", "dev", DEVICE)
        _ip("-n", namespace, "link", "set", DEVICE, "up")

    def _remove(self) -> None:
        for side, end in self._ends.items():
            os.close(end)
            _ip("netns", "delete", self._namespace(side))
        self._ends.clear()

    def _carry(self) -> None:
        chance = random.Random(self.seed)
        client, server = self._ends["client"], self._ends["server"]
        other = {client: server, server: client}
        while not self._stop.is_set():
            for end in select.select(list(other), [], [], 0.1)[0]:
                packet = os.read(end, LARGEST)
                if chance.random() < self.loss:
                    self.dropped += 1
                else:
                    self.carried += 1
                    os.write(other[end], packet)


def _open_tun(namespace: str) -> int:
    """A TUN device inside a namespace. A thread of its own goes there: a namespace is entered by threads."""

    def enter_and_open() -> int:
        with Path("/run/netns", namespace).open() as place:
            if ctypes.CDLL(None, use_errno=True).setns(place.fileno(), CLONE_NEWNET):
                raise CannotLink(f"cannot enter a network namespace: {os.strerror(ctypes.get_errno())}")
        device = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
        return device

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(enter_and_open).result()


def _ip(*arguments: str) -> None:
    try:
        subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise CannotLink("there is no command `ip`") from error
    except subprocess.CalledProcessError as error:
        raise CannotLink(f"ip {' '.join(arguments)}: {error.stderr.strip()}") from error
