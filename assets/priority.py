"""Lets the page go first: the processes that compute ask the scheduler for less than the one that answers a browser.

Covers: niceness, of the process and of its scheduling group. Does not cover: GPUs, and how many threads a process uses.
"""

from __future__ import annotations

import os
from pathlib import Path

NICE = 5
GROUP = Path("/proc/self/autogroup")


def step_back(group: Path = GROUP) -> None:
    """Lower this process's claim on the CPU. Where Linux groups processes by session, the niceness of one counts only
    within its own session, so the session gives way as well (sched(7), "The autogroup feature")."""
    os.nice(NICE)
    if group.exists():
        group.write_text(str(NICE), encoding="ascii")
