from __future__ import annotations

import subprocess
import sys

import pytest

from assets.priority import GROUP, NICE

TELL = "import os; from assets.priority import GROUP, step_back; step_back(); print(os.nice(0))"
GROUP_TOO = TELL + "; print(GROUP.read_text().split()[-1])"


def told(code: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, start_new_session=True
    )
    return done.stdout.split()


def test_a_process_gives_way() -> None:
    assert told(TELL) == [str(NICE)]


@pytest.mark.skipif(not GROUP.exists(), reason="this system does not group processes by session")
def test_its_session_gives_way_too() -> None:
    assert told(GROUP_TOO) == [str(NICE), str(NICE)]
