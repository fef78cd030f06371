"""Many raters at once on the service, in two processes, one of which is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.load.check import check
from tests.load.made import links, open_study

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


class Raters:
    """A process of raters; ``lines`` is what it has printed."""

    def __init__(self, home: Path, seconds: float, pause: float, codes: list[str]) -> None:
        command = [sys.executable, "-m", "tests.load.rate", str(home), str(seconds), str(pause), *codes]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as out:
            for line in out:
                self.lines.append(line)

    def end(self) -> int:
        code = self.process.wait(180)
        self._reader.join()
        return code

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.end()


def test_thirty_raters_in_two_processes_lose_and_double_nothing(tmp_path: Path) -> None:
    made = open_study(tmp_path)
    codes = links(tmp_path, made.id, 30)
    sides = [Raters(tmp_path, 12, 0.5, codes[n::2]) for n in range(2)]
    assert [side.end() for side in sides] == [0, 0]
    found = check(tmp_path, [line for side in sides for line in side.lines])
    print(found)
    assert found.votes > 100 and (found.lost, found.doubled, found.refused) == (0, 0, 0)


def test_kill_9_in_the_middle_of_votes(tmp_path: Path) -> None:
    made = open_study(tmp_path, items=200)
    codes = links(tmp_path, made.id, 12)
    steady = Raters(tmp_path, 10, 0.05, codes[:4])
    sides = [steady]
    for number in range(2):
        doomed = Raters(tmp_path, 60, 0, codes[4 + 4 * number : 8 + 4 * number])
        while len(doomed.lines) < 20:
            time.sleep(0.02)
        doomed.kill()
        sides.append(doomed)
    assert steady.end() == 0
    lines = [line for side in sides for line in side.lines]
    found = check(tmp_path, lines)
    print(found)
    assert found.votes > 40 and (found.lost, found.doubled, found.refused) == (0, 0, 0)
    again = Raters(tmp_path, 3, 0.02, codes[4:])  # the same raters go on where they were
    assert again.end() == 0
    after = check(tmp_path, lines + again.lines)
    assert after.votes > found.votes and (after.lost, after.doubled, after.refused) == (0, 0, 0)
