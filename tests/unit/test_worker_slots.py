"""Which GPUs a worker has and how its slots share them, on machines that are described; and what is found on this one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from asktell.worker import devices
from asktell.worker.devices import Card, Cards, Devices, NoSuchGpu, select
from asktell.worker.slots import THREADS, Slot, Unshareable, share, usable_cpus, variables

TWO = Cards((Card(0, "GPU-aaaa-1"), Card(1, "GPU-bbbb-2")), ("CUDA_VISIBLE_DEVICES",))
SLICED = Cards((Card(0, "GPU-aaaa-1", ("MIG-1", "MIG-2")), Card(1, "GPU-bbbb-2")), ("CUDA_VISIBLE_DEVICES",))
AMD = Cards((Card(0), Card(1)), ("HIP_VISIBLE_DEVICES",))


def names(choice: str, machine: Cards = TWO, **environment: str) -> tuple[str, ...]:
    return select(choice, environment, lambda: machine).names


def unasked() -> Cards:
    raise AssertionError("the driver need not be asked")


# Devices ------------------------------------------------------------------------------------------------------------


def test_all_gpus_are_for_trials_by_default_and_the_instances_of_one_that_is_partitioned() -> None:
    assert names("auto") == ("0", "1")
    assert names("auto", SLICED) == ("MIG-1", "MIG-2", "1")
    assert names("auto", Cards()) == ()


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ("1", ("1",)),
        (" 3 , 2 ", ("3", "2")),
        ("GPU-bbbb", ("GPU-bbbb",)),
        ("MIG-1,MIG-2", ("MIG-1", "MIG-2")),
        ("MIG-GPU-aaaa-1/7/0", ("MIG-GPU-aaaa-1/7/0",)),
        ("", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
        ("0,-1,1", ("0",)),
    ],
)
def test_what_the_worker_is_shown_it_shows_on_as_cuda_reads_it(shown: str, expected: tuple[str, ...]) -> None:
    found = select("auto", {"CUDA_VISIBLE_DEVICES": shown}, unasked)
    assert found == Devices(expected, ("CUDA_VISIBLE_DEVICES",))


def test_amds_variables_restrict_by_the_same_variable() -> None:
    assert select("auto", {"ROCR_VISIBLE_DEVICES": "2,3"}, unasked) == Devices(("2", "3"), ("ROCR_VISIBLE_DEVICES",))
    assert select("auto", {"HIP_VISIBLE_DEVICES": "1"}, unasked) == Devices(("1",), ("HIP_VISIBLE_DEVICES",))
    assert select("auto", {}, lambda: AMD) == Devices(("0", "1"), ("HIP_VISIBLE_DEVICES",), numbered=True)


def test_no_gpus_are_for_trials_where_none_are_wished() -> None:
    found = select("none", {}, unasked)
    assert variables(Slot(1), found, {}) == {
        "ASKTELL_SLOT": "1",
        "ASKTELL_GPUS": "",
        "CUDA_VISIBLE_DEVICES": "",
        "HIP_VISIBLE_DEVICES": "",
    }


def test_gpus_may_be_named_by_number_or_uuid() -> None:
    assert names("1") == ("1",)
    assert names("1, GPU-aaaa-1") == ("1", "GPU-aaaa-1")
    assert names("MIG-2", SLICED) == ("MIG-2",)
    assert names("0", SLICED) == ("MIG-1", "MIG-2")


def test_gpus_that_no_driver_shows_are_refused_unless_the_environment_names_them() -> None:
    with pytest.raises(NoSuchGpu) as refusal:
        names("0,1", Cards())
    assert str(refusal.value) == (
        "--gpus 0,1: there is no GPU here, by NVIDIA's driver and AMD's amdsmi; where they are wrong, start the worker with"
        " CUDA_VISIBLE_DEVICES=0,1, or HIP_VISIBLE_DEVICES=0,1, which is taken at its word"
    )
    assert names("0,1", Cards(), CUDA_VISIBLE_DEVICES="0,1") == ("0", "1")
    assert names("auto", Cards(), HIP_VISIBLE_DEVICES="0,1") == ("0", "1")


def test_gpus_may_be_named_only_among_those_that_are_shown() -> None:
    assert names("3", CUDA_VISIBLE_DEVICES="2,3") == ("3",)
    assert names("1", CUDA_VISIBLE_DEVICES="GPU-bbbb") == ("1",), "both are names of one GPU"
    with pytest.raises(NoSuchGpu, match="GPU 0 is not among those of CUDA_VISIBLE_DEVICES: GPU-bbbb"):
        names("0", CUDA_VISIBLE_DEVICES="GPU-bbbb")
    with pytest.raises(NoSuchGpu, match="GPU 1 is not among those of CUDA_VISIBLE_DEVICES: none"):
        names("1", CUDA_VISIBLE_DEVICES="")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("7", "there is no GPU 7: there are 0, 1"),
        ("GPU-cccc", "there is no GPU GPU-cccc: there are 0, 1"),
        ("0,0", "--gpus 0,0 names 0 twice"),
        ("all", "--gpus all: 'all' is neither auto nor none, nor the number or the UUID of a GPU"),
        ("0,", "--gpus 0,: '' is neither auto nor none, nor the number or the UUID of a GPU"),
        ("-1", "--gpus -1: '-1' is neither auto nor none, nor the number or the UUID of a GPU"),
    ],
)
def test_gpus_that_are_not_there_are_refused(choice: str, message: str) -> None:
    with pytest.raises(NoSuchGpu) as refusal:
        names(choice)
    assert str(refusal.value) == message


def test_this_machine_is_asked_for_its_gpus_and_has_what_its_drivers_say() -> None:
    shown = list(Path("/dev").glob("nvidia[0-9]*"))
    found = devices.detect()
    assert len(found.cards) == len(shown) or found.variables == ("HIP_VISIBLE_DEVICES",)


# Slots --------------------------------------------------------------------------------------------------------------


def shares(gpus: str, slots: int | None) -> list[str]:
    return ["".join(slot.gpus) for slot in share(tuple(gpus), slots=slots, cpus_per_trial=None, usable_cpus=8)]


@pytest.mark.parametrize(
    ("gpus", "slots", "expected"),
    [
        ("", None, [""]),
        ("", 3, ["", "", ""]),
        ("0", None, ["0"]),
        ("01", None, ["0", "1"]),
        ("01", 4, ["0", "1", "0", "1"]),
        ("0", 3, ["0", "0", "0"]),
        ("0123", 2, ["01", "23"]),
        ("0123", 1, ["0123"]),
    ],
)
def test_gpus_are_shared_in_equal_parts(gpus: str, slots: int | None, expected: list[str]) -> None:
    assert shares(gpus, slots) == expected


@pytest.mark.parametrize(("gpus", "slots"), [("01", 3), ("0123", 3), ("0123", 6), ("012", 2)])
def test_gpus_that_have_no_equal_parts_are_refused(gpus: str, slots: int) -> None:
    with pytest.raises(
        Unshareable, match=f"{slots} slots cannot have {len(gpus)} GPUs .* in equal parts: take --slots"
    ):
        shares(gpus, slots)


def test_the_refusal_names_the_numbers_of_slots_that_fit() -> None:
    with pytest.raises(Unshareable, match=r"take --slots 1, 2, 4 or 8, or name other GPUs with --gpus$"):
        shares("0123", 3)


@pytest.mark.parametrize(("slots", "usable", "wished", "expected"), [
    (1, 8, None, None),
    (2, 8, None, 4),
    (3, 8, None, 2),
    (16, 8, None, 1),
    (1, 8, 3, 3),
    (4, 8, 8, 8),
])  # fmt: skip
def test_cpus_are_shared_out_among_several_slots(slots: int, usable: int, wished: int | None, expected: int) -> None:
    for slot in share((), slots=slots, cpus_per_trial=wished, usable_cpus=usable):
        assert slot.cpus == expected


def test_a_trial_is_shown_its_gpus_and_its_cpus() -> None:
    found = select("auto", {}, lambda: TWO)
    assert variables(Slot(2, ("1",), cpus=4), found, {"OMP_NUM_THREADS": "3"}) == {
        "ASKTELL_SLOT": "2",
        "ASKTELL_GPUS": "1",
        "CUDA_VISIBLE_DEVICES": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        **{name: "4" for name in THREADS if name != "OMP_NUM_THREADS"},
    }


def test_numbers_that_the_user_gave_keep_the_order_that_the_user_meant() -> None:
    inherited = {"CUDA_VISIBLE_DEVICES": "1,0"}
    assert "CUDA_DEVICE_ORDER" not in variables(Slot(1, ("1",)), select("auto", inherited, unasked), inherited)
    ordered = {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}
    assert "CUDA_DEVICE_ORDER" not in variables(Slot(1, ("1",)), select("auto", ordered, lambda: TWO), ordered)


def test_without_gpus_and_alone_a_trial_has_the_environment_of_its_worker() -> None:
    (alone,) = share((), slots=None, cpus_per_trial=None, usable_cpus=8)
    assert variables(alone, select("auto", {}, Cards), {}) == {"ASKTELL_SLOT": "1", "ASKTELL_GPUS": ""}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has an affinity to set")
def test_only_cpus_that_may_be_used_are_shared() -> None:
    one = str(min(os.sched_getaffinity(0)))
    program = "from asktell.worker.slots import usable_cpus; print(usable_cpus())"
    done = subprocess.run(
        ["taskset", "-c", one, sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "1"
    assert usable_cpus() >= 1
