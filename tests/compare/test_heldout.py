"""Held-out prompts come first when a side has learnt from votes."""

from __future__ import annotations

from pathlib import Path

from assets.catalog import prompts
from assets.files import write_json
from assets.split import is_heldout
from compare.desk import Candidate
from compare.heldout import ordered

BASE = Candidate("base", "base", "base")


def side(folder: Path, **run: object) -> Candidate:
    folder.mkdir()
    write_json(folder / "run.json", {"version": 1, **run})
    return Candidate("tuned", "tuned", "base", adapter=str(folder))


def test_the_order_of_prompts(tmp_path: Path) -> None:
    known = prompts("emotion")
    voted = ordered(known, (BASE, side(tmp_path / "dpo", objective="dpo")))
    held = [is_heldout(prompt.messages) for prompt in voted]
    assert 0 < sum(held) < len(held) and held == sorted(held, reverse=True)
    assert sorted(p.id for p in voted) == sorted(p.id for p in known)
    for plain in ((), (BASE,), (BASE, side(tmp_path / "sft", objective="sft")), (BASE, side(tmp_path / "old"))):
        assert ordered(known, plain) == known
    assert ordered(known, (Candidate("x", "x", "base", adapter="some/hub-adapter"),)) == known
