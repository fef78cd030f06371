"""What the votes say of a finished run, kept in its record.

Covers: the sentences in every language of the page, written into run.json when they change, and shown with the run. Does
not cover: the votes themselves and what they say (whoever calls passes that in).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from html import escape
from pathlib import Path

from assets.files import read_json, write_json
from assets.words import LANGUAGES, Words
from finetune import share
from finetune.jobs import Jobs

Say = Callable[[str, Words], Sequence[str]]


def keep(jobs: Jobs, say: Say) -> list[str]:
    """Bring the record of each finished run up to date; the ids of those that changed.

    ``say`` gives the sentences about the adapter with a sha256, none without votes."""
    return [job.id for job in jobs.list() if job.state == "finished" and _keep(jobs.folder(job.id), say)]


def _keep(folder: Path, say: Say) -> bool:
    file, weights = folder / "run.json", folder / "adapter" / share.WEIGHTS
    if not file.is_file() or not weights.is_file():
        return False
    stat = weights.stat()
    sha256 = _digest(folder, stat.st_size, stat.st_mtime_ns)
    said = {language: list(say(sha256, Words(language))) for language in LANGUAGES}
    run = read_json(file)
    if not any(said.values()) or run.get("verdict") == said:
        return False
    write_json(file, {**run, "verdict": said})
    return True


@lru_cache(maxsize=4096)
def _digest(folder: Path, size: int, changed: int) -> str:
    """sha256 of the adapter in ``folder``; its size and time of change make it another one."""
    found = share.digest(folder)
    assert found is not None
    return found


def show(folder: Path, words: Words) -> str:
    """The record's verdict as HTML: the share with its interval, or why there is none yet; "" without votes."""
    file = folder / "run.json"
    said = read_json(file).get("verdict", {}).get(words.language, []) if file.is_file() else []
    if len(said) < 2:
        return ""
    return f'<p class="n-sub">{words("train.verdict", text=escape(str(said[1])))}</p>'
