"""The head of the README, by which a Space is built, and whether the pinned packages go together on the Space's Python.

Covers: what is pinned and everything that it needs in turn, from the metadata of the packages that are installed here,
with the conditions as they are on a Space. Does not cover: asking PyPI (python -m tests.resolve does).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from assets.catalog import find_model

ROOT = Path(__file__).parents[1]
PINNED = [line for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines() if line and line[0] != "#"]
ZERO_GPU = ("3.12.12", "3.10.13")  # hub-docs, spaces-zerogpu: the versions that it has


@pytest.fixture(scope="module")
def head() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "README.md").read_text(encoding="utf-8").split("---\n")[1]))


def test_what_a_space_reads(head: dict[str, Any]) -> None:
    assert head["sdk"] == "gradio" and (ROOT / head["app_file"]).is_file()
    assert f"gradio=={head['sdk_version']}" in PINNED
    assert head["python_version"] in ZERO_GPU, "the only ones that work on all hardware"
    assert head["hf_oauth"] is True and len(head["short_description"]) <= 60
    assert [model for model in head["models"] if find_model(model) is None] == []


def _conflicts(head: dict[str, Any]) -> Iterator[str]:
    """Whatever does not go together, in words."""
    python = str(head["python_version"])
    place = {
        "python_version": python.rpartition(".")[0],
        "python_full_version": python,
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    waiting = [(Requirement(line), "requirements.txt", ("",)) for line in PINNED]
    waiting.append((Requirement(f"gradio[oauth]=={head['sdk_version']}"), "hf_oauth", ("",)))
    met: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted, why, extras = waiting.pop()
        name = re.sub(r"[-_.]+", "-", wanted.name).lower()
        if wanted.marker and not any(wanted.marker.evaluate({**place, "extra": extra}) for extra in extras):
            continue
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            yield f"{why} wants {wanted}, which is not installed here"
            continue
        if not wanted.specifier.contains(found.version, prereleases=True):
            yield f"{why} wants {wanted}, which is {found.version}"
        if not SpecifierSet(found.metadata.get("Requires-Python") or "").contains(python):
            yield f"{name} {found.version} is not for Python {python}"
        if (name, frozenset(wanted.extras)) in met:
            continue
        met.add((name, frozenset(wanted.extras)))
        waiting += [(Requirement(line), name, ("", *wanted.extras)) for line in found.requires or []]
    assert len(met) > 60, "the packages' own needs were followed"


def test_the_pinned_packages_go_together_on_its_python(head: dict[str, Any]) -> None:
    assert list(_conflicts(head)) == []


def test_a_python_that_is_too_old_would_be_noticed(head: dict[str, Any]) -> None:
    assert any("transformers" in said for said in _conflicts({**head, "python_version": "3.10.13"}))
    assert any("hf_oauth wants gradio" in said for said in _conflicts({**head, "sdk_version": "5.0.0"}))
