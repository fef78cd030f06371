"""Adapters on this machine: the ones of finished jobs, and folders that people name.

Covers: listing jobs' adapters, which folders may be opened. Gathers what the comparison needs to know of adapters:
``inspect`` and ``Adapter`` come from adapter_folder.py, ``match_base`` and ``Match`` from adapter_match.py. Does not
cover: adapters on the Hub.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from assets.errors import UserError
from assets.files import read_json
from compare.adapter_folder import WEIGHTS, Adapter, Module, inspect
from compare.adapter_match import Match, match_base

__all__ = ["Adapter", "Broken", "Found", "Match", "Module", "find_adapters", "inspect", "match_base", "safe_folder"]

_ENDED = ("finished", "stopped")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Broken:
    """A folder that holds no usable adapter, and why (a key of the strings with its values)."""

    folder: Path
    reason_key: str
    values: Mapping[str, object]


@dataclass(frozen=True)
class Found:
    """Newest first."""

    adapters: tuple[Adapter, ...]
    broken: tuple[Broken, ...]


def find_adapters(jobs_root: Path) -> Found:
    """The adapters of finished and stopped jobs, newest first, and the broken ones with their reason.

    Looks at headers only; ``inspect`` reads the weights of the one that is opened.
    """
    adapters: list[tuple[float, Adapter]] = []
    broken: list[tuple[float, Broken]] = []
    for folder in jobs_root.glob("*/adapter"):
        try:
            if not _ended(folder.parent):
                continue
            adapter = inspect(folder, check_values=False)
            adapters.append((_when(adapter), adapter))
        except UserError as error:
            broken.append((folder.stat().st_mtime, Broken(folder, error.key, error.values)))
    return Found(tuple(_newest(adapters)), tuple(_newest(broken)))


def _ended(job: Path) -> bool:
    path = job / "job.json"
    if not path.is_file():
        raise UserError("adapters.bad_job", folder=job.name)
    try:
        return read_json(path)["state"] in _ENDED
    except (ValueError, KeyError, TypeError) as error:
        raise UserError("adapters.bad_job", folder=job.name) from error


def _when(adapter: Adapter) -> float:
    return adapter.finished_at or (adapter.folder / WEIGHTS).stat().st_mtime


def _newest(dated: list[tuple[float, _T]]) -> Iterable[_T]:
    return (item for _, item in sorted(dated, key=lambda pair: pair[0], reverse=True))


def safe_folder(text: str, roots: Iterable[Path]) -> Path:
    """The folder that a person named, absolute and without links, below one of ``roots``.

    A relative name is looked for below each root. Korean and spaces are fine, composed or not. UserError for a name
    that leads outside ("adapters.outside"), is no folder ("adapters.no_folder"), or is no name ("adapters.bad_name").
    """
    name = text.strip().strip("\"'").strip()
    if not name or "\0" in name:
        raise UserError("adapters.bad_name")
    allowed = [root.resolve() for root in roots]
    spellings = dict.fromkeys([name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)])
    inside = False
    for root in allowed:
        for spelling in spellings:
            path = _resolved(root / spelling)
            if path and not any(path.is_relative_to(other) for other in allowed):
                continue
            inside = True
            if path and path.is_dir():
                return path
    raise UserError("adapters.no_folder" if inside else "adapters.outside", folder=name[:200])


def _resolved(path: Path) -> Path | None:
    """Without links and ".."; None for what the file system cannot name or follow."""
    try:
        path.stat()
    except FileNotFoundError:
        return path.resolve()
    except (OSError, ValueError):
        return None
    return path.resolve()
