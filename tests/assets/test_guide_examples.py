"""Examples and figures in the guides are what the program makes of them.

Covers: YAML that is a run's settings, examples of data and prompts, the planner's table, the power of studies. Does not
cover: figures that were measured on other machines (measured.md has their commands).
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from assets.catalog import find_model
from assets.words import LANGUAGES, Words
from compare.study_power import detectable, expected_decided
from finetune import data, plan
from finetune.gpu import Gpu, Machine
from finetune.memory import GIB, Shape
from finetune.spec import DataSpec, ModelSpec, from_dict, with_recipe
from tests.assets.guides import DOCS, blocks, guide, prose, shown, table, text

SMALLEST = {"model": {"id": "m"}, "data": {"id": "d"}}


@pytest.mark.parametrize("path", DOCS, ids=shown)
def test_settings_are_settings(path: Path) -> None:
    """Blocks, and pieces within a line such as `budget: {minutes: 90}`."""
    for piece in [*blocks(path, "yaml"), *re.findall(r"`(\w+: \{[^`]*\})`", prose(path))]:
        from_dict({**SMALLEST, **yaml.safe_load(piece)})


@pytest.mark.parametrize("language", LANGUAGES)
def test_examples_of_data_are_recognised_and_kept(language: str, tmp_path: Path) -> None:
    found = re.findall(
        r"^<!-- shape: (\w+) -->\n```(\w+)\n(.*?)^```$",
        text(guide(language, "your-data.md")),
        re.MULTILINE | re.DOTALL,
    )
    assert {shape for shape, *_ in found} == set(data.FIELDS)
    for shape, kind, body in found:
        file = tmp_path / f"{shape}.{kind}"
        file.write_text(body, encoding="utf-8")
        table = data.read_file(file)
        mapping = data.guess(table)
        made = data.convert(table, mapping)
        assert mapping.shape == shape and len(made.examples) == len(table.rows) >= 1
        assert [note.key for note in made.notes] == (["data.one_column"] if shape == "text" else [])


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_reason_to_leave_a_row_out_is_explained(language: str) -> None:
    words = Words(language)
    reasons = {words(key) for key in words.keys() if key.startswith("data.drop.")}  # noqa: SIM118
    told = [reason for cell, _ in table(language, "your-data.md", "drops") for reason in cell.split(", ")]
    assert sorted(told) == sorted(reasons)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_example_of_prompts_is_read(language: str, tmp_path: Path) -> None:
    body = re.search(r"^<!-- prompts -->\n```csv\n(.*?)^```$", text(guide(language, "your-data.md")), re.M | re.S)
    assert body is not None
    file = tmp_path / "prompts.csv"
    file.write_text(body[1], encoding="utf-8")
    made = data.prompts_from(data.read_file(file))
    assert [(row["domain"], bool(row["reference"])) for row in made] == [("emotion", False), ("science", True)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_plans_of_the_guide_are_the_planners(language: str) -> None:
    words, model = Words(language), "meta-llama/Llama-3.1-70B-Instruct"
    card = find_model(model)
    assert card is not None
    spec = with_recipe("large", ModelSpec(model), DataSpec("naranhi/emotion-ko"))
    for cards, length, _, each, host, fit in table(language, "big-models.md", "planner"):
        count, size = (int(n) for n in re.findall(r"\d+", cards))
        gpus = tuple(Gpu(i, f"g{i}", "GPU", size * GIB, int((size - 0.3) * GIB), True) for i in range(count))
        machine = Machine(gpus, 16, 64 * GIB, int(64 * 0.95 * GIB), 500 * GIB)
        asked = replace(spec, schedule=replace(spec.schedule, max_length=int(length)))
        made = plan.make(asked, machine, Shape.of(card.shape, card.model_type), Path("run"))
        figures = [f"{made.total / GIB:.1f} ({made.low / GIB:.1f}–{made.high / GIB:.1f})", f"{made.host / GIB:.0f}"]
        assert [each, host, fit] == [*figures, words(f"train.plan.{made.fit}")], cards


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_power_of_the_guide_is_that_of_the_page(language: str) -> None:
    for votes, decided, tells in table(language, "study.md", "power"):
        assert int(decided) == expected_decided(int(votes))
        rate = detectable(int(decided))
        assert rate is not None
        high = round(100 * rate)
        assert [int(n) for n in re.findall(r"\d+", tells)] == [high, 100 - high]
