"""The whole app as ZeroGPU would build it: which engine answers, what the training tab says, what stays outside."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import app
from assets.errors import UserError
from assets.words import Words
from compare.worker import WorkerEngine
from compare.zero_engine import MEMORY, ZeroEngine
from tests.fake_spaces import FakeSpaces

ROOT = Path(__file__).parents[1]


@pytest.fixture
def lent(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSpaces]:
    """ZeroGPU's variables and its package."""
    gpu, module = FakeSpaces(), ModuleType("spaces")
    module.GPU = gpu.GPU  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spaces", module)
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setenv("SPACE_ID", "ann/naranhi")
    yield gpu


def settings() -> app.Settings:
    return app.Settings("127.0.0.1", None, True, True)


@pytest.mark.usefixtures("one_loop")
def test_the_comparison_borrows_a_gpu_and_training_says_why_not(lent: FakeSpaces) -> None:
    shared = app.services(settings())
    assert isinstance(shared.compare.engine._here, ZeroEngine) and lent.decorated == 1  # type: ignore[attr-defined]
    machine = shared.compare.machine
    assert machine is not None and machine.room({}) == [(0, MEMORY)] and machine.taken() is None
    with pytest.raises(UserError, match=r"place\.no_training"):
        shared.train.jobs.resume("20260101-000000-abcd")
    parts = app.build(shared).get_config_file()["components"]
    values = {part["props"].get("elem_id"): part["props"] for part in parts}
    assert Words("en")("place.no_training") in values["train-closed"]["value"]
    assert [choice[1] for choice in values["train-where"]["choices"]] == ["hf", "cluster"]
    assert values["train-where"]["value"] == "hf" and values["train-hf"]["visible"] is True
    assert lent.forks == 0


def test_everywhere_else_the_engine_is_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    shared = app.services(settings())
    assert isinstance(shared.compare.engine._here, WorkerEngine) and not shared.train.jobs.closed  # type: ignore[attr-defined]


def test_neither_torch_nor_spaces_is_imported_elsewhere() -> None:
    asked = "import sys, app; print([n for n in ('torch', 'spaces', 'compare.zero_room') if n in sys.modules])"
    said = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout.strip().splitlines()[-1] == "[]"
