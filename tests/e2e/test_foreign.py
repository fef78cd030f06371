"""An adapter that was made elsewhere, opened by its folder in the browser: asked for what it does not tell, then rated."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.compare.adapter_files import Tensors, folder, save
from tests.e2e.conftest import App
from tests.e2e.test_loop import open_page

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(600)]
BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
SYSTEM = "다정하게 답해 주세요."


def noise(layers: int = 30) -> Tensors:
    """LoRA of rank 2 on the starter's query and value projections, small and random."""
    draw, tensors = np.random.default_rng(0), {}
    for layer in range(layers):
        for name, out in (("q_proj", 576), ("v_proj", 192)):
            module = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            for half, shape in (("A", (2, 576)), ("B", (out, 2))):
                numbers = draw.normal(0, 0.05, shape).astype("<f4")
                tensors[f"{module}.lora_{half}.weight"] = ("F32", shape, numbers.tobytes())
    return tensors


@pytest.fixture(scope="module")
def page(app: App, chromium: Any) -> Any:
    app.start()
    page = open_page(chromium, app.url)
    page.get_by_role("tab", name="비교", exact=True).click()
    return page


def choose(page: Any, other: str) -> None:
    for name, value in (("base", BASE), ("other", other)):
        field = page.locator(f"#n-{name} input").first
        field.fill(value)
        field.press("Enter")


def test_what_cannot_be_opened_is_refused_with_the_reason(page: Any, tmp_path: Path) -> None:
    pickled = folder(tmp_path / "피클 어댑터")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    other = folder(tmp_path / "다른 모델용", base_model_name_or_path="someone/another-model")
    cases = [
        (str(pickled), "pickle"),
        (str(tmp_path / "없는 폴더"), "폴더가 없어요"),
        (f"{tmp_path}/../{tmp_path.name}", "adapter_config.json"),
    ]
    for name, reason in cases:
        choose(page, name)
        page.get_by_text(reason).locator("visible=true").first.wait_for()
        assert page.locator("#n-load").is_disabled()
    choose(page, str(other))
    page.locator("#n-load:not([disabled])").click()
    page.get_by_text("에 맞지 않아요").locator("visible=true").first.wait_for()


def test_an_unsloth_adapter_is_asked_about_loaded_and_rated(page: Any, app: App, tmp_path: Path) -> None:
    made = folder(
        tmp_path / "내 어댑터 v1",
        save(noise()),
        base_model_name_or_path="unsloth/SmolLM2-135M-Instruct-bnb-4bit",
    )
    choose(page, str(made))
    page.wait_for_timeout(1500)  # a person reads what the page says of the adapter before typing
    system = page.get_by_label("시스템 프롬프트").locator("visible=true").first
    system.fill(SYSTEM)
    page.wait_for_timeout(500)
    assert system.input_value() == SYSTEM
    page.locator("#n-load").click()
    page.locator("#n-ask:not([disabled])").wait_for(timeout=180_000)
    page.locator("#n-text textarea").fill("오늘 면접을 망쳤어요.")
    page.locator("#n-ask").click()
    page.locator("#n-votebar").wait_for(timeout=300_000)
    page.locator("#n-choice label").first.click()
    page.locator("#n-confirm").click()
    page.locator("#n-revealed").get_by_text("내 어댑터 v1").first.wait_for()
    with (app.home / "ratings" / "ratings.csv").open(encoding="utf-8", newline="") as file:
        row = next(csv.DictReader(file))
    assert row["conversation"].count(SYSTEM) == 1 and "내 어댑터 v1@" in row["model_a"] + row["model_b"]
    proof = json.dumps(json.loads(row["provenance"]))
    assert "adapter_sha256" in proof and "template_hash" in proof
