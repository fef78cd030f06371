"""The studies on disk: workspace/studies/<id>/study.yaml and what stands beside it.

Covers: creating, reading, changing what may still be changed, the states, interim looks. Does not cover: answers
(study_items.py), raters (study_raters.py), votes (ratings.csv).
"""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from assets.errors import UserError
from assets.files import Workspace, append_line, lock, read_lines, write_atomic
from compare.csv_store import to_json
from compare.rating import now
from compare.study import STATES, Study, check_id
from compare.study_items import Items, missing

# What an owner may change once answers are made: nothing that a rater or an answer depends on.
FREE = ("name", "title", "consent", "reveal", "target")
_NEXT: Mapping[str, tuple[str, ...]] = {
    "draft": ("generating", "open"),
    "generating": ("open",),
    "open": ("closed",),
    "closed": ("open",),
}


# ``list`` is a method below.
_Names = list[str]
_Studies = list[Study]
_Broken = list[tuple[str, UserError]]
_Looks = list[dict[str, Any]]


class Studies:
    """Every study of a workspace, shared by any number of threads and processes."""

    def __init__(self, workspace: Workspace) -> None:
        self.root = workspace.root / "studies"
        self._guard = threading.Lock()
        self._read: dict[str, tuple[tuple[int, ...], Study]] = {}
        self._items: dict[str, Items] = {}

    def folder(self, study_id: str) -> Path:
        """UserError("study.unknown") for what cannot be an id."""
        return self.root / check_id(study_id)

    def create(self, study: Study) -> Study:
        """Keep a new study. UserError("study.exists") when its id is taken."""
        file = self._file(study.id)
        with lock(file):
            if file.exists():
                raise UserError("study.exists", study=study.name)
            write_atomic(file, study.to_yaml())
        return study

    def get(self, study_id: str) -> Study:
        """UserErrors: "study.unknown", "study.unreadable", "study.newer"."""
        file = self._file(study_id)
        try:
            stat = file.stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UserError("study.unknown", study=study_id) from error
        sign = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        with self._guard:
            known = self._read.get(study_id)
        if known is not None and known[0] == sign:
            return known[1]
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError("study.unreadable", reason="UTF-8") from error
        study = Study.from_yaml(text)
        if study.id != study_id:
            raise UserError("study.unreadable", reason=f"id: {study.id}")
        with self._guard:
            self._read[study_id] = (sign, study)
        return study

    def list(self) -> _Studies:
        """Those that can be read, newest first."""
        found = [study for study in map(self._try, self._ids()) if isinstance(study, Study)]
        return sorted(found, key=lambda study: (study.created_at, study.id), reverse=True)

    def broken(self) -> _Broken:
        """Folders whose study.yaml cannot be read, and why."""
        tried = [(study_id, self._try(study_id)) for study_id in self._ids()]
        return [(study_id, error) for study_id, error in tried if isinstance(error, UserError)]

    def save(self, study: Study) -> Study:
        """Change a draft, or those fields of a later study that are still free. UserError("study.frozen") names others.

        The state is changed by ``set_state`` alone.
        """
        file = self._file(study.id)
        with lock(file):
            old = self.get(study.id)
            kept = replace(study, state=old.state, created_at=old.created_at, packed=old.packed)
            changed = [f.name for f in fields(Study) if getattr(kept, f.name) != getattr(old, f.name)]
            if old.state != "draft":
                self._check_change(old, kept, changed)
            write_atomic(file, kept.to_yaml())
        return kept

    def remove(self, study_id: str) -> None:
        """Delete a study that was never opened, its answers too. UserError("study.has_begun") for others."""
        file = self._file(study_id)
        with lock(file):
            if self.get(study_id).state in ("open", "closed"):
                raise UserError("study.has_begun")
            file.unlink()  # from here on it is gone, whatever becomes of the rest
            shutil.rmtree(file.parent)
        with self._guard:
            self._read.pop(study_id, None)
            self._items.pop(study_id, None)

    def keep_consent(self, study_id: str) -> str:
        """Keep the consent text of today beside the study, once per wording; its SHA-256, of which the file is named."""
        text = self.get(study_id).consent
        digest = hashlib.sha256(text.encode()).hexdigest()
        file = self.folder(study_id) / "consents" / f"{digest}.txt"
        if not file.exists():
            write_atomic(file, text)
        return digest

    def set_state(self, study_id: str, state: str) -> Study:
        """UserErrors: "study.not_generated" for an opening with answers missing, "study.no_such_step"."""
        file = self._file(study_id)
        with lock(file):
            old = self.get(study_id)
            if state == old.state:
                return old
            if state not in STATES or state not in _NEXT[old.state]:
                raise UserError("study.no_such_step", now=old.state, state=str(state)[:20])
            left = len(missing(old, self.items(study_id).read())) if state == "open" else 0
            if left:
                raise UserError("study.not_generated", missing=left)
            study = replace(old, state=state)
            write_atomic(file, study.to_yaml())
        return study

    def items(self, study_id: str) -> Items:
        """The answers' file; the same object for every caller, so that it is read once."""
        path = self.folder(study_id) / "items.jsonl"
        with self._guard:
            return self._items.setdefault(study_id, Items(path))

    def look(self, study_id: str, votes: int) -> None:
        """Record that someone has looked at the results with ``votes`` votes given."""
        file = self._looks(study_id)
        target = self.get(study_id).target
        with lock(file):
            append_line(file, to_json({"at": now(), "votes": votes, "target": target}))

    def looks(self, study_id: str) -> _Looks:
        """Every look so far: {"at", "votes", "target"}."""
        return read_lines(self._looks(study_id))

    def _check_change(self, old: Study, new: Study, changed: _Names) -> None:
        held = [name for name in changed if name not in FREE]
        if new.target < old.target:
            held.append("target")
        if "reveal" in changed and new.reveal != "never":
            held.append("reveal")
        if held:
            raise UserError("study.frozen", fields=", ".join(dict.fromkeys(held)))

    def _try(self, study_id: str) -> Study | UserError:
        try:
            return self.get(study_id)
        except UserError as error:
            return error

    def _ids(self) -> _Names:
        return sorted(file.parent.name for file in self.root.glob("*/study.yaml"))

    def _file(self, study_id: str) -> Path:
        return self.folder(study_id) / "study.yaml"

    def _looks(self, study_id: str) -> Path:
        return self.folder(study_id) / "looks.jsonl"
