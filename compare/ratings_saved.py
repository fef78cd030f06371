"""The index of ratings.csv as a file: what it holds, and the proof that it is about the file that is there.

Covers: digests of a file's bytes, writing and reading the index, refusing one that is damaged or of another version.
Does not cover: making it (ratings_index.py). It is a digest, a line of JSON and an Arrow stream; nothing in it can run.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compare.ratings_table import LightVote

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 1
PIECE = 1 << 24
EDGE = 1 << 12
# Seconds for which a file must have been still before its size and time are trusted: clocks of file systems are coarse.
STILL = 2.0

Sign = tuple[int, int, int]


@dataclass(frozen=True)
class Proof:
    """What bytes were: digests of every PIECE of the first ``size`` of them, the file's sign then, and when."""

    size: int = 0
    digests: tuple[str, ...] = ()
    sign: Sign = (0, 0, 0)
    at: float = 0.0

    def still(self, sign: Sign) -> bool:
        """Whether size, inode and time alone show that nothing has changed."""
        return sign == self.sign and sign[2] / 1e9 < self.at - STILL

    def holds(self, path: Path, sign: Sign) -> bool:
        """Whether the file still begins with those bytes."""
        return sign[1] >= self.size and digests(path, self.size) == self.digests


def sign_of(path: Path) -> Sign | None:
    """Inode, size and time of change; None when there is no such file."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def edges(path: Path, end: int) -> tuple[bytes, bytes]:
    """The first and the last bytes of the first ``end``."""
    with path.open("rb") as file:
        head = file.read(min(EDGE, end))
        file.seek(max(0, end - EDGE))
        return head, file.read(min(EDGE, end))


def digests(path: Path, size: int) -> tuple[str, ...]:
    """Of every PIECE of the first ``size`` bytes."""
    with path.open("rb") as file, ThreadPoolExecutor(2) as pool:
        handle = file.fileno()
        return tuple(
            pool.map(lambda at: _digest(os.pread(handle, min(PIECE, size - at), at)).decode(), range(0, size, PIECE))
        )


def _digest(*parts: Any) -> bytes:
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        found.update(part)
    return found.hexdigest().encode()


def write(path: Path, head: Mapping[str, Any], proof: Proof, columns: pa.Table) -> None:
    """Replace the index. ``head`` is JSON. OSError on a full disk."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, columns.schema) as writer:
        writer.write_table(columns)
    body = memoryview(sink.getvalue())
    about = {"version": VERSION, "columns": list(LightVote._fields), "proof": list(proof.__dict__.values()), **head}
    line = json.dumps(about, default=str).encode() + b"\n"
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            for part in (_digest(line, body), b"\n", line, body):
                file.write(part)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read(path: Path) -> tuple[dict[str, Any], Proof, pa.Table] | None:
    """What ``write`` was given; None for a file that is not there, not whole or not of this version."""
    import pyarrow as pa

    try:
        with path.open("rb") as file:
            digest, line, body = file.readline(), file.readline(), file.read()
        if digest.strip() != _digest(line, body):
            return None
        head = json.loads(line)
        if head["version"] != VERSION or head["columns"] != list(LightVote._fields):
            return None
        size, found, sign, at = head["proof"]
        return head, Proof(size, tuple(found), tuple(sign), at), pa.ipc.open_stream(body).read_all()
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None
