"""A minute of the use that ``make soak`` makes for an hour."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.load.soak import FILES, HANDLES, MEMORY, THREADS, Sample, Soaked, run


def grown(**last: float) -> Soaked:
    """A soak in which everything stays but what is given."""
    even = {"memory": 300.0, "handles": 40, "threads": 20, "files": 2}
    first = Sample(0, **even)  # type: ignore[arg-type]
    return Soaked((first,) * 16 + (Sample(60, **{**even, **last}),) * 8, 0, 0)  # type: ignore[arg-type]


def test_growth_is_found() -> None:
    assert grown().grew == []
    most = {"memory": MEMORY, "handles": HANDLES, "threads": THREADS, "files": FILES}
    even = {"memory": 300.0, "handles": 40, "threads": 20, "files": 2}
    for name, more in most.items():
        assert grown(**{name: even[name] + more + 1}).grew == [name]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_a_minute_of_visitors_raters_and_a_run(tmp_path: Path) -> None:
    found = run(tmp_path, seconds=60, raters=6, visitors=3, stand_in=True)
    print(found)
    assert found.visits > 10 and found.votes > 20
    assert found.grew == []
