from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from app import read_prompts
from assets import prompt_sets
from assets.files import Workspace
from assets.words import Words
from compare import tab_prompts
from compare.ratings import RatingsFile
from compare.services import CompareServices
from tests.fake_engine import FakeEngine

WORDS = Words("ko")
OWNER: Any = SimpleNamespace(owner=True)


@pytest.fixture
def services(tmp_path: Path) -> CompareServices:
    workspace = Workspace(tmp_path / "home").prepare()
    return CompareServices(
        workspace, FakeEngine(), RatingsFile(tmp_path / "r.csv"), lambda request: request.owner, "0", read_prompts
    )


def test_a_cp949_sheet_of_questions_is_kept_by_domain_and_can_be_corrected(
    services: CompareServices, tmp_path: Path
) -> None:
    file = tmp_path / "면접 질문.csv"
    file.write_bytes(
        "분야,질문,정답\n과학,왜 하늘은 파래요?,산란\n감정,오늘 졌어요,\n,자기소개 해 줘,\n".encode("cp949")
    )
    columns, said, count = tab_prompts._add(str(file), "", 0, OWNER, WORDS, services)
    assert columns["value"] == "prompt=질문, reference=정답, domain=분야" and count == 1
    assert "질문 3개" in said and "n-note good" in said
    last = prompt_sets.listed(services.workspace, "science")[-1]
    assert last.messages[0]["content"] == "왜 하늘은 파래요?" and last.reference == "산란"
    assert [p.messages[0]["content"] for p in prompt_sets.listed(services.workspace, "general")] == ["자기소개 해 줘"]

    tab_prompts._add(str(file), "prompt=정답, domain=분야", count, OWNER, WORDS, services)
    assert [p.messages[0]["content"] for p in prompt_sets.own(services.workspace)] == ["산란"]


def test_a_file_that_cannot_be_read_says_why_and_changes_nothing(services: CompareServices, tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("", encoding="utf-8")
    _, said, count = tab_prompts._add(str(file), "", 4, OWNER, WORDS, services)
    assert "n-note bad" in said and count == 4 and prompt_sets.own(services.workspace) == ()


def test_only_the_owner_uploads(services: CompareServices, tmp_path: Path) -> None:
    with pytest.raises(gr.Error):
        tab_prompts._add(str(tmp_path / "x.csv"), "", 0, SimpleNamespace(owner=False), WORDS, services)  # type: ignore[arg-type]
