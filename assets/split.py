"""Which prompts may be learnt from and which are kept for judging.

Covers: one rule for both rooms, taken from the prompt itself, so that it holds on every machine, for every study and in
every later version. Does not cover: who obeys it (the preference files, the training script, the comparison).
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence

SHARE = 0.2


def prompt_text(messages: Sequence[Mapping[str, str]]) -> str:
    """What a conversation is recognised by: its first question. Later turns of one talk stay on the same side."""
    return next((message["content"] for message in messages if message["role"] == "user"), "")


def position(prompt: str | Sequence[Mapping[str, str]]) -> float:
    """Where a prompt (its text, or the conversation it opens) stands between 0 and 1, evenly spread.

    Spelling of Unicode and white space do not matter.
    """
    text = prompt if isinstance(prompt, str) else prompt_text(prompt)
    plain = " ".join(unicodedata.normalize("NFC", text).split())
    digest = hashlib.sha256(b"naranhi held-out 1\n" + plain.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def is_heldout(prompt: str | Sequence[Mapping[str, str]], share: float = SHARE) -> bool:
    """Whether a prompt is kept for judging; about ``share`` of all are. One that is, is so at every larger share."""
    return position(prompt) < share
