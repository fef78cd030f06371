"""Whether LoRA was enough: figures from the runs' files, and the verdict that they allow."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assets.files import Workspace, write_json
from assets.words import LANGUAGES, Words
from finetune import groups, rates, views_enough
from finetune.enough import ROLES
from finetune.enough_result import CHEAPEST, NOISE, Row, Verdict, noise, pair, rows, verdict
from finetune.groups import Group, LeftOut, Member
from finetune.jobs import Jobs

MEASURED = {"small": 1.187, "wide": 1.038, "qlora": 1.066, "full": 1.0505}
"""The losses of the starter in the knowledge of this program (rates.py)."""


def results(losses: dict[str, float | None], heldout: int = 300, state: str = "finished") -> list[Row]:
    return [Row(role, f"job-{role}", state, loss=loss, heldout=heldout, result=True) for role, loss in losses.items()]


def told(losses: dict[str, float | None], **more: Any) -> tuple[str, str, str, float]:
    found = verdict(results(losses, **more))
    return found.kind, found.role, found.than, round(found.difference * 100, 1)


def test_the_cheapest_that_cannot_be_told_from_full_fine_tuning() -> None:
    assert told(MEASURED) == ("close", "qlora", "full", 1.5)
    assert told(MEASURED | {"qlora": 1.2}) == ("close", "wide", "full", -1.2)
    assert told(MEASURED | {"small": 1.05}) == ("close", "qlora", "full", 1.5)


def test_ahead_and_behind() -> None:
    assert told({"wide": 0.9, "qlora": 1.2, "full": 1.05}) == ("ahead", "wide", "full", -14.3)
    assert told({"small": 1.04, "wide": 0.9, "qlora": 0.91, "full": 1.05}) == ("ahead", "qlora", "full", -13.3)
    assert told({"small": 1.5, "wide": 1.2, "full": 1.0}) == ("behind", "wide", "full", 20.0)


def test_without_full_fine_tuning() -> None:
    assert told({"small": 1.5, "wide": 1.0}) == ("lowest", "wide", "", 0.0)
    assert told({"qlora": 1.01, "wide": 1.0}) == ("near", "qlora", "wide", 1.0)
    assert told({"qlora": 1.0, "wide": 1.01}) == ("lowest", "qlora", "", 0.0)


def test_few_to_compare() -> None:
    for losses in ({}, {"full": 1.0}, {"wide": 1.0}, {"wide": 1.0, "full": None}):
        assert verdict(results(losses)).kind == "few"
    assert verdict(results(MEASURED, state="failed")).kind == "few"
    going = [*results({"wide": 1.0, "full": 1.0}), Row("qlora", "x", "running", loss=0.5), Row("small", "y", "queued")]
    assert verdict(going) == Verdict("waiting", left=2)


def test_chance_is_larger_where_fewer_conversations_are_held_out() -> None:
    assert noise(results(MEASURED)) == noise(results(MEASURED, heldout=64)) == NOISE
    assert noise(results(MEASURED, heldout=16)) == pytest.approx(2 * NOISE)
    assert told({"wide": 1.03, "full": 1.0}, heldout=16)[0] == "close"
    assert told({"wide": 1.03, "full": 1.0}, heldout=64)[0] == "behind"


def test_the_bound_is_twice_what_a_harmless_change_did() -> None:
    at = {(p.method, p.rank, p.rate): p.loss for p in rates.MEASURED}
    moved = [
        at["full", 0, 3e-4] / at["full", 0, 1e-4] - 1,
        at["qlora", 64, 2e-3] / at["qlora", 64, 1e-3] - 1,
    ]
    assert 2 * max(moved) == pytest.approx(NOISE, rel=0.1)


def test_the_pair_to_look_at() -> None:
    assert pair(results(MEASURED)) == ["job-qlora", "job-full"]
    assert pair(results({"small": 1.5, "wide": 1.0})) == ["job-wide", "job-small"]
    assert pair([replace(row, result=False) for row in results(MEASURED)]) == []
    assert set(CHEAPEST) | {"full"} == set(ROLES)


def a_run(workspace: Workspace, name: str, state: str, losses: list[float], kept: int | None = None) -> None:
    folder = workspace.jobs / name
    (folder / "adapter").mkdir(parents=True)
    lines: list[dict[str, Any]] = [{"event": "facts", "trainable": 19_500_000, "heldout": 64, "total_steps": 20}]
    for place, loss in enumerate(losses):
        if place:
            memory = {"host_memory": 2**30 * (3 - place)}
            lines.append({"event": "step", "step": 10 * place, "loss": loss, "seconds": 5.0, **memory})
        lines.append({"event": "eval", "step": 10 * place, "loss": loss, "seconds": 2.0})
    lines.append({"event": "other", "step": 0, "domain": "science", "loss": 2.0})
    if state == "finished":
        lines.append({"event": "other", "step": 20, "domain": "science", "loss": 2.1})
        (folder / "adapter" / "adapter_model.safetensors").touch()
        write_json(folder / "run.json", {"kept": {"step": kept}})
    text = "".join(json.dumps({"time": 1.0, **line}) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    write_json(folder / "job.json", {"id": name, "name": name, "state": state, "created": 1.0, "group": "g"})


def a_group(tmp_path: Path) -> tuple[Jobs, Group]:
    workspace = Workspace(tmp_path).prepare()
    a_run(workspace, "one", "finished", [2.0, 1.2, 1.3], kept=10)
    a_run(workspace, "two", "finished", [2.0, 1.5, 1.25], kept=20)
    a_run(workspace, "three", "queued", [])
    members = (Member("wide", "one"), Member("full", "two"), Member("qlora", "three"), Member("small", "deleted"))
    left_out = (LeftOut("small", "train.full_too_large", {"need": "<9>", "have": "1"}),)
    return Jobs(workspace), groups.made(groups.new_id("x"), "<이름>", members, left_out)


def test_figures_from_the_files_of_runs(tmp_path: Path) -> None:
    wide, full, qlora, small = rows(*a_group(tmp_path))
    assert (wide.loss, full.loss, qlora.loss) == (1.2, 1.25, None)  # the weights that were kept, not the last ones
    assert (wide.trained, wide.heldout, wide.seconds, wide.memory) == (19_500_000, 64, 16.0, 2**31)
    assert wide.forgot == pytest.approx({"science": 0.05}) and qlora.forgot == {}
    assert (wide.result, qlora.result, small.state, small.active) == (True, False, "gone", False)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_table_while_it_fills_and_when_it_is_full(tmp_path: Path, language: str) -> None:
    words = Words(language)
    jobs, group = a_group(tmp_path)
    html = views_enough.result(group, rows(jobs, group), words)
    assert words("enough.verdict.waiting", count=1) in html and words("enough.col.relative") in html
    assert "&lt;이름&gt;" in html and "&lt;9&gt;" in html and "<9>" not in html and "{" not in html
    assert "−4.0%" in html and "+5.0%" in html and "19.5 M" in html and words("enough.gone") in html
    assert html.count("<tr>") == 5 and words("enough.short", steps=20) in html

    for kind in ("ahead", "close", "behind", "lowest", "near", "few"):
        text = words(f"enough.verdict.{kind}", name="N", than="T", percent="1.0", count=1)
        assert text and "{" not in text
    done = views_enough.result(group, results(MEASURED), words)
    assert "1.5" in done and "n-note good" in done and words("enough.chance", count=300, percent="2.0") in done
    unknown = views_enough.table(results({"small": 1.5, "wide": 1.0}), words)
    assert words("enough.col.lowest") in unknown and "+50.0%" in unknown
