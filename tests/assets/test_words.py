"""Every sentence in both languages, and every key that the code asks for."""

from __future__ import annotations

import ast
import json
import re
import string
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from assets import words as module
from assets.errors import UserError
from assets.words import LANGUAGES, STRINGS, Words, duration, size

ROOT = Path(__file__).parents[2]
FILES = [
    *(f for room in ("assets", "finetune", "compare") for f in sorted((ROOT / room).rglob("*.py"))),
    ROOT / "app.py",
]
KEY = re.compile(r"[a-z][a-z0-9_]*(\.[A-Za-z0-9_-]+)+")
NOT_KEYS = re.compile(
    r".*\.(json|jsonl|yaml|log|csv|txt|css|js|lock|svg|png|html|py|safetensors|bin|lease|jinja|model)"
)

# Names of values, looked up by whoever shows such a value, and two sentences that no page says yet.
NAMES = ("catalog.domain.", "catalog.licence.", "data.field.", "ratings.choice.")


def fields(text: str) -> set[str]:
    return {name.split(".")[0].split("[")[0] for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@cache
def korean() -> Words:
    return Words("ko")


@cache
def trees() -> tuple[tuple[Path, ast.Module], ...]:
    return tuple((file, ast.parse(file.read_text(encoding="utf-8"))) for file in FILES)


def areas() -> set[str]:
    return {key.split(".")[0] for key in korean().keys()}  # noqa: SIM118


@cache
def literals() -> dict[str, str]:
    """Every text in the code that begins like a key, with the file it stands in."""
    docs, found = set(), {}
    for file, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                docs.add(id(node.value))
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
                found[node.value] = file.name
    return found


def calls() -> Iterator[tuple[str, str, set[str]]]:
    """(where, key, names given) of every call with a literal key, as words("…", a=1) and UserError("…", a=1)."""
    for file, tree in trees():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or any(keyword.arg is None for keyword in node.keywords):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in ("words", "_words", "UserError") and node.args and isinstance(node.args[0], ast.Constant):
                key = str(node.args[0].value)
                yield f"{file.name}:{node.lineno}", key, {str(keyword.arg) for keyword in node.keywords}


def test_both_languages_say_the_same_things() -> None:
    one, other = (Words(language) for language in LANGUAGES)
    assert one.keys() == other.keys()
    differ = {key for key in one.keys() if fields(one._table[key]) != fields(other._table[key])}  # noqa: SIM118
    assert differ == set()


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_sentence_is_text_and_stands_once(language: str) -> None:
    seen: dict[str, str] = {}
    for file in sorted((STRINGS / language).glob("*.json")):
        pairs = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=list)
        for key, text in pairs:
            assert key not in seen, f"{key} stands in {file.name} and in {seen[key]}"
            assert KEY.fullmatch(key) and isinstance(text, str) and text.strip(), f"{file.name}: {key}"
            assert "" not in fields(text) and not any(name.isdigit() for name in fields(text)), key
            seen[key] = file.name
    assert seen


def test_the_korean_table_is_korean() -> None:
    hangul = re.compile("[가-힣]")
    foreign = {"app.name", "train.yaml", "train.f.rslora", "catalog.licence.apache-2.0"}
    plain = {k for k, text in korean()._table.items() if not hangul.search(re.sub(r"\{.*?\}", "", text))}
    assert {k for k in plain if re.search("[A-Za-z]{4}", re.sub(r"\{.*?\}", "", korean()._table[k]))} - foreign == set()


def test_the_english_table_holds_no_hangul() -> None:
    table = Words("en")._table
    assert {key for key, text in table.items() if re.search("[가-힣]", text)} - {"app.lang.ko"} == set()


def test_every_key_in_the_code_exists() -> None:
    known, rooms = korean().keys(), areas()
    missing = {
        text: file
        for text, file in literals().items()
        if KEY.fullmatch(text) and text.split(".")[0] in rooms and text not in known and not NOT_KEYS.fullmatch(text)
    }
    modules = {file.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for file in FILES}
    starts = {text for text in missing if text.endswith("_") and any(key.startswith(text) for key in known)}
    assert missing.keys() - modules - starts == set(), missing


def test_every_key_in_the_catalogue_exists() -> None:
    from assets.catalog import datasets, models

    keys = {key for card in models() for key in (card.about, *card.notes)}
    keys |= {key for card in datasets() for key in (card.title, card.about)}
    assert keys - korean().keys() == set()


def test_every_call_fills_in_what_its_sentence_needs() -> None:
    wrong = [
        f"{where} {key}: needs {sorted(fields(korean()._table[key]))}, gets {sorted(given)}"
        for where, key, given in calls()
        if key in korean() and not fields(korean()._table[key]) <= given
    ]
    assert wrong == []


def test_no_sentence_is_left_over() -> None:
    texts = literals()
    starts = tuple(text for text in texts if text.endswith(".") and text.split(".")[0] in areas())
    ends = tuple(text for text in texts if text.startswith(".") and len(text) > 2)
    written = "\n".join(f.read_text(encoding="utf-8") for f in (ROOT / "assets").glob("*.yaml"))
    unused = {
        key
        for key in korean().keys()  # noqa: SIM118
        if key not in texts and not key.startswith((*starts, *NAMES)) and key not in written
        if not (key.endswith(ends) and key.rsplit(".", 1)[0] in texts)
    }
    assert not unused, "\n".join(sorted(unused))


def test_looking_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for language, texts in (
        ("ko", {"a.one": "{n}개", "a.two": "둘"}),
        ("en", {"a.one": "{n} of {{x}}", "a.two": "two"}),
    ):
        (tmp_path / language).mkdir()
        (tmp_path / language / "a.json").write_text(json.dumps(texts), encoding="utf-8")
    monkeypatch.setattr(module, "STRINGS", tmp_path)
    module._table.cache_clear()
    try:
        words = Words("ko")
        assert words("a.one", n=3) == "3개" and words("a.two") == "둘"
        assert Words("en")("a.one", n=3, more=1) == "3 of {x}"
        assert words.error(UserError("a.one", n="{evil}")) == "{evil}개"
        assert "a.one" in words and "a.three" not in words and words.keys() == {"a.one", "a.two"}
        with pytest.raises(KeyError):
            words("a.three")
        with pytest.raises(ValueError, match="no such language"):
            Words("fr")
        (tmp_path / "en" / "b.json").write_text('{"a.one": "again"}', encoding="utf-8")
        module._table.cache_clear()
        with pytest.raises(ValueError, match="b.json defines a.one a second time"):
            Words("en")
    finally:
        module._table.cache_clear()


@pytest.mark.parametrize(
    ("seconds", "korean", "english"),
    [
        (0.2, "1초", "1 s"),
        (89, "89초", "89 s"),
        (90, "2분", "2 min"),
        (3540, "59분", "59 min"),
        (3600, "1시간", "1 h"),
        (2 * 3600 + 600, "2시간 10분", "2 h 10 min"),
        (47.9 * 3600, "47시간 54분", "47 h 54 min"),
        (72 * 3600, "3일", "3 days"),
    ],
)
def test_durations(seconds: float, korean: str, english: str) -> None:
    assert (duration(Words("ko"), seconds), duration(Words("en"), seconds)) == (korean, english)


def test_sizes() -> None:
    assert [size(n) for n in (0, 2**20, 1023 * 2**20, 2**30, 1.5 * 2**40)] == [
        "0 MB",
        "1 MB",
        "1023 MB",
        "1.0 GB",
        "1536.0 GB",
    ]
