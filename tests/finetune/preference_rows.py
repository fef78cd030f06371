"""Preference data for tests: pairs on prompts that may be learnt from, as files and as examples."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from assets import preferences
from assets.files import Workspace
from assets.split import is_heldout
from finetune.data import Example

QUESTIONS = [f"질문 {n}" for n in range(60)]
KEPT = [q for q in QUESTIONS if not is_heldout(q)]
HELD = [q for q in QUESTIONS if is_heldout(q)]


def said(text: str, role: str = "assistant") -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def pair(question: str, number: int = 0) -> dict[str, Any]:
    return {
        "prompt": said(question, "user"),
        "chosen": said(f"좋은 답 {number} 이에요" + "." * (number % 4)),
        "rejected": said(f"싫어 {number}"),
    }


def judged(question: str, number: int, label: bool) -> dict[str, Any]:
    answer = f"좋은 답 {number} 이에요" if label else f"싫어 {number}"
    return {"prompt": said(question, "user"), "completion": said(answer), "label": label}


def example(question: str, number: int = 0) -> Example:
    row = pair(question, number)
    return Example(tuple(row["prompt"]), tuple(row["chosen"]), tuple(row["rejected"]))


def store(workspace: Workspace, rows: list[dict[str, Any]], name: str = "votes", **about: Any) -> str:
    """A file as the results tab writes one."""
    digest = hashlib.sha256(b"1\n2").hexdigest()
    votes = {"count": len(rows), "raters": 2, "sha256": digest}
    told = {
        "votes": votes,
        "filter": {"agreement": 0.6},
        "study_id": "s1",
        "decided": len(rows),
        "both_bad": 0,
        **about,
    }
    return preferences.store(workspace, name, "kto" if "label" in rows[0] else "dpo", rows, told).name


def upload(workspace: Workspace, rows: list[dict[str, Any]], name: str = "pairs.jsonl") -> str:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (workspace.uploads / name).write_text(text, encoding="utf-8")
    return name
