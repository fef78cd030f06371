"""Prompts for comparing: those that come with the program and the sets that people upload.

Covers: where uploaded sets are kept and how both kinds are listed together. Does not cover: reading the files people
upload (finetune/data_prompts.py; app.py connects the two).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from assets.catalog import Prompt, prompts, read_dialogues
from assets.files import Workspace, write_atomic

BUILTIN = ("emotion", "science")


def folder(workspace: Workspace) -> Path:
    return workspace.root / "prompts"


def store(workspace: Workspace, name: str, rows: Iterable[dict[str, Any]]) -> str:
    """Keep a set ({"id", "domain", "messages", "reference"} each) under a tidied name, which is returned."""
    tidy = re.sub(r"[^\w가-힣.-]+", "-", name).strip("-.")[:60] or "prompts"
    lines = [json.dumps({**row, "id": f"{tidy}/{row['id']}"}, ensure_ascii=False) for row in rows]
    write_atomic(folder(workspace) / f"{tidy}.jsonl", "\n".join(lines) + "\n")
    return tidy


def own(workspace: Workspace) -> tuple[Prompt, ...]:
    """Every uploaded prompt; its tags name the set it belongs to."""
    found = []
    for file in sorted(folder(workspace).glob("*.jsonl")):
        for row in read_dialogues(file):
            tags = {"set": file.stem}
            found.append(Prompt(row["id"], row["domain"], tuple(row["messages"]), row.get("reference"), tags))
    return tuple(found)


def listed(workspace: Workspace, domain: str) -> tuple[Prompt, ...]:
    """The prompts of a domain, built-in ones first; "general" has uploaded ones only."""
    return (prompts(domain) if domain in BUILTIN else ()) + tuple(p for p in own(workspace) if p.domain == domain)
