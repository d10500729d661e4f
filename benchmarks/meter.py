"""What an optimiser takes: processor seconds and memory, of this process or of a server with its children."""

from __future__ import annotations

import re
import resource
import time
from pathlib import Path
from typing import Protocol

MIB = 2**20


class Meter(Protocol):
    """Reads what an optimiser has taken so far."""

    def cpu(self) -> float:
        """Processor seconds, of all threads."""

    def peak(self) -> int:
        """The most resident memory, in MiB."""


class OwnMeter:
    """Of this process."""

    def cpu(self) -> float:
        """Processor seconds, of all threads."""
        return time.process_time()

    def peak(self) -> int:
        """The most resident memory, in MiB."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


class ServerMeter:
    """Of a server's processes. The system counts their processor time in hundredths of a second: trust sums, not single asks."""

    def __init__(self, pid: int) -> None:
        import psutil  # noqa: PLC0415 - the peers' environments do without.

        self._server = psutil.Process(pid)
        self._gone = psutil.NoSuchProcess
        self._spent: dict[int, float] = {}
        self._most: dict[int, int] = {}

    def cpu(self) -> float:
        """Processor seconds of the server and of all children that were ever seen."""
        for process in self._processes():
            try:
                times = process.cpu_times()
            except self._gone:
                continue
            self._spent[process.pid] = times.user + times.system
        return sum(self._spent.values())

    def peak(self) -> int:
        """The sum of the most resident memory that each process ever had, in MiB: at least the most that they had at a time."""
        for process in self._processes():
            try:
                self._most[process.pid] = _high_water(process.pid) or process.memory_info().rss
            except self._gone:
                continue
        return sum(self._most.values()) // MIB

    def resident(self) -> int:
        """Resident memory now, in MiB; what processes share counts once for each."""
        return self._sum("rss")

    def proportional(self) -> int:
        """Memory now, in MiB; what processes share is divided among them (PSS)."""
        return self._sum("pss")

    def loads(self, library: str) -> bool:
        """Whether a process has a library in its memory."""
        return any(library in mapping.path for process in self._processes() for mapping in process.memory_maps())

    def _processes(self) -> list:  # type: ignore[type-arg]  # psutil.Process, which the peers' environments lack.
        return [self._server, *self._server.children(recursive=True)]

    def _sum(self, kind: str) -> int:
        total = 0
        for process in self._processes():
            try:
                total += getattr(process.memory_info() if kind == "rss" else process.memory_full_info(), kind)
            except self._gone:
                continue
        return total // MIB


def _high_water(pid: int) -> int:
    """The most resident memory of a process in bytes, as Linux keeps it; 0 elsewhere."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
