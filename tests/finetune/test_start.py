"""Going on from an adapter: it must be there, on the same base, of the same shape, in the same template."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assets.catalog import STARTER
from assets.errors import UserError
from assets.files import Workspace, write_json
from assets.words import LANGUAGES, Words
from finetune import start as starting
from finetune.spec import DataSpec, LoraSpec, ModelSpec, TrainSpec

SPEC = TrainSpec(
    ModelSpec(STARTER),
    DataSpec("d", "preferences"),
    start="jobs/parent/adapter",
    lora=LoraSpec(8, 16, 0.0, "q_proj,v_proj"),
)
CONFIG = {
    "peft_type": "LORA",
    "r": 8,
    "lora_alpha": 16,
    "target_modules": ["v_proj", "q_proj"],
    "use_rslora": False,
    "base_model_name_or_path": "/somewhere/models/SmolLM2-135M-Instruct",
}
RUN = {
    "version": 1,
    "name": "공감",
    "base": {"id": STARTER},
    "template_hash": "abc",
    "system": "친구예요.",
    "spec": {"lora": {"targets": "q_proj,v_proj"}},
}


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "home").prepare()


def write(space: Workspace, config: dict[str, Any] | None = None, run: dict[str, Any] | None = None) -> Path:
    folder = space.jobs / "parent" / "adapter"
    folder.mkdir(parents=True)
    write_json(folder / "adapter_config.json", {**CONFIG, **(config or {})})
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    if run is not None:
        write_json(folder / "run.json", {**RUN, **run})
    return folder


def refused(key: str, space: Workspace, spec: TrainSpec, *values: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        starting.check(space, spec, *values)
    assert caught.value.key == key
    for language in LANGUAGES:
        assert Words(language).error(caught.value)
    return caught.value


def test_an_adapter_that_fits(space: Workspace) -> None:
    folder = write(space, run={})
    start = starting.check(space, SPEC, "abc")
    assert start is not None and (start.folder, start.name, start.base) == (folder, "공감", STARTER)
    assert start.system == "친구예요." and len(start.sha256) == 64
    assert starting.written(space, folder) == SPEC.start and starting.place(space, str(folder)) == folder
    assert starting.check(space, replace(SPEC, start="")) is None
    other = replace(SPEC, lora=LoraSpec(64, 128, 0.05))
    assert starting.adopt(other, start).lora == LoraSpec(8, 16, 0.05, "q_proj,v_proj")
    outside = space.root.parent / "elsewhere"
    assert starting.written(space, outside) == str(outside)


@pytest.mark.parametrize("run", [{}, None])
@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"rank": 16}, "rank"),
        ({"alpha": 8}, "alpha"),
        ({"rslora": True}, "rslora"),
        ({"dora": True}, "dora"),
        ({"targets": "q_proj"}, "targets"),
    ],
)
def test_another_shape_is_refused_with_what_differs(
    changed: dict[str, Any], what: str, run: dict[str, Any] | None, space: Workspace
) -> None:
    write(space, run=run)
    error = refused("start.shape_differs", space, replace(SPEC, lora=replace(SPEC.lora, **changed)))
    assert error.values["what"] == what


def test_another_base_is_refused(space: Workspace) -> None:
    write(space, run={})
    assert refused("start.base_differs", space, replace(SPEC, model=ModelSpec("google/gemma-2-2b-it")))
    assert refused("start.base_differs", space, replace(SPEC, model=ModelSpec("someone/other")))


def test_an_adapter_made_elsewhere_names_the_folder_of_its_base(space: Workspace) -> None:
    write(space)
    assert starting.check(space, SPEC) is not None
    refused("start.base_differs", space, replace(SPEC, model=ModelSpec("google/gemma-2-2b-it")))


def test_another_template_is_refused(space: Workspace) -> None:
    write(space, run={})
    refused("start.template_differs", space, SPEC, "other")


@pytest.mark.parametrize("config", [{"peft_type": "LOHA"}, {"modules_to_save": ["lm_head"]}])
def test_what_is_no_plain_lora_is_refused(config: dict[str, Any], space: Workspace) -> None:
    write(space, config)
    refused("start.not_lora", space, SPEC)


def test_dora_goes_on_as_dora(space: Workspace) -> None:
    write(space, {"use_dora": True})
    assert refused("start.shape_differs", space, SPEC).values["what"] == "dora"
    assert starting.check(space, replace(SPEC, lora=replace(SPEC.lora, dora=True))) is not None


def test_an_adapter_that_is_gone_is_refused(space: Workspace) -> None:
    refused("start.missing", space, SPEC)
    write(space)
    (space.jobs / "parent" / "adapter" / "adapter_model.safetensors").unlink()
    refused("start.missing", space, SPEC)
