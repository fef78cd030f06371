"""Bytes to text, for the encodings that Korean files really have.

Covers: UTF-8 with and without a byte order mark, UTF-16, CP949 and EUC-KR, and saying where a file is broken or mixed.
Does not cover: other legacy encodings; they are refused rather than guessed, since a wrong guess is silent nonsense.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter

from assets.errors import UserError

_HANGUL_IN_UTF8 = re.compile(rb"[\xea-\xed][\x80-\xbf]{2}")
_HANJA = re.compile("[\u3400-\u9fff\uf900-\ufaff]")
_ASCII = re.compile("[\0-\x7f]+")
_IMPLAUSIBLE = 0.5


def decode(raw: bytes) -> tuple[str, str]:
    """The text and the name of its encoding. UserError: data.nul, data.undecodable, data.mixed_encodings."""
    text, name = _decode(raw)
    nul = text.find("\0")
    if nul >= 0:
        raise UserError("data.nul", line=text.count("\n", 0, nul) + 1)
    return text, name


def _decode(raw: bytes) -> tuple[str, str]:
    if raw.startswith(codecs.BOM_UTF8):
        return _strict(raw, 3, "utf-8"), "UTF-8 (BOM)"
    for mark, codec in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
        if raw.startswith(mark):
            return _strict(raw, 2, codec), "UTF-16"
    if b"\0" in raw:
        return _unmarked_utf16(raw)
    try:
        return raw.decode("utf-8"), "UTF-8"
    except UnicodeDecodeError:
        return _korean(raw)


def _strict(raw: bytes, mark: int, codec: str) -> str:
    try:
        return raw[mark:].decode(codec)
    except UnicodeDecodeError as error:
        before = raw[mark : mark + error.start].decode(codec)
        raise UserError("data.undecodable", line=before.count("\n") + 1, byte=mark + error.start + 1) from error


def _unmarked_utf16(raw: bytes) -> tuple[str, str]:
    """NUL bytes are either UTF-16 without its mark, where each line end carries one, or damage."""
    for codec in ("utf-16-le", "utf-16-be"):
        try:
            text = raw.decode(codec)
        except UnicodeDecodeError:
            continue
        if "\n" in text and "\0" not in text:
            return text, "UTF-16"
    raise UserError("data.nul", line=raw.count(b"\n", 0, raw.find(b"\0")) + 1)


def _korean(raw: bytes) -> tuple[str, str]:
    """CP949 if every line is; otherwise the first line that is not like the others is named."""
    if not _HANGUL_IN_UTF8.search(raw) and _valid(raw, "cp949"):
        return _checked_cp949(raw)
    first: dict[str, tuple[int, int]] = {}
    count = {"utf8": 0, "cp949": 0, "": 0}
    position = 0
    for number, line in enumerate(raw.split(b"\n"), 1):
        if not line.isascii():
            kind = _kind(line)
            first.setdefault(kind, (number, position))
            count[kind] += 1
        position += len(line) + 1
    if set(first) == {"cp949"}:
        return _checked_cp949(raw)
    main = "utf8" if count["utf8"] >= count["cp949"] else "cp949"
    number, position = min(place for kind, place in first.items() if kind != main)
    line = raw[position:].split(b"\n", 1)[0]
    key = "data.mixed_encodings" if count["utf8"] and count["cp949"] else "data.undecodable"
    raise UserError(key, line=number, byte=position + _first_bad(line, main) + 1)


def _kind(line: bytes) -> str:
    utf8 = _valid(line, "utf-8")
    if utf8 and _HANGUL_IN_UTF8.search(line):
        return "utf8"
    if _valid(line, "cp949"):
        return "cp949"
    return "utf8" if utf8 else ""


def _valid(line: bytes, codec: str) -> bool:
    try:
        line.decode(codec)
    except UnicodeDecodeError:
        return False
    return True


def _first_bad(line: bytes, codec: str) -> int:
    try:
        line.decode(codec)
    except UnicodeDecodeError as error:
        return error.start
    return next(place for place, byte in enumerate(line) if byte > 127)


def _checked_cp949(raw: bytes) -> tuple[str, str]:
    """Broken UTF-8 or another country's text may pass as CP949, but then it reads as hanja and rare syllables."""
    text = raw.decode("cp949")
    counts = Counter(_ASCII.sub("", text))
    rare = sum(count for character, count in counts.items() if _beyond_euc_kr(character))
    hanja = sum(count for character, count in counts.items() if _HANJA.match(character))
    if rare + hanja > _IMPLAUSIBLE * counts.total():
        place = _first_bad(raw, "utf-8")
        raise UserError("data.undecodable", line=raw.count(b"\n", 0, place) + 1, byte=place + 1)
    return text, "CP949" if rare else "EUC-KR"


def _beyond_euc_kr(character: str) -> bool:
    """EUC-KR is the part of CP949 with both bytes from 0xA1 (Python's own codec spells the rest out in jamo)."""
    return min(character.encode("cp949")) < 0xA1
