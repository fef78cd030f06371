"""Raters who vote all at once, straight on the study service: one process of them.

By hand: python -m tests.load.rate HOME SECONDS PAUSE CODE…      (PAUSE: mean seconds between votes of one rater)
Prints a line per acknowledged vote, "vote ID SECONDS", and "undo ID" before the row that takes one back. Every tenth vote
is sent twice at once and every fifteenth is taken back and given again, as people do.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from pathlib import Path

from assets.files import Workspace
from compare.ratings import RatingsFile
from compare.study_serve import StudyService
from compare.study_store import Studies

CHOICES = ("left", "right", "tie", "both_bad")


def service(home: Path) -> StudyService:
    return StudyService(Studies(Workspace(home)), RatingsFile(home / "ratings" / "ratings.csv", "load"), "load")


def say(line: str) -> None:
    """A whole line at once: what several threads print may otherwise mix, and a kill may cut it."""
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


def go(found: StudyService, code: str, seconds: float, pause: float) -> None:
    """One rater, until the time since the first item is over or the list is done."""
    chance = random.Random(code)
    seat = found.enter(code)
    found.consent(seat)
    item = found.next_item(seat)
    until = time.monotonic() + seconds
    while item is not None and time.monotonic() < until:
        time.sleep(chance.expovariate(1 / pause) if pause else 0)
        twice = chance.random() < 0.1
        other = threading.Thread(target=found.vote, args=(seat, item.token, chance.choice(CHOICES)))
        if twice:
            other.start()
        began = time.perf_counter()
        following = found.vote(seat, item.token, chance.choice(CHOICES), comment='줄\n바꿈, "따옴표" =1+1')
        say(f"vote {item.token} {time.perf_counter() - began:.4f}")
        if twice:
            other.join()
        if following is not None and chance.random() < 1 / 15:
            say(f"undo {item.token} 0")
            following = found.undo(seat, following.token)
        item = following


def main() -> None:
    home, seconds, pause, codes = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]
    found = service(home)
    threads = [threading.Thread(target=go, args=(found, code, seconds, pause)) for code in codes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
