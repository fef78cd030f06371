"""The points that tests.gpu.presets measures and its table, without measuring anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.gpu.presets import known, write_chatbot
from tests.gpu.presets_points import SETTINGS, Point, points, spec_of, table


def test_every_point_is_a_run_of_its_own() -> None:
    every = points(["chatbot", "emotion", "science"])
    assert len({point.name for point in every}) == len(every)
    assert {point.setting for point in every} == {setting.name for setting in SETTINGS}
    for point in every[:: len(SETTINGS) // 2]:
        for tiny in (False, True):
            spec = spec_of(point, "m", tiny)
            assert spec.schedule.learning_rate == point.rate and spec.schedule.seed == point.seed
    ranks = {setting.lora.rank for setting in SETTINGS if setting.name.startswith("qlora")}
    assert ranks == {16, 64, 128} and {s.rates[0] for s in SETTINGS if s.name == "qlora-r64"} == {1e-3}


def test_what_teaches_most_comes_first() -> None:
    every = points(["chatbot", "emotion"])
    assert [point.setting for point in every[:2]] == ["full", "qlora-r64"]
    assert {point.seed for point in every[: 3 * len(SETTINGS)]} == {0, 1, 2}
    assert {p.setting for p in points(["chatbot"], only=["r8-qv"])} == {"lora-r8-qv"}
    assert points(["nothing"]) == []


def a_row(setting: str, seed: int, loss: float, **more: Any) -> dict[str, Any]:
    point = Point("chatbot", 1, setting, 1e-3, seed)
    figures = {"loss": loss, "untouched": 2.0, "trained": 19.5e6, "memory": 4e9, "seconds": 20.0}
    return {**vars(point), "name": point.name, "forgot": {"science": 0.05}, **figures, **more}


def test_the_table_has_means_spreads_and_the_distance_to_full() -> None:
    rows = [a_row("full", seed, loss) for seed, loss in enumerate((1.0, 1.02, 0.98))]
    rows += [a_row("qlora-r64", 0, 1.05), {"name": "x", "why": "out of memory"}]
    text = table(rows)
    assert "| full | 0.001 | 1.000 ± 0.020 | 3 | +0.0 % | +5.0 % | 19.5 | 4.0 | 20 |" in text
    assert "| qlora-r64 | 0.001 | 1.050 | 1 | +5.0 % |" in text and "failed: x: out of memory" in text
    assert table([]) == ""


def test_rows_that_failed_are_measured_again(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(a_row("full", 0, 1.0)) + "\n" + json.dumps({"name": "x", "why": "y"}) + "\n")
    assert [row["name"] for row in known([file])] == ["chatbot-x1-full-0.001-s0"] and known([]) == []


def test_of_the_chatbot_only_two_labels(tmp_path: Path) -> None:
    lines = "".join(f"질문 {n},대답 {n},{n % 3}\n" for n in range(30))
    (tmp_path / "chat.csv").write_text("Q,A,label\n" + lines, encoding="utf-8")
    write_chatbot(tmp_path / "chat.csv", tmp_path / "chat.jsonl")
    talks = [json.loads(line)["messages"] for line in (tmp_path / "chat.jsonl").read_text().splitlines()]
    assert len(talks) == 20 and all(int(talk[0]["content"].split()[1]) % 3 for talk in talks)
