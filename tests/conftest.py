"""What every test stands on: no network, no spinning threads, nobody's real workspace."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning OpenMP threads slow each other down on shared cores
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores, and small models gain nothing from a second thread
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that forgets to say where it works must not write into a person's workspace."""
    monkeypatch.setenv("NARANHI_HOME", str(tmp_path / "naranhi-home"))


@pytest.fixture
def one_loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """gr.Blocks makes an event loop outside of any and never closes it; here all of them are one that is closed."""
    loop = asyncio.new_event_loop()
    monkeypatch.setattr(asyncio, "new_event_loop", lambda: loop)
    yield
    loop.close()
    asyncio.set_event_loop(None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that no worker is left with one of them when the others have nothing to do."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_report_header() -> str:
    from importlib.metadata import version

    return "with " + ", ".join(f"{p} {version(p)}" for p in ("torch", "transformers", "peft", "trl", "gradio"))
