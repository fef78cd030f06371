"""Which prompts to compare on first, when a side has learnt from votes.

Covers: held-out prompts (assets/split.py) before those that its votes may have been about. Does not cover: the lists
themselves (assets/prompt_sets.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from assets.catalog import Prompt
from assets.files import read_json
from assets.split import is_heldout
from compare.desk import Candidate


def ordered(prompts: Sequence[Prompt], sides: Sequence[Candidate]) -> tuple[Prompt, ...]:
    """Held-out prompts first if one of the sides was trained on preferences, else as they are."""
    if not any(from_votes(side) for side in sides):
        return tuple(prompts)
    return tuple(sorted(prompts, key=lambda prompt: not is_heldout(prompt.messages)))


def from_votes(side: Candidate) -> bool:
    """Whether its run says that it learnt from preferences."""
    record = Path(side.adapter or "") / "run.json"
    if not side.adapter or not record.is_file():
        return False
    run = read_json(record)
    return isinstance(run, dict) and run.get("objective", "sft") != "sft"
