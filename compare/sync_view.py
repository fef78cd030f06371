"""What the owner sees of the copy on the Hub, as one line of HTML.

Covers: rows saved, rows waiting, when it was last in step, what is wrong. Does not cover: syncing (sync.py).
"""

from __future__ import annotations

import time
from html import escape

from assets.words import Words, duration
from compare.sync import SyncStatus


def warning(status: SyncStatus, words: Words) -> str:
    """The line when something is wrong, else ""."""
    return line(status, words) if status.error is not None else ""


def line(status: SyncStatus | None, words: Words, now: float | None = None) -> str:
    """ "" without a repository. ``now``: seconds since the epoch, for tests."""
    if status is None:
        return ""
    repo = f"<b>{escape(status.repo)}</b>"
    if status.last is not None:
        passed = (time.time() if now is None else now) - status.last
        text = words("sync.saved", n=status.saved, repo=repo, ago=duration(words, passed))
    elif status.error is None:
        text = words("sync.first", repo=repo)
    else:
        text = words("sync.never", repo=repo)
    notes = [text]
    if status.backlog:
        notes.append(words("sync.backlog", n=status.backlog))
    if status.restored:
        notes.append(words("sync.restored", n=status.restored))
    if status.nameless:
        notes.append(words("sync.nameless", n=status.nameless))
    if status.unreadable:
        notes.append(words("sync.unreadable", files=escape(", ".join(status.unreadable[:3]))))
    if status.error is None:
        return f'<p class="n-sub n-sync">{" ".join(notes)}</p>'
    return f'<div class="n-note warn n-sync">{escape(words.error(status.error))} {" ".join(notes)}</div>'
