"""A minute of the load that ``make load`` makes for ten, and an app that dies in the middle of votes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.load.server import P95, run


@pytest.mark.alone
def test_thirty_raters_for_a_minute(tmp_path: Path) -> None:
    found = run(tmp_path, seconds=60, raters=30, pause=3)
    print(found)
    assert found.votes > 150
    assert (found.lost, found.doubled, found.refused) == (0, 0, 0)
    assert found.p95 < P95


@pytest.mark.slow
def test_one_of_two_apps_is_killed_and_comes_back(tmp_path: Path) -> None:
    found = run(tmp_path, seconds=20, raters=12, pause=0.5, apps=2, kill=True)
    print(found)
    assert found.votes > 30
    assert (found.lost, found.doubled, found.refused) == (0, 0, 0)
