"""A machine shared out: which GPUs and how many CPUs each trial has, of those that run side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from asktell.worker.devices import CUDA, ORDER, Devices

THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "LOKY_MAX_CPU_COUNT",
)
"""How libraries are told how many CPUs to use; the last one is joblib's and scikit-learn's."""


class Unshareable(ValueError):
    """So many GPUs cannot be shared by so many slots."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for one trial at a time.

    Attributes:
        index: 1, 2, 3 and so on in its worker.
        gpus: Names of its GPUs; those of several slots may be the same.
        cpus: How many CPUs its trials should use; None for as many as they like.
    """

    index: int
    gpus: tuple[str, ...] = ()
    cpus: int | None = None


def share(gpus: Sequence[str], *, slots: int | None, cpus_per_trial: int | None, usable_cpus: int) -> tuple[Slot, ...]:
    """Share GPUs and CPUs out; by default a slot a GPU, or one slot where there is none.

    A slot that is alone has all CPUs, so nothing is said of them. Raises Unshareable unless each GPU has as many slots as every other, or
    each slot as many GPUs.
    """
    count = slots or max(len(gpus), 1)
    cpus = cpus_per_trial or (max(usable_cpus // count, 1) if count > 1 else None)
    return tuple(Slot(index, _part(gpus, index - 1, count), cpus) for index in range(1, count + 1))


def _part(gpus: Sequence[str], place: int, slots: int) -> tuple[str, ...]:
    if not gpus:
        return ()
    if slots % len(gpus) == 0:
        # Side by side, so that the first slots to have a trial do not crowd on one GPU.
        return (gpus[place % len(gpus)],)
    if len(gpus) % slots == 0:
        each = len(gpus) // slots
        return tuple(gpus[place * each : (place + 1) * each])
    fitting = [count for count in range(1, 2 * len(gpus) + 1) if count % len(gpus) == 0 or len(gpus) % count == 0]
    raise Unshareable(
        f"{slots} slots cannot have {len(gpus)} GPUs ({', '.join(gpus)}) in equal parts: take --slots "
        f"{', '.join(map(str, fitting[:-1]))} or {fitting[-1]}, or name other GPUs with --gpus"
    )


def variables(slot: Slot, devices: Devices, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment variables of a slot's trials, besides those in `environment`: those for CPUs that are there already stand."""
    names = ",".join(slot.gpus)
    found = {"ASKTELL_SLOT": str(slot.index), "ASKTELL_GPUS": names, **dict.fromkeys(devices.variables, names)}
    if devices.numbered and CUDA in devices.variables and ORDER not in environment:
        found[ORDER] = "PCI_BUS_ID"
    if slot.cpus is not None:
        found.update({name: str(slot.cpus) for name in THREADS if name not in environment})
    return found


def usable_cpus() -> int:
    """The CPUs that this process may use, by its affinity and the limits of its container; 1 or more."""
    from loky import cpu_count  # noqa: PLC0415 - only who shares CPUs waits for it.

    return int(cpu_count())
