"""Ratings and studies that outlive this disk: merged with a private dataset repository of the owner, pushed in parts.

Covers: what is new on either side, parts with names of their own, restoring, the backlog, a background thread. Does not
cover: rows and bytes (sync_parts.py), the Hub (sync_hub.py), what people see of it (sync_view.py).

Layout: ``data/<time>-<uuid>.csv``, each with rows that no other part held when it was written, never changed afterwards;
``studies/<id>/`` as on the disk. Nothing is remembered here between two starts: what the repository holds is what its
parts say, and the backlog is what ratings.csv holds beyond that. So a part that arrived although its answer was lost is
simply found, a row that arrives twice is one row (readers keep the first of an id), and two programs on one repository
end up with the same rows. What can be lost: on a disk that is lost too, the rows since the last push; otherwise nothing.
A study belongs to one program: of two that change the same one, the last push stays.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from assets.errors import UserError
from assets.files import lock, write_atomic
from assets.words import LANGUAGES, Words
from compare.rating import COLUMNS
from compare.study import check_id
from compare.sync_hub import blob_id
from compare.sync_parts import LocalRows, rows_of

log = logging.getLogger(__name__)
SECONDS = 60.0
LONGEST = 15 * 60.0
PART_BYTES = 4 << 20
PARTS = 8  # per commit
FETCHES = 8  # at the same time
BATCH = 500
_PART = re.compile(r"data/[\w.-]+\.csv")
STUDY_FILES = ("items.jsonl", "raters.json", "study.yaml")  # the last one makes a folder a study


class Repo(Protocol):
    """See sync_hub.HubRepo."""

    @property
    def repo(self) -> str: ...
    def files(self) -> dict[str, str]: ...
    def fetch(self, path: str) -> bytes: ...
    def push(self, files: Mapping[str, bytes], message: str) -> None: ...


@dataclass(frozen=True)
class SyncStatus:
    """``saved`` rows are known to be in the repository, ``backlog`` rows only here (None before the first look at the
    repository), ``nameless`` rows have no id and stay here. ``restored`` came from the repository since the start.

    ``last`` is when everything was last in step (seconds since the epoch), ``error`` why it is not now.
    """

    repo: str
    saved: int = 0
    backlog: int | None = None
    restored: int = 0
    nameless: int = 0
    unreadable: tuple[str, ...] = ()
    last: float | None = None
    error: UserError | None = None


class Sync:
    """Programs on one workspace take turns. ``seconds`` between two rounds, more after failures.

    Fetched parts are kept beside the ratings, so that a start on a disk that lasts fetches none twice.
    """

    def __init__(self, ratings: Path, studies: Path, repo: Repo, seconds: float = SECONDS) -> None:
        self._repo, self._seconds, self._studies = repo, seconds, studies
        self._rows = LocalRows(ratings)
        self._parts = ratings.parent / "parts"
        self._owned: FileLock = lock(ratings.parent / "sync", timeout=0)
        self._known: set[str] = set()
        self._read: set[str] = set()
        self._pushed: dict[str, str] = {}
        self._seen = False
        self._status = SyncStatus(repo.repo)
        self._stop, self._wake, self._first = threading.Event(), threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def status(self) -> SyncStatus:
        return self._status

    def start(self, wait: float = 0.0) -> None:
        """Begin in the background; return after the first round, or after ``wait`` seconds."""
        self._thread = threading.Thread(target=self._work, name="sync", daemon=True)
        self._thread.start()
        self._first.wait(wait)

    def stop(self, wait: float = 20.0) -> None:
        """Push what is left and end; give up after ``wait`` seconds."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(wait)

    def round(self) -> SyncStatus:
        """Once: look, restore, push. Trouble with the Hub is in the status, not raised."""
        try:
            with self._owned:
                error = self._round()
        except Timeout:
            return self._status  # another program on this workspace is at it
        last = time.time() if error is None else self._status.last
        self._status = replace(self._counted(), error=error, last=last)
        return self._status

    def _work(self) -> None:
        failures = 0
        while True:
            last_one = self._stop.is_set()
            try:
                failures = failures + 1 if self.round().error is not None else 0
            except Exception as unexpected:
                log.exception("a round of syncing failed")
                failures += 1
                reason = f"{type(unexpected).__name__}: {unexpected}"[:160]
                self._status = replace(self._status, error=UserError("app.unexpected", reason=reason))
            self._first.set()
            if last_one:
                return
            pause = min(LONGEST, self._seconds * 2 ** min(failures, 10)) if failures > 1 else self._seconds
            self._wake.wait(pause * (0.9 + secrets.randbelow(200) / 1000))
            self._wake.clear()

    def _round(self) -> UserError | None:
        try:
            self._rows.refresh()
            there = self._repo.files()
            self._restore_rows(there)
            self._seen = True
            self._push_rows("README.md" not in there)
            self._restore_studies(there)
            self._push_studies(there)
        except UserError as error:
            return error
        return None

    def _counted(self) -> SyncStatus:
        try:
            self._rows.refresh()
        except UserError as error:
            return replace(self._status, error=error)
        backlog = sum(1 for _ in self._backlog()) if self._seen else None
        return replace(self._status, saved=len(self._known), backlog=backlog, nameless=self._rows.nameless)

    def _backlog(self) -> Iterator[str]:
        return (rating_id for rating_id in self._rows.ids() if rating_id not in self._known)

    # Rows

    def _restore_rows(self, there: Mapping[str, str]) -> None:
        """Append the rows of parts not read yet that this file lacks."""
        parts = sorted(path for path in there if _PART.fullmatch(path) and path not in self._read)
        with ThreadPoolExecutor(FETCHES, "sync-fetch") as pool:
            for begin in range(0, len(parts), BATCH):
                batch = parts[begin : begin + BATCH]
                for path, data in zip(batch, pool.map(lambda path: self._fetch(path, there[path]), batch), strict=True):
                    self._merge(path, data)

    def _fetch(self, path: str, blob: str) -> bytes:
        kept = self._parts / path.removeprefix("data/")
        if kept.exists() and blob_id(data := kept.read_bytes()) == blob:
            return data
        data = self._repo.fetch(path)
        kept.parent.mkdir(exist_ok=True)
        kept.write_bytes(data)
        return data

    def _merge(self, path: str, data: bytes) -> None:
        rows: dict[str, Mapping[str, str]] = {}
        try:
            for rating_id, cells in rows_of(data):
                rows.setdefault(rating_id, cells)
        except UserError:
            self._status = replace(self._status, unreadable=(*self._status.unreadable, path))
        self._append({rating_id: cells for rating_id, cells in rows.items() if rating_id not in self._rows})
        self._known |= set(rows)
        self._read.add(path)

    def _append(self, rows: Mapping[str, Mapping[str, str]]) -> None:
        cells = [{name: row.get(name, "") for name in COLUMNS} for row in rows.values()]
        for begin in range(0, len(cells), BATCH):
            self._rows.store.append(*cells[begin : begin + BATCH])
        self._status = replace(self._status, restored=self._status.restored + len(cells))
        self._rows.refresh()

    def _push_rows(self, new: bool) -> None:
        """The backlog, a commit of some parts at a time. A part counts as saved when its commit was answered."""
        while parts := self._next_parts():
            files = {name: self._rows.part(ids) for name, ids in parts.items()}
            if new:
                files["README.md"], new = card(), False
            self._repo.push(files, f"{sum(map(len, parts.values()))} rows")
            self._read |= set(parts)
            self._known.update(*parts.values())

    def _next_parts(self) -> dict[str, list[str]]:
        parts: dict[str, list[str]] = {}
        ids: list[str] = []
        size = 0
        for rating_id in self._backlog():
            if not ids or size > PART_BYTES:
                if len(parts) == PARTS:
                    break
                ids, size = parts.setdefault(_name(), []), 0
            ids.append(rating_id)
            size += self._rows.size(rating_id)
        return parts

    # Studies

    def _restore_studies(self, there: Mapping[str, str]) -> None:
        """Bring back the studies that this disk does not have."""
        for path in there:
            place, _, name = path.removeprefix("studies/").partition("/")
            if not path.startswith("studies/") or name != "study.yaml" or not _named_well(place):
                continue
            folder = self._studies / place
            if (folder / "study.yaml").exists():
                continue
            for file in STUDY_FILES:
                remote = f"studies/{place}/{file}"
                if remote in there:
                    data = self._repo.fetch(remote)
                    write_atomic(folder / file, data.decode("utf-8", "replace"))
                    os.chmod(folder / file, 0o600 if file == "raters.json" else 0o644)
                    self._pushed[remote] = blob_id(data)

    def _push_studies(self, there: Mapping[str, str]) -> None:
        """Files that have changed since they were last pushed from here, and are not there as they are."""
        changed: dict[str, bytes] = {}
        for path in sorted(self._studies.glob("*/study.yaml")):
            for file in (path.parent / name for name in STUDY_FILES):
                remote = f"studies/{path.parent.name}/{file.name}"
                data = file.read_bytes() if file.exists() else None
                if data is not None and blob_id(data) not in (self._pushed.get(remote), there.get(remote)):
                    changed[remote] = data
        if changed:
            self._repo.push(changed, f"{len(changed)} files of studies")
            self._pushed |= {path: blob_id(data) for path, data in changed.items()}


def _name() -> str:
    return f"data/{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{uuid.uuid4()}.csv"


def _named_well(study_id: str) -> bool:
    try:
        return check_id(study_id) == study_id
    except UserError:
        return False


def card() -> bytes:
    """The repository's README: what it holds and how to read it, in both languages."""
    head = '---\nconfigs:\n- config_name: default\n  data_files: "data/*.csv"\n---\n'
    return (head + "\n\n".join(Words(language)("sync.card") for language in LANGUAGES) + "\n").encode()
