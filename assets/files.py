"""The workspace on disk: where things are, and how to write them so that nobody ever reads half a file.

Covers: paths, atomic replacement, locked and synced appends, versioned JSON. Does not cover: what the files mean.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

HANDED_OUT = 3600  # seconds


@dataclass(frozen=True)
class Workspace:
    """Everything the program keeps, below one folder (``NARANHI_HOME``, default ./workspace)."""

    root: Path

    @classmethod
    def from_environment(cls) -> Workspace:
        return cls(Path(os.environ.get("NARANHI_HOME") or "workspace").expanduser().resolve())

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def jobs(self) -> Path:
        return self.root / "jobs"

    @property
    def uploads(self) -> Path:
        return self.root / "uploads"

    @property
    def ratings(self) -> Path:
        return self.root / "ratings"

    @property
    def leases(self) -> Path:
        return self.root / "leases"

    def prepare(self) -> Workspace:
        """Make the folders; safe to repeat."""
        for folder in (self.models, self.jobs, self.uploads, self.ratings, self.leases):
            folder.mkdir(parents=True, exist_ok=True)
        return self


def write_atomic(path: Path, text: str) -> None:
    """Replace a file by a whole new one: readers see the old or the new text, never a part. OSError on a full disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        os.chmod(name, 0o644)
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def for_download(name: str) -> Path:
    """Where to write a file that a page hands out, alone in a new folder; the page's server keeps a copy of its own.

    What was handed out an hour ago and more is deleted.
    """
    prefix = "naranhi-download-"
    for old in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(OSError):  # another deletes it at this moment, or it is another user's
            if time.time() - old.stat().st_mtime > HANDED_OUT:
                shutil.rmtree(old)
    return Path(tempfile.mkdtemp(prefix=prefix)) / name


def write_json(path: Path, value: object) -> None:
    """``write_atomic`` of readable JSON. NaN is refused (ValueError): browsers cannot read it."""
    write_atomic(path, json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON in a file. FileNotFoundError or json.JSONDecodeError as they come."""
    return json.loads(path.read_text(encoding="utf-8"))


def append_line(path: Path, line: str) -> None:
    """Add one line and sync it to disk. One writer per file; for several use ``lock``."""
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file that is being written to. A torn last line is left for the next reading; a torn line
    that a writer left when it was killed is no line (see ``end_line``)."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1]
    rows = []
    for line in whole.split("\n"):  # not splitlines: answers may hold U+2028 and its like
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def end_line(path: Path) -> None:
    """Close a line that a killed writer left torn, so that the next writer begins on a line of its own."""
    if path.exists() and (data := path.read_bytes()) and not data.endswith(b"\n"):
        append_line(path, "")


def lock(path: Path, timeout: float = 30) -> FileLock:
    """An OS lock beside ``path``, held across processes and released by the system when the holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(str(path) + ".lock", timeout=timeout)
