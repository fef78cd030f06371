from __future__ import annotations

from pathlib import Path

from assets.files import Workspace
from assets.prompt_sets import listed, own, store


def row(id: str, domain: str, text: str = "안녕?") -> dict[str, object]:
    return {"id": id, "domain": domain, "messages": [{"role": "user", "content": text}], "reference": None}


def test_own_sets_stand_behind_the_builtin_ones(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path).prepare()
    assert own(workspace) == () and len(listed(workspace, "emotion")) == 60 and listed(workspace, "general") == ()
    name = store(workspace, "우리 팀 질문 (1차).xlsx", [row("1", "emotion"), row("2", "general")])
    assert name == "우리-팀-질문-1차-.xlsx"
    assert [p.id for p in listed(workspace, "emotion")][-1] == f"{name}/1"
    assert [p.tags for p in listed(workspace, "general")] == [{"set": name}]


def test_a_set_of_the_same_name_is_replaced_and_no_path_escapes(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path).prepare()
    store(workspace, "../../x", [row("1", "general")])
    store(workspace, "../../x", [row("1", "general", "다시")])
    assert [p.messages[0]["content"] for p in own(workspace)] == ["다시"]
    assert [f.name for f in (tmp_path / "prompts").iterdir()] == ["x.jsonl"]
