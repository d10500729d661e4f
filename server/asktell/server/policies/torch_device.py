"""The torch device that this process computes on: a setting of the server, which its processes are told when they start."""

from __future__ import annotations

import subprocess
import sys

CPU = "cpu"
_PROBE = "import sys, torch; torch.ones(2, 2, dtype=torch.float64, device=sys.argv[1]).cholesky_inverse().cpu()"
_PROBE_LIMIT = 120.0
_chosen = [CPU]
_lost: list[str] = []


class UnusableDevice(Exception):
    """torch cannot compute on the device."""


def use(device: str) -> None:
    """Let later decisions of this process be computed on the device."""
    _chosen[:] = [device]
    _lost.clear()


def chosen() -> str:
    """The device in use."""
    return _chosen[0]


def lose() -> None:
    """Note that the device, which has computed in this process, does nothing more for it. Another process may have more luck."""
    _lost.append(chosen())


def lost() -> bool:
    """Whether the device in use does nothing more for this process."""
    return bool(_lost)


def check(device: str) -> None:
    """Raise UnusableDevice unless torch can compute on the device, in double precision. The CPU is not tried.

    A process of its own tries it, because torch takes memory that a server has no other use for.
    """
    if device == CPU:
        return
    try:
        subprocess.run(  # noqa: S603 - the value is an argument of a fixed program
            [sys.executable, "-c", _PROBE, device], check=True, capture_output=True, text=True, timeout=_PROBE_LIMIT
        )
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip() or f"exit status {error.returncode}").splitlines()[-1]
        raise UnusableDevice(
            f"--torch-device (ASKTELL_TORCH_DEVICE) is {device!r}, where torch cannot compute: {reason}"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise UnusableDevice(
            f"--torch-device (ASKTELL_TORCH_DEVICE) is {device!r}, where torch cannot compute: no answer in {_PROBE_LIMIT:g} s"
        ) from error
