"""A device belongs to whoever holds its lock, and to nobody once the last holder is gone."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from assets.files import Workspace, read_json
from assets.leases import CPU, acquire, holder, join

HOLD = (
    "import sys, time\n"
    "from pathlib import Path\nfrom assets.files import Workspace\nfrom assets.leases import acquire\n"
    "lease = acquire(Workspace(Path(sys.argv[1])), tuple(sys.argv[2:]), {'kind': 'job', 'id': 'j', 'name': '이름'})\n"
    "print('held' if lease else 'taken', flush=True)\n"
)


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path).prepare()


@contextmanager
def other(space: Workspace, *devices: str, then: str = "time.sleep(600)") -> Iterator[subprocess.Popen[str]]:
    """Another process that tries to take the devices; its first line says whether it could."""
    argv = [sys.executable, "-c", HOLD + then, str(space.root), *devices]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def says(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_all_of_the_devices_or_none(space: Workspace) -> None:
    assert holder(space, "gpu-a") is None
    lease = acquire(space, ("gpu-b", "gpu-a"), {"kind": "engine"})
    assert lease is not None and lease.devices == ("gpu-a", "gpu-b") and len(lease.handles) == 2
    assert acquire(space, ("gpu-0", "gpu-a"), {}) is None
    assert holder(space, "gpu-0") is None  # what was taken on the way is given back
    seen = holder(space, "gpu-a")
    assert seen is not None and (seen["kind"], seen["pid"]) == ("engine", os.getpid())
    assert seen["since"] <= time.time()
    lease.release()
    assert holder(space, "gpu-a") is None and holder(space, "gpu-b") is None
    again = acquire(space, ("gpu-a",), {})
    assert again is not None
    again.release()


def test_no_device_is_no_trouble(space: Workspace) -> None:
    lease = acquire(space, (), {})
    assert lease is not None and lease.handles == ()
    lease.release()


def test_another_process_holds_it_until_it_is_killed(space: Workspace) -> None:
    with other(space, CPU) as process:
        assert says(process) == "held"
        seen = holder(space, CPU)
        assert seen is not None and (seen["name"], seen["pid"]) == ("이름", process.pid)
        assert acquire(space, (CPU,), {}) is None
        with other(space, CPU, then="") as second:
            assert says(second) == "taken"
        assert read_json(space.leases / "cpu.json")["pid"] == process.pid  # a refusal leaves the note alone
        process.kill()
        process.wait()
        assert holder(space, CPU) is None
        lease = acquire(space, (CPU,), {})
        assert lease is not None
        lease.release()


def test_a_child_that_inherits_the_handle_keeps_it(space: Workspace) -> None:
    child = (
        "import subprocess\n"
        "argv = [sys.executable, '-S', '-c', 'import sys; sys.stdin.read()']\n"
        "child = subprocess.Popen(argv, stdin=0, pass_fds=lease.handles)\n"
        "print('child', flush=True)\nchild.wait()"
    )
    argv = [sys.executable, "-c", HOLD + child, str(space.root), CPU]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    assert (says(process), says(process)) == ("held", "child")
    process.kill()
    process.wait()
    assert holder(space, CPU) is not None and acquire(space, (CPU,), {}) is None
    process.stdin.close()  # the child ends
    deadline = time.monotonic() + 60
    while holder(space, CPU) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.stdout.close()


def test_a_child_without_the_handle_does_not(space: Workspace) -> None:
    lease = acquire(space, (CPU,), {})
    assert lease is not None
    child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    lease.release()
    assert holder(space, CPU) is None
    child.communicate(b"\n")


def test_looking_disturbs_nobody(space: Workspace) -> None:
    lease = acquire(space, (CPU,), {})
    assert lease is not None
    lease.release()
    done, ghosts = threading.Event(), []

    def look() -> None:
        while not done.is_set():
            if holder(space, CPU) is not None:
                ghosts.append(1)

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for looker in lookers:
        looker.start()
    time.sleep(0.3)
    done.set()
    for looker in lookers:
        looker.join()
    assert not ghosts  # those who look at the same time do not see each other


def test_whoever_wants_a_free_device_gets_it_while_somebody_looks(space: Workspace) -> None:
    lease = acquire(space, (CPU,), {})
    assert lease is not None
    lease.release()
    looking = os.open(space.leases / "cpu.lease", os.O_RDWR)
    fcntl.flock(looking, fcntl.LOCK_SH)  # as holder() does, for a moment
    threading.Timer(0.03, os.close, [looking]).start()
    lease = acquire(space, (CPU,), {})
    assert lease is not None
    lease.release()


JOIN = (
    "import sys, time\n"
    "from pathlib import Path\nfrom assets.files import Workspace\nfrom assets.leases import join\n"
    "join(Workspace(Path(sys.argv[1])), tuple(sys.argv[2:]))\n"
    "print('joined', flush=True)\ntime.sleep(600)\n"
)


def test_whoever_joined_holds_on_when_the_first_is_gone(space: Workspace) -> None:
    """As a rank under a launcher does, which closes every handle it inherits."""
    lease = acquire(space, ("gpu-a",), {"kind": "job", "id": "j"})
    assert lease is not None
    ranks = [
        subprocess.Popen([sys.executable, "-c", JOIN, str(space.root), "gpu-a"], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [says(rank) for rank in ranks] == ["joined", "joined"]
    lease.release()
    for rank in ranks:
        seen = holder(space, "gpu-a")
        assert seen is not None and seen["id"] == "j" and acquire(space, ("gpu-a",), {}) is None
        rank.kill()
        rank.wait()
        assert rank.stdout is not None
        rank.stdout.close()
    assert holder(space, "gpu-a") is None
    again = acquire(space, ("gpu-a",), {"kind": "engine"})
    assert again is not None
    again.release()


def test_joining_does_not_disturb_looking(space: Workspace) -> None:
    lease = acquire(space, ("gpu-a",), {"kind": "job"})
    assert lease is not None
    joined = [join(space, ("gpu-a",)) for _ in range(3)]
    assert all(holder(space, "gpu-a") is not None for _ in range(20))
    for part in (*joined, lease):
        part.release()
    assert holder(space, "gpu-a") is None
