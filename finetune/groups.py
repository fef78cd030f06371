"""Runs that were queued together to answer one question, as one file: groups/<id>.json in the workspace.

Covers: which run has which role, what was left out and why. Does not cover: the runs, which name their group in job.json
(jobs.py), or the question (enough.py). The file outlives app and browser; a newer version is refused, an older one read.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from assets.errors import UserError
from assets.files import Workspace, lock, read_json, write_json

VERSION = 1
_ID = re.compile("[0-9a-f]{16}")


@dataclass(frozen=True)
class Member:
    """``role`` is what the run stands for, ``job`` its id."""

    role: str
    job: str


@dataclass(frozen=True)
class LeftOut:
    """A role without a run, and the sentence that says why."""

    role: str
    key: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """``created`` in seconds since 1970; ``members`` in the order in which they run."""

    id: str
    name: str
    created: float
    members: tuple[Member, ...]
    left_out: tuple[LeftOut, ...] = ()
    version: int = VERSION


def path_of(workspace: Workspace, group_id: str) -> Path:
    return workspace.root / "groups" / f"{group_id}.json"


def guard(workspace: Workspace) -> Any:
    """The lock under which groups are made."""
    return lock(workspace.root / "groups" / "groups")


def new_id(request: str) -> str:
    """The same for the same click, so that two of them in one moment make one group."""
    return hashlib.sha256(request.encode()).hexdigest()[:16] if request else secrets.token_hex(8)


def save(workspace: Workspace, group: Group) -> None:
    write_json(path_of(workspace, group.id), asdict(group))


def made(group_id: str, name: str, members: tuple[Member, ...], left_out: tuple[LeftOut, ...]) -> Group:
    return Group(group_id, name, time.time(), members, left_out)


def read(workspace: Workspace, group_id: str) -> Group | None:
    """None for one that is not there. UserError("groups.unreadable") for what is no record or of a newer version."""
    if not _ID.fullmatch(group_id) or not path_of(workspace, group_id).is_file():
        return None
    try:
        return from_dict(read_json(path_of(workspace, group_id)))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError("groups.unreadable", id=group_id) from error


def from_dict(values: dict[str, Any]) -> Group:
    """A record of this version or an older one; fields that nobody knows are left out."""
    if values.get("version", 1) > VERSION:
        raise UserError("groups.unreadable", id=values.get("id", "?"))
    known = {k: v for k, v in values.items() if k in Group.__dataclass_fields__}
    members = tuple(Member(m["role"], m["job"]) for m in values["members"])
    left_out = tuple(LeftOut(m["role"], m["key"], m.get("values", {})) for m in values.get("left_out", ()))
    return Group(**{**known, "members": members, "left_out": left_out, "version": VERSION})
