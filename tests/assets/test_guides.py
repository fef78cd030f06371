"""The guides and READMEs are true: what they link to, quote and name is there, and both languages say it.

Covers: both languages in step, links, files, quoted messages, names on the screen, environment variables. Does not cover:
commands (test_guide_commands.py), examples and figures (test_guide_examples.py), prose. Rules for whoever writes guides: a
quotation holds a message of the page and nothing else, bold is for names on the screen (in all but OLDER), terminals' words
stand in ``text`` blocks of the troubleshooting guide.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from assets.words import LANGUAGES, Words
from tests.assets.guides import (
    DOCS,
    FENCE,
    GUIDES,
    NAMES,
    READMES,
    ROOT,
    blocks,
    guide,
    headings,
    prose,
    quoted,
    shown,
    text,
)

OLDER = {"elsewhere", "measured", "ratings", "remote"}  # bold is emphasis there
HOLE = re.compile(r"\{\w+(?::[^}]*)?\}")
VARIABLE = re.compile(r"\bNARANHI_[A-Z]+(?:_[A-Z]+)*\b")
READERS_OWN = {"NARANHI_VLLM_KEY"}  # a shell variable in a command, for another program


def test_both_languages_have_the_same_guides() -> None:
    assert [path.name for path in sorted((GUIDES / "en").glob("*.md"))] == NAMES and len(NAMES) >= 12


@pytest.mark.parametrize("name", NAMES)
def test_both_languages_are_built_alike(name: str) -> None:
    korean, english = (guide(language, name) for language in LANGUAGES)
    for count in (levels, kinds, quotations, rows):
        assert count(korean) == count(english), count.__name__


def levels(path: Path) -> list[int]:
    return [heading.index(" ") for heading in headings(path)]


def kinds(path: Path) -> list[str]:
    return [kind for kind, _ in FENCE.findall(text(path))]


def quotations(path: Path) -> int:
    return len(quoted(path))


def rows(path: Path) -> int:
    return len(re.findall(r"^\|", prose(path), re.MULTILINE))


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_index_names_every_guide(language: str) -> None:
    linked = re.findall(r"\]\((\w[\w-]*\.md)\)", text(guide(language, "README.md")))
    assert sorted([*linked, "README.md"]) == NAMES


# Links, files, labels, messages, variables.


def anchors(path: Path) -> set[str]:
    """As GitHub and the Hub make them."""
    plain = [re.sub(r"[`*]", "", heading.lstrip("# ")).lower() for heading in headings(path)]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("path", DOCS, ids=shown)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if target.startswith(("https://", "http://")):
            continue
        file, _, anchor = target.partition("#")
        aim = (path.parent / file).resolve() if file else path
        assert aim.is_file(), target
        assert not anchor or anchor in anchors(aim), target


@pytest.mark.parametrize("path", DOCS, ids=shown)
def test_files_that_are_named_exist(path: Path) -> None:
    found = re.findall(r"`((?:assets|finetune|compare|tests)/[\w./-]+\w)`", prose(path))
    assert [name for name in found if not (ROOT / name).exists()] == []


@cache
def labels(language: str) -> frozenset[str]:
    """Everything that may stand on a button or in front of a field; of several lines the first is the name."""
    words = Words(language)
    return frozenset(" ".join(line.split()) for key in words.keys() for line in words(key).split("\n"))  # noqa: SIM118


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", [name for name in NAMES if name.removesuffix(".md") not in OLDER])
def test_names_on_the_screen_are_those_on_the_screen(name: str, language: str) -> None:
    bold = re.findall(r"\*\*(.+?)\*\*", prose(guide(language, name)), re.DOTALL)
    assert [one for one in bold if " ".join(one.split()) not in labels(language)] == []


@cache
def messages(language: str) -> dict[str, re.Pattern[str]]:
    """Keys and what their sentences may look like once they are filled in; those that are all holes say nothing."""
    words, found = Words(language), {}
    for key in words.keys():  # noqa: SIM118
        parts = HOLE.split(words(key))
        if len(re.findall(r"\w", "".join(parts))) >= 4:
            found[key] = re.compile(".+".join(map(re.escape, parts)), re.DOTALL)
    return found


def said(message: str, language: str) -> set[str]:
    return {key for key, pattern in messages(language).items() if pattern.fullmatch(message)}


@pytest.mark.parametrize("name", NAMES)
def test_quoted_messages_are_those_of_the_page(name: str) -> None:
    """And the same ones in both languages."""
    pairs = zip(*(quoted(guide(language, name)) for language in LANGUAGES), strict=True)
    keys = [tuple(said(message, language) for message, language in zip(pair, LANGUAGES, strict=True)) for pair in pairs]
    assert [pair for pair in keys if not set.intersection(*pair)] == []


def test_troubleshooting_covers_much_and_nothing_twice() -> None:
    told = quoted(guide("ko", "troubleshooting.md"))
    assert len(told) >= 60 and len(set(told)) == len(told)


TERMINAL = {
    "is busy, so this is http://": "app.py",
    "are all taken; set NARANHI_PORT to a free one": "app.py",
    "Naranhi needs Python 3.11 or newer (with venv): https://www.python.org/downloads/": "Makefile",
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_the_terminal_says(language: str) -> None:
    lines = [body.strip() for body in blocks(guide(language, "troubleshooting.md"), "text")]
    assert len(lines) == len(TERMINAL)
    for line, (part, file) in zip(lines, TERMINAL.items(), strict=True):
        assert part in line and part in text(ROOT / file)


def variables(*places: str) -> set[str]:
    """Names in strings of the code, docstrings left out."""
    found: set[str] = set()
    for place in places:
        path = ROOT / place
        for file in [path] if path.is_file() else path.rglob("*.py"):
            tree = ast.parse(text(file))
            holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
            spoken = {id(n.body[0].value) for n in ast.walk(tree) if isinstance(n, holders) and _speaks(n)}  # type: ignore[attr-defined]
            constants = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in spoken]
            found |= {name for n in constants if isinstance(n.value, str) for name in VARIABLE.findall(n.value)}
    return found


def _speaks(node: Any) -> bool:
    return bool(node.body) and isinstance(node.body[0], ast.Expr)


def test_every_variable_is_documented_and_every_documented_one_is_read() -> None:
    read = variables("app.py", "assets", "finetune", "compare")
    for language in LANGUAGES:
        told = {name for path in (GUIDES / language).glob("*.md") for name in VARIABLE.findall(text(path))}
        assert sorted(read - told) == []
        assert sorted(told - read - READERS_OWN - variables("tests")) == []
    told = {name for path in READMES for name in VARIABLE.findall(text(path))}
    assert sorted(told - read) == []
