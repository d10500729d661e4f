"""A Slurm cluster of one machine, this one, on loopback: munged, slurmctld and slurmd as Debian ships them, without systemd. For root."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.ports import free_port
from tests.processes import PATIENCE, Process, Processes, until

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
# Nothing listens beyond loopback.
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1
# A requeued job starts again at once, not after two minutes.
KillWait=20
# Processors and GPUs that this machine need not have.
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(slots=True)
class Slurm:
    """Such a cluster; `environment` is what its commands need."""

    directory: Path
    processes: Processes
    daemons: list[Process] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.directory / "slurm.conf")}

    def start(self) -> None:
        """Start the daemons and return once the machine is idle."""
        self._write()
        where = self.directory
        names = {
            "key-file": "munge.key",
            "socket": "munge.socket",
            "pid-file": "pid",
            "log-file": "log",
            "seed-file": "seed",
        }
        self._start(
            ["munged", "--foreground", "--force", *(f"--{option}={where / name}" for option, name in names.items())]
        )
        until((where / "munge.socket").exists)
        self._start(["slurmctld", "-c", "-D"])
        self._start(["slurmd", "-D", "-N", socket.gethostname().partition(".")[0]])
        until(lambda: "idle" in self.run("sinfo", "--noheader", check=False))

    def _write(self) -> None:
        for name in ("state", "spool"):
            (self.directory / name).mkdir()
        key = self.directory / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        text = CONFIGURATION.format(
            host=socket.gethostname().partition(".")[0],
            controller=free_port(),
            daemon=free_port(),
            directory=self.directory,
        )
        (self.directory / "slurm.conf").write_text(text)
        (self.directory / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        (self.directory / "gres.conf").write_text("Name=gpu File=/dev/tty[0-1]\n")

    def _start(self, command: list[str]) -> None:
        self.daemons.append(self.processes.start(command, environment=self.environment))

    def run(self, *command: str, check: bool = True) -> str:
        """What a command of Slurm says."""
        done = subprocess.run(
            command,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=check,
            timeout=PATIENCE,
        )
        return done.stdout

    def tasks(self, job: str = "") -> dict[str, str]:
        """The states of all tasks by their ids, such as 5_1."""
        only = [f"--jobs={job}"] if job else []
        said = self.run("squeue", "--noheader", "--array", "--states=all", "--format=%F_%K %T", *only, check=False)
        return dict(line.split() for line in said.splitlines())

    def stop(self) -> None:
        """Cancel all jobs and end the daemons."""
        self.run("scancel", "--user=root", check=False)
        until_late(lambda: not {"RUNNING", "COMPLETING", "PENDING"} & set(self.tasks().values()))
        for daemon in reversed(self.daemons):
            daemon.terminate()
            daemon.wait()


def until_late(condition: Callable[[], bool]) -> None:
    """Wait for what should come true, but is not what the test is about."""
    end = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < end:
        time.sleep(0.2)
