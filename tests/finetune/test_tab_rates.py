"""The rate in the form follows the method, and a rate of one's own stays."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from assets.files import Workspace
from assets.words import Words
from finetune import tab_form, tab_rates
from finetune.jobs import Jobs
from finetune.services import TrainServices

LLAMA = "meta-llama/Meta-Llama-3-8B-Instruct"
KEPT = [gr.skip(), gr.skip()]


@pytest.fixture(scope="module")
def form() -> dict[str, Any]:
    async def build() -> dict[str, Any]:
        with gr.Blocks(analytics_enabled=False):
            return {name: part.value for name, part in tab_form.build(Words("ko")).inputs().items()}

    return asyncio.run(build())


@pytest.fixture
def services(tmp_path: Path) -> TrainServices:
    workspace = Workspace(tmp_path).prepare()
    return TrainServices(workspace, Jobs(workspace), lambda request: True)


def preset(name: str, services: TrainServices, model: str | None = None) -> dict[str, Any]:
    names = list(tab_form.preset_values(name))
    *values, rate = tab_rates.fill(name, model, names, services)
    filled = dict(zip(names, values, strict=True))
    assert filled["learning_rate"] == rate
    return filled


def test_full_fine_tuning_does_not_keep_a_presets_rate(form: dict[str, Any], services: TrainServices) -> None:
    values = form | preset("balanced", services, form["model"])
    assert values["learning_rate"] == "0.001"
    assert tab_rates.follow(values | {"method": "full"}, "0.001", services) == ["0.0001", "0.0001"]
    assert tab_rates.follow(values | {"method": "full"}, "else", services) == ["0.0001", "0.0001"]


def test_a_rate_of_ones_own_stays(form: dict[str, Any], services: TrainServices) -> None:
    values = form | preset("balanced", services, form["model"]) | {"learning_rate": "0.0008"}
    for changed in ({"method": "full"}, {"rank": 8}, {"model": LLAMA}):
        assert tab_rates.follow(values | changed, "0.001", services) == KEPT
    assert tab_rates.put(values | {"method": "full"}, services) == ["0.0001", "0.0001"]


def test_a_preset_is_scaled_to_the_model(services: TrainServices) -> None:
    assert preset("balanced", services, LLAMA)["learning_rate"] == "0.00015"
    assert preset("preference", services, LLAMA)["learning_rate"] == "1.5e-05"
    for nothing in (None, "", "/no/such/folder"):
        assert preset("balanced", services, nothing)["learning_rate"] == "0.001"


def test_a_form_that_is_no_run_changes_nothing(form: dict[str, Any], services: TrainServices) -> None:
    for broken in ({"learning_rate": ""}, {"model": ""}, {"rank": None}):
        assert tab_rates.follow(form | broken, "0.001", services) == KEPT
        assert tab_rates.put(form | broken, services) == KEPT
