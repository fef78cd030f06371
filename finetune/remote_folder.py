"""What the folder of a run says of itself, wherever the run was.

Covers: whether adapter or model, record and checkpoints are whole, the state that the files tell, a listing with which a script
seals a finished folder. Does not cover: bringing a folder here (remote_import.py). Weights are looked at without torch.

By hand, where a run has ended: python -m finetune.remote_folder FOLDER
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from assets.files import read_json, read_lines, write_json
from finetune.outcome import ADAPTER, MODEL

VERSION = 1
SEAL = "files.json"
FLAT = ("spec.yaml", "run.json", "metrics.jsonl", "samples.jsonl", "train.log")
MARK = "complete.json"
OUTCOMES = (ADAPTER, MODEL)
State = Literal["finished", "stopped", "failed", "running", "half", "nothing"]


@dataclass(frozen=True)
class Told:
    """``missing`` names files that are cut short or not there; ``step`` is that of the newest whole checkpoint."""

    state: State
    missing: tuple[str, ...] = ()
    error: dict[str, Any] | None = None
    step: int = 0


def look(folder: Path) -> Told:
    """What the files tell. "half": the run has ended, but not all that it wrote is here, or not whole."""
    step = _number(newest(folder))
    error = _error(folder)
    missing = [*_unsealed(folder), *_broken_json(folder)]
    record = _record(folder)
    if record is not None and not record.get("stopped") and not any(whole_outcome(folder / n) for n in OUTCOMES):
        missing.append(next((name for name in OUTCOMES if (folder / name).is_dir()), OUTCOMES[0]))
    if missing:
        return Told("half", tuple(dict.fromkeys(missing)), step=step)
    if record is not None:
        back = error if error and error["key"].startswith("train.back.") else None
        return Told("stopped" if record.get("stopped") else "finished", (), back, step)
    if error is not None:
        return Told("failed", (), error, step)
    return Told("running" if read_lines(folder / "metrics.jsonl") else "nothing", step=step)


def whole_outcome(place: Path) -> bool:
    """Whether an adapter or a model has its configuration and all of its weights, to the last byte."""
    try:
        read_json(place / ("adapter_config.json" if place.name == ADAPTER else "config.json"))
        index = place / "model.safetensors.index.json"
        names = set(read_json(index)["weight_map"].values()) if index.exists() else set()
        names |= {path.name for path in place.glob("*.safetensors")}
        return bool(names) and all(whole_safetensors(place / name) for name in names)
    except (OSError, ValueError, KeyError, AttributeError):
        return False


def whole_safetensors(file: Path) -> bool:
    """Whether a file is as long as its own header says (8 bytes of length, JSON with offsets, then the data)."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(8)
        if len(start) < 8 or (length := struct.unpack("<Q", start)[0]) > size - 8:
            return False
        entries = json.loads(opened.read(length))
    ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
    return bool(ends) and 8 + length + max(ends) == size


def whole_checkpoint(folder: Path) -> bool:
    """Whether every file that the mark lists is there with its size."""
    try:
        listed: dict[str, int] = read_json(folder / MARK)["files"]
        return all((folder / name).stat().st_size == size for name, size in listed.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint of a run."""
    found = (c for c in (folder / "checkpoints").glob("checkpoint-*") if c.name.rsplit("-", 1)[-1].isdigit())
    return max((c for c in found if whole_checkpoint(c)), key=_number, default=None)


def _number(checkpoint: Path | None) -> int:
    return int(checkpoint.name.rsplit("-", 1)[-1]) if checkpoint else 0


def carried(folder: Path) -> Iterator[Path]:
    """The files of a run that travel: record, curves, log, adapter or model and whole checkpoints; links are no files here."""
    found = [folder / name for name in FLAT]
    found += sorted(folder.glob("error*.json"))
    for name in OUTCOMES:
        found += sorted((folder / name).rglob("*"))
    checkpoint = newest(folder)
    found += sorted(checkpoint.rglob("*")) if checkpoint else []
    yield from (path for path in found if path.is_file() and not path.is_symlink())


def seal(folder: Path) -> Path:
    """List every file that travels with size and sha256, so that a copy can be told from half a copy."""
    files = {path.relative_to(folder).as_posix(): [path.stat().st_size, _sha256(path)] for path in carried(folder)}
    write_json(folder / SEAL, {"version": VERSION, "files": files})
    return folder / SEAL


def _unsealed(folder: Path) -> list[str]:
    """Files that the seal lists and that are not here as it says; none where nothing was sealed."""
    if not (folder / SEAL).is_file():
        return []
    try:
        listed = read_json(folder / SEAL)["files"]
        return [name for name, (size, digest) in listed.items() if not _same(folder / name, size, digest)]
    except (ValueError, KeyError, TypeError):
        return [SEAL]


def _same(path: Path, size: int, digest: str) -> bool:
    return path.is_file() and path.stat().st_size == size and _sha256(path) == digest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _record(folder: Path) -> dict[str, Any] | None:
    try:
        return dict(read_json(folder / "run.json"))
    except (OSError, ValueError, TypeError):
        return None


def _error(folder: Path) -> dict[str, Any] | None:
    """What the run said of its end; of several ranks the first that did not only lose another."""
    found = []
    for file in folder.glob("error*.json"):
        try:
            told = read_json(file)
            found.append({"key": str(told["key"]), "values": dict(told["values"]), "time": told.get("time", 0.0)})
        except (OSError, ValueError, KeyError, TypeError):
            continue
    found.sort(key=lambda told: (told["key"] == "train.rank_lost", told["time"]))
    return {"key": found[0]["key"], "values": found[0]["values"]} if found else None


def _broken_json(folder: Path) -> list[str]:
    """Records that are there and cannot be read: copied while they were written, or cut."""
    broken = []
    for file in (folder / "run.json", *folder.glob("error*.json")):
        if file.is_file():
            try:
                read_json(file)
            except ValueError:
                broken.append(file.name)
    return broken


if __name__ == "__main__":
    print(seal(Path(sys.argv[1]).resolve()))
