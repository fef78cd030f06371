from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from assets.errors import UserError
from compare.study_raters import Raters, Slot, split_code


def test_tokens_are_long_random_and_never_on_disk(tmp_path: Path) -> None:
    raters = Raters(tmp_path / "study-1")
    links = raters.add(30)
    tokens = [split_code(link.code)[1] for link in links]
    assert len(set(tokens)) == 30 and min(map(len, tokens)) >= 22  # 22 of 64 letters are 132 bits
    text = raters.path.read_text()
    assert not any(token in text for token in tokens)
    assert stat.S_IMODE(raters.path.stat().st_mode) == 0o600
    assert json.loads(text)["version"] == 1
    book = raters.read()
    assert book is not None and len(bytes.fromhex(book.secret)) == 32
    for link, token in zip(links, tokens, strict=True):
        assert raters.find(token).rater == link.rater
        assert token not in link.rater and link.rater.startswith("r-")
    kept = set(json.loads(text)["raters"][0])
    assert not kept & {"ip", "address", "email", "name", "phone"}


def test_the_same_token_has_another_hash_and_name_in_another_study(tmp_path: Path) -> None:
    one, two = Raters(tmp_path / "a"), Raters(tmp_path / "b")
    code = one.add()[0].code
    two.add()
    with pytest.raises(UserError, match=r"study\.link_unknown"):
        two.find(split_code(code)[1])


def test_two_processes_add_raters_at_once(tmp_path: Path) -> None:
    sides = [Raters(tmp_path / "s") for _ in range(6)]
    with ThreadPoolExecutor(6) as threads:
        found = [link for links in threads.map(lambda r: r.add(3), sides) for link in links]
    assert sorted(link.number for link in found) == list(range(1, 19))
    assert len(Raters(tmp_path / "s").all()) == 18


def test_what_is_kept_of_a_rater_comes_back(tmp_path: Path) -> None:
    raters = Raters(tmp_path / "s")
    name = raters.add()[0].rater
    slots = (Slot("main", "p:x1-x2", "model_a"), Slot("repeat", "p:x1-x2", "model_b"))
    kept = raters.update(name, lambda book, r: replace(r, slots=slots, consented_at="t"))
    assert Raters(tmp_path / "s").all() == (kept,) and kept.slots == slots
    with pytest.raises(UserError, match=r"study\.link_unknown"):
        raters.update("nobody", lambda book, r: r)


def test_a_later_version_is_refused_and_bad_numbers_too(tmp_path: Path) -> None:
    raters = Raters(tmp_path / "s")
    for count in (0, -1, 1001):
        with pytest.raises(UserError, match=r"study\.range\.raters"):
            raters.add(count)
    raters.add()
    record = json.loads(raters.path.read_text()) | {"version": 2}
    raters.path.write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"study\.newer"):
        raters.all()


def test_codes_that_are_none() -> None:
    for code in ("", ".", "a.", ".b", "abc", "x" * 300 + ".y"):
        with pytest.raises(UserError, match=r"study\.link_unknown"):
            split_code(code)
    assert split_code(" a.b-c_d \n") == ("a", "b-c_d")
