"""What several files of this room's tests begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.finetune.fake_run import Runs


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    """A temporary workspace whose jobs only pretend to train; what they leave running is ended."""
    made = Runs(tmp_path)
    yield made
    made.clean()
