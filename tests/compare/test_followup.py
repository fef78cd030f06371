"""After a round: base, parent and child in one draft, on held-out prompts only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from assets.catalog import STARTER
from assets.errors import UserError
from assets.files import Workspace
from assets.split import is_heldout
from assets.words import LANGUAGES, Words
from compare.followup import draft
from compare.ratings import RatingsFile
from compare.services import CompareServices
from tests.compare.adapter_files import folder
from tests.compare.pairs import no_prompts
from tests.compare.test_candidates import RUN, model
from tests.fake_engine import FakeEngine


@pytest.fixture
def services(tmp_path: Path) -> CompareServices:
    made = Workspace(tmp_path).prepare()
    starter = model(made.models / "SmolLM2-135M-Instruct")
    (starter / "source.json").write_text(json.dumps({"package": "p", "package_version": "1"}), encoding="utf-8")
    for name in ("parent", "child"):
        adapter = folder(made.jobs / name / "adapter")
        (adapter / "run.json").write_text(json.dumps({**RUN, "name": name}), encoding="utf-8")
        (made.jobs / name / "job.json").write_text(json.dumps({"state": "finished"}), encoding="utf-8")
    ratings = RatingsFile(made.ratings / "ratings.csv", "0.1")
    return CompareServices(made, FakeEngine(), ratings, lambda _: True, "0.1", no_prompts)


@pytest.mark.parametrize("language", LANGUAGES)
def test_three_models_on_prompts_that_nobody_trained_on(language: str, services: CompareServices) -> None:
    jobs = services.workspace.jobs
    names = (STARTER, str(jobs / "parent" / "adapter"), str(jobs / "child" / "adapter"))
    made = draft(services, names, "다음 판", Words(language))
    assert [arm.name for arm in made.arms][1:] == ["parent", "child"] and made.arms[0].adapter is None
    assert made.prompts and all(is_heldout(prompt.messages) for prompt in made.prompts)
    assert {prompt.domain for prompt in made.prompts} == {"emotion", "science"}
    assert services.studies.get(made.id) == made and made.state == "draft"


def test_a_parent_that_is_gone_is_named(services: CompareServices) -> None:
    child = str(services.workspace.jobs / "child" / "adapter")
    with pytest.raises(UserError):
        draft(services, (STARTER, str(services.workspace.jobs / "gone" / "adapter"), child), "x", Words("ko"))
