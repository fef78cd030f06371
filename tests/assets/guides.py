"""The guides and READMEs as the tests read them: prose, blocks of code, headings, quotations, tables.

Covers: finding the files and cutting them up. Does not cover: judging them (test_guides.py, test_guide_commands.py,
test_guide_examples.py).
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "assets" / "guides"
READMES = sorted(ROOT.glob("README*.md"))
DOCS = [*READMES, *sorted(GUIDES.rglob("*.md"))]
NAMES = [path.name for path in sorted((GUIDES / "ko").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def guide(language: str, name: str) -> Path:
    return GUIDES / language / name


def prose(path: Path) -> str:
    """Without blocks of code."""
    return FENCE.sub("", text(path))


def blocks(path: Path, kind: str) -> list[str]:
    return [body for found, body in FENCE.findall(text(path)) if found == kind]


def headings(path: Path) -> list[str]:
    return re.findall(r"^#{1,6} .+$", prose(path), re.MULTILINE)


def quoted(path: Path) -> list[str]:
    """Each quotation is one line."""
    return [line.removeprefix("> ") for line in re.findall(r"^> .+$", prose(path), re.MULTILINE)]


def table(language: str, name: str, mark: str) -> list[list[str]]:
    """The cells of the table below ``<!-- mark -->``, its head left out."""
    body = text(guide(language, name)).split(f"<!-- {mark} -->\n")[1].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines()[2:]]
