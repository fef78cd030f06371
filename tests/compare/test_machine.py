from __future__ import annotations

from pathlib import Path

import pytest

from assets.files import Workspace
from assets.leases import acquire
from compare.machine import Card, Machine, Queued, Taken

LEFT = {"a": 300.0, "b": 60.0}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    cards = [Card("gpu-0", 24, 20), Card("gpu-1", 24, 10)]
    return Machine(Workspace(tmp_path).prepare(), cards=lambda: cards, left=LEFT.get)


def hold(machine: Machine, device: str, kind: str = "job", job: str = "a") -> None:
    assert acquire(machine.workspace, (device,), {"kind": kind, "id": job, "name": f"run {job}"}) is not None


def test_a_free_gpu_is_enough_and_the_job_that_ends_first_is_named(machine: Machine) -> None:
    assert machine.taken() is None
    hold(machine, "gpu-0", job="a")
    assert machine.taken() is None
    hold(machine, "gpu-1", job="b")
    assert machine.taken() == Taken("run b", 60.0)
    assert machine.taken(["gpu-0"]) == Taken("run a", 300.0)


def test_a_job_without_a_forecast_comes_last(machine: Machine) -> None:
    hold(machine, "gpu-0", job="unknown")
    assert machine.taken(["gpu-0"]) == Taken("run unknown", None)
    hold(machine, "gpu-1", job="a")
    assert machine.taken() == Taken("run a", 300.0)


def test_what_a_comparison_holds_is_not_waited_for(machine: Machine) -> None:
    hold(machine, "gpu-0", kind="engine")
    hold(machine, "gpu-1")
    assert machine.taken() is None


def test_without_a_gpu_nothing_is_taken(tmp_path: Path) -> None:
    alone = Machine(Workspace(tmp_path).prepare())
    assert alone.taken() is None and alone.wanted() is None and alone.free() > 0


def test_a_job_that_waits_for_the_comparison_is_told(machine: Machine) -> None:
    jobs = [Queued("first", ("gpu-1",)), Queued("second", ("gpu-0",))]
    asking = Machine(machine.workspace, machine.cards, queued=lambda: jobs)
    assert asking.wanted() is None and asking.free() == 20
    hold(machine, "gpu-1")
    assert asking.wanted() is None
    hold(machine, "gpu-0", kind="engine")
    assert asking.wanted() == "second"


def test_two_free_gpus_are_waited_for_where_two_are_needed(machine: Machine) -> None:
    assert machine.taken(wanted=2) is None
    hold(machine, "gpu-0", kind="engine")
    assert machine.taken(wanted=2) is None
    hold(machine, "gpu-1", job="b")
    assert machine.taken(wanted=2) == Taken("run b", 60.0) and machine.taken() is None


def test_the_room_on_cards_that_no_job_holds(machine: Machine) -> None:
    assert machine.room({}) == [(0, 20), (1, 10)]
    hold(machine, "gpu-0", kind="engine")
    assert machine.room({"gpu-0": 3}) == [(0, 23), (1, 10)]
    hold(machine, "gpu-1")
    assert machine.room({}) == [(0, 20)] and machine.room({}, later=True) == [(0, 20), (1, 24)]
