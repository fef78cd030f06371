"""What preferences will teach, shown before anything starts: prompts with the better and the worse answer.

Covers: a few pairs with the tokens that count coloured by side, where they come from, what was left out. Does not cover:
plain conversations (preview.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from assets import preferences
from assets.chat import ChatFormat
from assets.files import Workspace
from assets.words import Words
from finetune import preference_data
from finetune.data import Example, Message
from finetune.spec import TrainSpec


def talk(chat: ChatFormat, example: Example, spec: TrainSpec, words: Words) -> str:
    """One prompt and its answers; the better one is marked green, the worse one red."""
    sides = [("chosen", example.chosen), ("rejected", example.rejected)]
    answers = "".join(_answer(chat, example, side, said, spec, words) for side, said in sides if said)
    prompt = escape(chat.tokenizer.decode(chat.encode_prompt(example.messages, spec.data.system or None)))
    return f'<div class="n-talk n-voted"><s>{prompt}</s>{answers}</div>'


def _answer(
    chat: ChatFormat, example: Example, side: str, said: Sequence[Message], spec: TrainSpec, words: Words
) -> str:
    ids = preference_data.shown(chat, example.messages, said, spec)
    text = "".join(chat.pieces(ids)) if ids else "–"
    look = "" if side == "chosen" else ' class="worse"'
    return f'<b class="n-side">{words("train.preview." + side)}</b><mark{look}>{escape(text)}</mark>'


def origin(workspace: Workspace, spec: TrainSpec, words: Words) -> str:
    """How many votes stand behind a file, and what was not used; "" for data from elsewhere."""
    if spec.data.kind != "preferences":
        return ""
    record = preferences.read(workspace, spec.data.id).record
    votes = record.get("votes", {})
    counts = {key: record.get(key, 0) for key in ("decided", "both_bad")}
    line = words("train.preview.votes", votes=votes.get("count", 0), raters=votes.get("raters", 0), **counts)
    left = {**record.get("left_out", {}), **record.get("undecided", {})}
    parts = [f'<p class="n-sub">{line}</p>']
    if left:
        what = ", ".join(f"{words('ratings.left_out.' + why)} {n}" for why, n in left.items())
        parts.append(f'<p class="n-sub">{words("train.preview.left_out", what=what)}</p>')
    return "".join(parts)
