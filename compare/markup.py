"""Answers as HTML: the few marks of Markdown that chat models use, everything else as plain text.

Covers: paragraphs, headings, lists, bold, italics, code. Does not cover: links, pictures and raw HTML, which stay the
text they are: an answer must not be able to load anything, nor to look unlike the other side's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape

_HEADING = re.compile(r"#{1,6}\s+(.*)")
_BULLET = re.compile(r"\s*[-*•]\s+(.*)")
_NUMBER = re.compile(r"\s*(\d{1,3})[.)]\s+(.*)")
_RULE = re.compile(r"\s*([-*_])\s*(?:\1\s*){2,}$")
_CODE = re.compile(r"`([^`\n]+)`")
_BOLD = re.compile(r"\*\*(?=\S)(.+?)(?<=\S)\*\*")
_ITALIC = re.compile(r"(?<![*\w])\*(?=[^\s*])([^*\n]+?)(?<=[^\s*])\*(?![*\w])")


def html(text: str, *, growing: bool = False) -> str:
    """Markdown as safe HTML. ``growing`` text may end inside a bold passage or a code block, shown as such already."""
    if growing:
        text = _closed(text)
    return "".join(_blocks(text.split("\n")))


def _closed(text: str) -> str:
    last = text[text.rfind("\n") + 1 :].rstrip("*")
    kept = text[: len(text) - len(text[text.rfind("\n") + 1 :])] + last
    return kept + "**" if last.count("**") % 2 and not last.endswith("**") else kept


def _blocks(lines: list[str]) -> Iterator[str]:
    plain: list[str] = []
    rest = iter(lines)
    for line in rest:
        block = _fence(line, rest) if line.lstrip().startswith("```") else _block(line)
        if block is None and line.strip():
            plain.append(_inline(line))
            continue
        if plain:
            yield f"<p>{'<br>'.join(plain)}</p>"
            plain = []
        yield block or ""
    if plain:
        yield f"<p>{'<br>'.join(plain)}</p>"


def _fence(line: str, rest: Iterator[str]) -> str:
    code = []
    for inner in rest:
        if inner.strip().startswith("```"):
            break
        code.append(inner)
    return f"<pre><code>{escape(chr(10).join(code))}</code></pre>"


def _block(line: str) -> str | None:
    """A line that is a block of its own, or None. List items are lines with a mark: numbers stay as written."""
    if _RULE.fullmatch(line):
        return "<hr>"
    if match := _HEADING.fullmatch(line):
        return f'<p class="n-md-h">{_inline(match[1])}</p>'
    if match := _BULLET.fullmatch(line):
        return f'<p class="n-md-li{_depth(line)}"><i>•</i><span>{_inline(match[1])}</span></p>'
    if match := _NUMBER.fullmatch(line):
        return f'<p class="n-md-li{_depth(line)}"><i>{match[1]}.</i><span>{_inline(match[2])}</span></p>'
    return None


def _depth(line: str) -> str:
    return " n-md-in" if len(line) - len(line.lstrip()) >= 2 else ""


def _inline(line: str) -> str:
    """Code first, so that nothing inside it is read as a mark."""
    parts = _CODE.split(escape(line, quote=False))
    return "".join(f"<code>{part}</code>" if i % 2 else _marks(part) for i, part in enumerate(parts))


def _marks(text: str) -> str:
    return _ITALIC.sub(r"<em>\1</em>", _BOLD.sub(r"<strong>\1</strong>", text))
