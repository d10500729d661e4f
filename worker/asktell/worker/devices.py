"""Which GPUs there are for trials, by the names under which a training is shown them.

A name is what CUDA_VISIBLE_DEVICES takes: the number of a GPU in the order of the PCI bus, as nvidia-smi counts, or a UUID
(`GPU-…`, or `MIG-…` for an instance of a GPU that is partitioned). What the worker itself is shown by such a variable is all that it gives on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

CUDA, HIP, ROCR = "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"

_NAME = re.compile(r"\d+|(GPU|MIG)-[\w/-]+")


class NoSuchGpu(ValueError):
    """The GPUs that were named are not there, or not for this worker."""


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU of this machine; `instances` are the UUIDs of its MIG instances, if it is partitioned."""

    number: int
    uuid: str = ""
    instances: tuple[str, ...] = ()

    @property
    def devices(self) -> tuple[str, ...]:
        """The names of what a training can have of it."""
        return self.instances or (str(self.number),)

    def is_called(self, name: str) -> bool:
        """Whether it goes by this name; a UUID may be cut short, as CUDA has it."""
        return name == str(self.number) or (not name.isdigit() and self.uuid.startswith(name))


@dataclass(frozen=True, slots=True)
class Cards:
    """All GPUs that the driver shows, and the variables by which trainings are shown a part of them."""

    cards: tuple[Card, ...] = ()
    variables: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Devices:
    """The GPUs for trials.

    Attributes:
        names: What they are called, in order; empty for none.
        variables: The environment variables that name them to a training; empty to leave a training's environment as it is.
        numbered: Whether numbers among the names count along the PCI bus, which CUDA is to be told.
    """

    names: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    numbered: bool = False


def find(choice: str, environment: Mapping[str, str]) -> Devices:
    """The GPUs for trials: `auto` for all that are visible, `none`, or names separated by commas. NoSuchGpu for names that are not there."""
    return select(choice, environment, detect)


def select(choice: str, environment: Mapping[str, str], detect: Callable[[], Cards]) -> Devices:
    """As `find`, on a machine that `detect` describes; it is only called where the answer depends on it."""
    shown = _shown(environment)
    if choice == "none":
        return Devices((), (shown[0],) if shown else (CUDA, HIP))
    if choice != "auto":
        return _chosen(_parse(choice), shown, detect())
    if shown is not None:
        return Devices(shown[1], shown[:1])
    found = detect()
    names = tuple(name for card in found.cards for name in card.devices)
    return Devices(names, found.variables if names else (), numbered=True)


def _shown(environment: Mapping[str, str]) -> tuple[str, tuple[str, ...]] | None:
    """The variable that restricts this process, and the names in it: up to the first that is none, as CUDA reads them."""
    for variable in (CUDA, HIP, ROCR):
        if variable in environment:
            names = [name.strip() for name in environment[variable].split(",")]
            valid = next((place for place, name in enumerate(names) if not _NAME.fullmatch(name)), len(names))
            return variable, tuple(_once(names[:valid], f"{variable}={environment[variable]}"))
    return None


def _parse(choice: str) -> list[str]:
    names = [name.strip() for name in choice.split(",")]
    for name in names:
        if not _NAME.fullmatch(name):
            raise NoSuchGpu(f"--gpus {choice}: {name!r} is neither auto nor none, nor the number or the UUID of a GPU")
    return _once(names, f"--gpus {choice}")


def _once(names: Sequence[str], where: str) -> list[str]:
    twice = [name for place, name in enumerate(names) if name in names[:place]]
    if twice:
        raise NoSuchGpu(f"{where} names {twice[0]} twice")
    return list(names)


def _chosen(names: Sequence[str], shown: tuple[str, tuple[str, ...]] | None, found: Cards) -> Devices:
    if shown is not None:
        variable, allowed = shown
        for name in names:
            if not any(_same(name, other, found.cards) for other in allowed):
                raise NoSuchGpu(f"GPU {name} is not among those of {variable}: {', '.join(allowed) or 'none'}")
        return Devices(tuple(names), (variable,), numbered=variable == CUDA and not set(names) <= set(allowed))
    if not found.cards:
        listed = ",".join(names)
        raise NoSuchGpu(
            f"--gpus {listed}: there is no GPU here, by NVIDIA's driver and AMD's amdsmi; where they are wrong, start the worker with"
            f" {CUDA}={listed}, or {HIP}={listed}, which is taken at its word"
        )
    return Devices(tuple(_once(list(_known(names, found.cards)), "--gpus")), found.variables, numbered=True)


def _known(names: Iterable[str], cards: Sequence[Card]) -> Iterable[str]:
    """The names, each that of a device; a card that is partitioned stands for all of its instances."""
    there = ", ".join(name for card in cards for name in card.devices)
    for name in names:
        if any(name in card.instances for card in cards):
            yield name
            continue
        card = next((card for card in cards if card.is_called(name)), None)
        if card is None:
            raise NoSuchGpu(f"there is no GPU {name}: there are {there}")
        yield from card.instances or (name,)


def _same(name: str, other: str, cards: Sequence[Card]) -> bool:
    """Whether two names are one device's."""
    return name == other or any(card.is_called(name) and card.is_called(other) for card in cards)


def detect() -> Cards:
    """The GPUs of this machine, by the library of their driver; none where there is none."""
    if cards := _nvidia():
        return Cards(cards, (CUDA,))
    if cards := _amd():
        return Cards(cards, (HIP,))
    return Cards()


def _nvidia() -> tuple[Card, ...]:
    import pynvml  # noqa: PLC0415 - only who asks for GPUs waits for it.

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        return tuple(_nvidia_card(number) for number in range(pynvml.nvmlDeviceGetCount()))
    except pynvml.NVMLError as error:
        raise NoSuchGpu(f"NVIDIA's driver does not say which GPUs there are: {error}; name them with --gpus") from error
    finally:
        pynvml.nvmlShutdown()


def _nvidia_card(number: int) -> Card:
    import pynvml  # noqa: PLC0415

    handle = pynvml.nvmlDeviceGetHandleByIndex(number)
    return Card(number, str(pynvml.nvmlDeviceGetUUID(handle)), tuple(_mig(handle)))


def _mig(handle: object) -> Iterable[str]:
    """UUIDs of the MIG instances; most GPUs cannot be partitioned, which the driver says by an error."""
    import pynvml  # noqa: PLC0415

    try:
        enabled, _ = pynvml.nvmlDeviceGetMigMode(handle)
        places = pynvml.nvmlDeviceGetMaxMigDeviceCount(handle) if enabled else 0
    except pynvml.NVMLError:
        return
    for place in range(places):
        try:
            instance = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place)
        except pynvml.NVMLError:
            # Nothing at this place.
            continue
        yield str(pynvml.nvmlDeviceGetUUID(instance))


def _amd() -> tuple[Card, ...]:
    """By amdsmi, which comes with ROCm and not from an index of packages. HIP has UUIDs of its own kind, so the numbers do."""
    try:
        import amdsmi  # noqa: PLC0415

        amdsmi.amdsmi_init()
    except Exception:  # noqa: BLE001 - it raises whatever befalls it where there is no such driver.
        return ()
    try:
        return tuple(Card(number) for number, _ in enumerate(amdsmi.amdsmi_get_processor_handles()))
    finally:
        amdsmi.amdsmi_shut_down()
