"""A model that a run here trained or merged whole: a folder like any checkpoint, with the record of how it was made.

Covers: what run.json tells of it, listing those of finished jobs. Does not cover: adapters (adapters.py), loading.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assets.errors import UserError
from assets.files import read_json
from assets.hub import ModelFiles
from assets.quantised import source_of

RUN_VERSION = 1
_ENDED = ("finished", "stopped")


@dataclass(frozen=True)
class Whole:
    """``base_id`` is the model it was before; ``finished_at`` seconds since 1970."""

    folder: Path
    name: str
    base_id: str
    system: str = ""
    finished_at: float | None = None

    @property
    def digest(self) -> str:
        """Eight hex digits that tell it from other models of the same name: its config and samples of its weights."""
        return source_of(ModelFiles(str(self.folder), self.folder, None)).removeprefix("local:")[:8]


def read_whole(folder: Path) -> Whole | None:
    """None for a model that no run here made. UserError("adapters.newer_run") or ("adapters.bad_run") for a record that
    cannot be read."""
    path = folder / "run.json"
    if not path.is_file() or not (folder / "config.json").is_file() or (folder / "adapter_config.json").is_file():
        return None
    try:
        run: Any = read_json(path)
    except ValueError as error:
        raise UserError("adapters.bad_run", folder=folder.name) from error
    if not isinstance(run, dict) or not isinstance(run.get("base"), dict):
        return None
    if run.get("version", 0) > RUN_VERSION:
        raise UserError("adapters.newer_run", folder=folder.name)
    name, base = str(run.get("name") or folder.parent.name), str(run["base"].get("id") or "")
    return Whole(folder, name, base, str(run.get("system") or ""), run.get("finished_at"))


def find_wholes(jobs_root: Path) -> list[Whole]:
    """Those of jobs that have ended, newest first; what cannot be read is left out."""
    found = [whole for folder in jobs_root.glob("*/model") if _ended(folder.parent) and (whole := _readable(folder))]
    return _newest(found)


def _newest(found: Iterable[Whole]) -> list[Whole]:
    return sorted(found, key=lambda whole: whole.finished_at or 0.0, reverse=True)


def _readable(folder: Path) -> Whole | None:
    try:
        return read_whole(folder)
    except UserError:
        return None


def _ended(job: Path) -> bool:
    try:
        return bool(read_json(job / "job.json")["state"] in _ENDED)
    except (OSError, ValueError, KeyError, TypeError):
        return False
