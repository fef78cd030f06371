"""The raters of a study: a link each, a pseudonym, how far they have come, what their lists hold.

Covers: raters.json (locked, replaced as a whole), tokens that are kept as salted hashes only, the secret that orders and
signs. Does not cover: votes (ratings.csv), what goes on a list (study_plan.py). No name, no address, no IP is kept.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from assets.errors import UserError
from assets.files import lock, read_json, write_json
from compare.rating import now

VERSION = 1
TOKEN_BYTES = 18


class Slot(NamedTuple):
    """A place on a list. ``kind`` is "main", "repeat" or "aa"; ``left_is`` says which answer stands left."""

    kind: str
    item_id: str
    left_is: str


@dataclass(frozen=True)
class Rater:
    """``rater`` is the pseudonym in ratings.csv, ``number`` counts from 1, ``slots`` is the list as far as it is drawn,
    ``consented_to`` names the consent text that was agreed to (Studies.keep_consent)."""

    rater: str
    number: int
    role: str = "rater"
    hash: str = ""
    created_at: str = ""
    consented_at: str = ""
    consented_to: str = ""
    done_at: str = ""
    revealed_at: str = ""
    revoked_at: str = ""
    withdrawn_at: str = ""
    drawn_at: str = ""
    slots: tuple[Slot, ...] = ()


@dataclass(frozen=True)
class Link:
    """``code`` goes into the address. It is given once: only its hash is kept."""

    rater: str
    number: int
    code: str


@dataclass(frozen=True)
class Book:
    """raters.json. ``secret`` orders lists and signs tokens; it never leaves the server."""

    salt: str
    secret: str
    raters: tuple[Rater, ...] = ()

    def by_name(self, rater: str) -> Rater | None:
        return next((one for one in self.raters if one.rater == rater), None)

    def sign(self, *parts: object) -> str:
        """128 bits, in hex, that only this study's server can give for ``parts``."""
        return _signed(self.secret, "\0".join(map(str, parts)))


@lru_cache(maxsize=1 << 16)
def _signed(secret: str, message: str) -> str:
    return hmac.new(bytes.fromhex(secret), message.encode(), hashlib.sha256).hexdigest()[:32]


def split_code(code: str) -> tuple[str, str]:
    """ "<study id>.<token>" -> both. UserError("study.link_unknown") for anything else."""
    study_id, dot, token = str(code or "").strip().partition(".")
    if not dot or not study_id or not token or len(code) > 200:
        raise UserError("study.link_unknown")
    return study_id, token


class Raters:
    """studies/<id>/raters.json, shared by any number of threads and processes."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "raters.json"
        self.study_id = folder.name
        self._guard = threading.Lock()
        self._seen: tuple[tuple[int, ...], Book] | None = None

    def read(self) -> Book | None:
        """None before the first rater; read again only when the file has changed."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return None
        sign = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        with self._guard:
            if self._seen is not None and self._seen[0] == sign:
                return self._seen[1]
        book = _book(read_json(self.path))
        with self._guard:
            self._seen = (sign, book)
        return book

    def all(self) -> tuple[Rater, ...]:
        book = self.read()
        return book.raters if book else ()

    def add(self, count: int = 1, role: str = "rater") -> list[Link]:
        """New raters. UserError("study.range.raters") for less than 1 or more than 1000 at once."""
        if not 1 <= count <= 1000:
            raise UserError("study.range.raters", low=1, high=1000)
        links: list[Link] = []

        def more(book: Book) -> Book:
            raters = list(book.raters)
            for number in range(len(raters) + 1, len(raters) + 1 + count):
                token = secrets.token_urlsafe(TOKEN_BYTES)
                name = "r-" + _hash(book.salt, "name", token)[:12]
                raters.append(Rater(name, number, role, _hash(book.salt, "token", token), now()))
                links.append(Link(name, number, f"{self.study_id}.{token}"))
            return replace(book, raters=tuple(raters))

        self.change(more)
        return links

    def renew(self, rater: str) -> Link:
        """A new code for someone who lost theirs; the old one is dead from now on, the votes stay."""
        token = secrets.token_urlsafe(TOKEN_BYTES)

        def renewed(book: Book, old: Rater) -> Rater:
            return replace(old, hash=_hash(book.salt, "token", token), revoked_at="")

        kept = self.update(rater, renewed)
        return Link(rater, kept.number, f"{self.study_id}.{token}")

    def revoke(self, rater: str) -> None:
        """The link no longer opens; votes given stay."""
        self.update(rater, lambda book, old: replace(old, revoked_at=old.revoked_at or now()))

    def find(self, token: str) -> Rater:
        """The rater of a token. UserErrors: "study.link_unknown", "study.link_revoked"."""
        book = self.read()
        wanted = _hash(book.salt, "token", token) if book else ""
        found = next((r for r in book.raters if hmac.compare_digest(r.hash, wanted)), None) if book else None
        if found is None:
            raise UserError("study.link_unknown")
        if found.revoked_at:
            raise UserError("study.link_revoked")
        return found

    def update(self, rater: str, how: Callable[[Book, Rater], Rater]) -> Rater:
        """Change one rater under the lock and give the result. UserError("study.link_unknown") for nobody."""

        def changed(book: Book) -> Book:
            if book.by_name(rater) is None:
                raise UserError("study.link_unknown")
            return replace(book, raters=tuple(how(book, r) if r.rater == rater else r for r in book.raters))

        found = self.change(changed).by_name(rater)
        assert found is not None
        return found

    def change(self, how: Callable[[Book], Book]) -> Book:
        """Replace the book by ``how(book)`` under the lock; nothing is written when nothing changes."""
        with lock(self.path):
            old = self.read()
            book = how(old or Book(secrets.token_hex(16), secrets.token_hex(32)))
            if book != old:
                write_json(self.path, {"version": VERSION, **asdict(book)})
                os.chmod(self.path, 0o600)
        return book


def _hash(salt: str, purpose: str, token: str) -> str:
    return hmac.new(bytes.fromhex(salt), f"{purpose}\0{token}".encode(), hashlib.sha256).hexdigest()


def _book(record: Any) -> Book:
    version = record.get("version", 1)
    if version > VERSION:
        raise UserError("study.newer", version=version)
    known = {f.name for f in fields(Rater)}
    raters = []
    for row in record["raters"]:
        values = {k: v for k, v in row.items() if k in known}
        raters.append(Rater(**(values | {"slots": tuple(Slot(*slot) for slot in values.get("slots", ()))})))
    return Book(record["salt"], record["secret"], tuple(raters))
