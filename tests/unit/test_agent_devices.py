"""Which GPUs there are, and which of them a run gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from resweep_agent.devices import Places, find_devices, make_places
from resweep_agent.exitcodes import AgentError, ExitCode


def machine(root: Path, *, cards: int = 0, nodes: int = 0) -> Path:
    """A root folder in which NVIDIA's driver shows so many GPUs."""
    for card in range(cards):
        (root / f"proc/driver/nvidia/gpus/0000:0{card}:00.0").mkdir(parents=True)
    (root / "dev").mkdir()
    for name in ["null", *(["nvidiactl", "nvidia-uvm"] if nodes else []), *(f"nvidia{node}" for node in range(nodes))]:
        (root / "dev" / name).touch()
    return root


@pytest.mark.parametrize(
    ("environ", "variable", "names"),
    [
        ({"CUDA_VISIBLE_DEVICES": "2, 5,7"}, "CUDA_VISIBLE_DEVICES", ("2", "5", "7")),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8f,GPU-9a"}, "CUDA_VISIBLE_DEVICES", ("GPU-8f", "GPU-9a")),
        ({"CUDA_VISIBLE_DEVICES": "MIG-GPU-8f/1/0,MIG-77"}, "CUDA_VISIBLE_DEVICES", ("MIG-GPU-8f/1/0", "MIG-77")),
        ({"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES", ()),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, "CUDA_VISIBLE_DEVICES", ()),
        ({"CUDA_VISIBLE_DEVICES": "0,-1,1"}, "CUDA_VISIBLE_DEVICES", ("0",)),
        ({"ROCR_VISIBLE_DEVICES": "0,1"}, "ROCR_VISIBLE_DEVICES", ("0", "1")),
        ({"ROCR_VISIBLE_DEVICES": "0,1", "HIP_VISIBLE_DEVICES": "0"}, "HIP_VISIBLE_DEVICES", ("0",)),
        ({}, "CUDA_VISIBLE_DEVICES", ("0", "1", "2", "3")),
    ],
)
def test_the_environment_says_what_may_be_used_before_the_driver(
    tmp_path: Path, environ: dict[str, str], variable: str, names: tuple[str, ...]
) -> None:
    found = find_devices(environ, machine(tmp_path, cards=4, nodes=4))
    assert (found.variable, found.names) == (variable, names)


@pytest.mark.parametrize(
    ("cards", "nodes", "count"),
    [(0, 0, 0), (2, 0, 2), (0, 3, 3), pytest.param(8, 2, 2, id="container"), pytest.param(1, 8, 1, id="jail")],
)
def test_without_a_variable_the_driver_is_asked(tmp_path: Path, cards: int, nodes: int, count: int) -> None:
    assert len(find_devices({}, machine(tmp_path, cards=cards, nodes=nodes)).names) == count


@pytest.mark.parametrize(
    ("devices", "slots", "shares"),
    [
        ("0,1,2,3", 1, ()),
        ("0,1,2,3", None, ()),
        ("0,1,2,3", 2, ("0,1", "2,3")),
        ("0,1,2", 2, ("0", "1,2")),
        ("4,5", 4, ("4", "5", "4", "5")),
        ("GPU-a, GPU-b", 2, ("GPU-a", "GPU-b")),
        ("", 2, ()),
    ],
)
def test_slots_share_the_devices_evenly(devices: str, slots: int | None, shares: tuple[str, ...]) -> None:
    places = make_places(slots, None, {"CUDA_VISIBLE_DEVICES": devices})
    assert places == Places(slots or 1, "CUDA_VISIBLE_DEVICES", shares)


def test_slots_share_what_the_driver_shows_too(tmp_path: Path) -> None:
    assert make_places(2, None, {}, machine(tmp_path, cards=2, nodes=2)).shares == ("0", "1")


@pytest.mark.parametrize(
    ("devices", "slots", "per_run", "shares"),
    [
        ("0,1,2,3", None, 1, ("0", "1", "2", "3")),
        ("0,1,2,3", None, 2, ("0,1", "2,3")),
        ("0,1,2,3,4", None, 2, ("0,1", "2,3")),
        ("4,5,6,7", 1, 2, ("4,5",)),
        ("MIG-a,MIG-b,MIG-c", 3, 1, ("MIG-a", "MIG-b", "MIG-c")),
    ],
)
def test_each_run_gets_as_many_gpus_as_asked_for(
    devices: str, slots: int | None, per_run: int, shares: tuple[str, ...]
) -> None:
    places = make_places(slots, per_run, {"CUDA_VISIBLE_DEVICES": devices})
    assert places == Places(len(shares), "CUDA_VISIBLE_DEVICES", shares)
    assert places.environment(0) == {"CUDA_VISIBLE_DEVICES": shares[0]}


@pytest.mark.parametrize(
    ("devices", "slots", "per_run", "message"),
    [
        (
            "0,1,2",
            2,
            2,
            "--slots 2 with --gpus-per-run 2 takes 4 GPUs, and 3 may be used here (CUDA_VISIBLE_DEVICES=0,1,2); give"
            " --slots 1 or less, or leave it out",
        ),
        (
            "GPU-a",
            None,
            4,
            "--slots 1 with --gpus-per-run 4 takes 4 GPUs, and 1 may be used here (CUDA_VISIBLE_DEVICES=GPU-a); give"
            " --gpus-per-run 1 or less",
        ),
        (
            None,
            None,
            1,
            "--slots 1 with --gpus-per-run 1 takes 1 GPUs, and 0 may be used here (/dev/nvidia*); set"
            " CUDA_VISIBLE_DEVICES to those that may be used, or leave --gpus-per-run out",
        ),
    ],
)
def test_too_few_gpus(tmp_path: Path, devices: str | None, slots: int | None, per_run: int, message: str) -> None:
    environ = {} if devices is None else {"CUDA_VISIBLE_DEVICES": devices}
    with pytest.raises(AgentError) as caught:
        make_places(slots, per_run, environ, tmp_path)
    assert str(caught.value) == message
    assert caught.value.exit_code is ExitCode.USAGE
