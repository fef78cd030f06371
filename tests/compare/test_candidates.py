from __future__ import annotations

import json
from pathlib import Path

import pytest

from assets.catalog import STARTER
from assets.errors import UserError
from assets.files import Workspace
from compare.candidates import Asked, choose, look_up, options, shape_of
from compare.footprint import footprint
from tests.compare.adapter_files import folder

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "num_hidden_layers": 2,
    "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "vocab_size": 32,
}  # fmt: skip
RUN = {
    "version": 1, "name": "공감 대화", "base": {"id": STARTER, "revision": "r"}, "template_hash": "0" * 16,
    "template": None, "system": "친구예요.", "finished_at": 1700000000.0, "steps": 40,
}  # fmt: skip


def model(path: Path, **changes: object) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(CONFIG | changes), encoding="utf-8")
    return path


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """One finished run, and a starter small enough for its adapter."""
    made = Workspace(tmp_path).prepare()
    starter = model(made.models / "SmolLM2-135M-Instruct")
    (starter / "source.json").write_text(json.dumps({"package": "p", "package_version": "1"}), encoding="utf-8")
    run = made.jobs / "20260703-101112-ab12"
    (folder(run / "adapter") / "run.json").write_text(json.dumps(RUN), encoding="utf-8")
    (run / "job.json").write_text(json.dumps({"state": "finished"}), encoding="utf-8")
    return made


def test_runs_come_first_then_the_catalogue(workspace: Workspace) -> None:
    first, second, *_ = options(workspace)
    assert (first.kind, first.name) == ("run", "공감 대화") and first.value.endswith("adapter")
    assert second.value == STARTER


def test_a_run_and_its_base_share_one_copy(workspace: Workspace) -> None:
    chosen = choose(workspace, STARTER, options(workspace)[0].value, Asked(template="unused", system="unused"))
    assert chosen.first.base == chosen.second.base == STARTER and chosen.first.adapter is None
    assert chosen.second.system == "친구예요." and chosen.second.template is None and chosen.notes == ()
    assert chosen.second.model.startswith("공감 대화@") and len(chosen.second.model.split("@")[1]) == 8


def test_a_foreign_adapter_is_asked_about(workspace: Workspace, tmp_path: Path) -> None:
    foreign = folder(tmp_path / "남의 것", base_model_name_or_path="unsloth/SmolLM2-135M-Instruct-bnb-4bit")
    assert look_up(str(foreign)).foreign
    chosen = choose(workspace, STARTER, str(foreign), Asked("{{ messages }}", "상담사"))
    assert chosen.second.base == STARTER and chosen.second.system == "상담사"
    assert chosen.second.template == "{{ messages }}"


def test_an_unknown_base_is_matched_by_its_shapes(workspace: Workspace, tmp_path: Path) -> None:
    foreign = folder(tmp_path / "foreign", base_model_name_or_path="/someone/elses/disk")
    chosen = choose(workspace, STARTER, str(foreign), Asked())
    assert chosen.second.base == STARTER and chosen.notes[0][0] == "adapters.note.shapes"
    wide = model(tmp_path / "wide", hidden_size=64)
    with pytest.raises(UserError, match="adapters.other"):
        choose(workspace, str(wide), str(foreign), Asked())


def test_two_folders_that_are_models_stand_beside_each_other(workspace: Workspace, tmp_path: Path) -> None:
    one, two = model(tmp_path / "하나"), model(tmp_path / "둘 셋", hidden_size=16)
    chosen = choose(workspace, str(one), str(two), Asked())
    assert [c.name for c in (chosen.first, chosen.second)] == ["하나", "둘 셋"]
    assert shape_of(workspace, str(one)) != shape_of(workspace, str(two))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", "compare.pick_two"),
        ("/no/such/folder", "adapters.no_folder"),
        ("../../no-such", "adapters.no_folder"),
        ("a/b/c", "adapters.no_folder"),
        ("nobody/nothing", "hub.offline"),
        ("한글 이름", "adapters.no_folder"),
    ],
)
def test_what_is_nothing_is_said_so(text: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError) as refused:
        look_up(text)
    assert refused.value.key == key


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    path = folder(tmp_path / "old")
    (path / "adapter_model.safetensors").rename(path / "adapter_model.bin")
    with pytest.raises(UserError, match="adapters.pickled"):
        look_up(str(path))


def test_the_memory_of_two_sides_on_one_base_is_little_more_than_of_one() -> None:
    from assets.catalog import find_model

    card = find_model("meta-llama/Llama-3.1-8B-Instruct")
    assert card is not None
    one = footprint([(card.shape, 1)], 0)
    two = footprint([(card.shape, 2)], 160 * 2**20)
    assert 5.0 < one.weights / 2**30 < 6.5
    assert two.total < 1.15 * one.total


def test_an_adapter_with_a_config_beside_it_is_still_an_adapter(tmp_path: Path) -> None:
    both = folder(tmp_path / "both", base_model_name_or_path="unsloth/SmolLM2-135M-Instruct-bnb-4bit")
    (both / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    assert look_up(str(both)).adapter is not None
    (both / "adapter_config.json").unlink()
    assert look_up(str(both)).adapter is None
