"""What the card of a pair shows when a side answers on another server.

Covers: the fields for keys, one line about the servers. Does not cover: choosing (tab_setup.py), keeping keys
(remote_engine_address.py). A key leaves its field with the click that loads.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr

from assets.words import Words
from compare.candidates import Choice
from compare.remote_engine_address import Keys, is_remote, parse


def build(words: Words) -> tuple[gr.Textbox, gr.Textbox]:
    """One field per side, hidden until it is needed."""
    first, second = (
        gr.Textbox(type="password", visible=False, info=words("remote.key.info"), max_lines=1, elem_id=f"n-key-{side}")
        for side in ("base", "other")
    )
    return first, second


def hidden(fields: Sequence[gr.Textbox]) -> dict[Any, Any]:
    return {field: gr.update(visible=False, value="") for field in fields}


def shown(fields: Sequence[gr.Textbox], sides: Sequence[Choice], words: Words) -> dict[Any, Any]:
    """A field for every server; two sides of one server share the first field."""
    found: dict[Any, Any] = {}
    met: set[str] = set()
    for field, side in zip(fields, sides, strict=True):
        address = side.remote
        found[field] = gr.update(visible=False, value="")
        if address is not None and address.url not in met:
            met.add(address.url)
            found[field] = gr.update(visible=True, label=words("remote.key", server=address.server))
    return found


def facts(sides: Sequence[Choice], words: Words) -> str:
    """One line about the servers; empty when both sides answer here."""
    far = [side.remote for side in sides if side.remote is not None]
    if not far:
        return ""
    notes = [words("remote.facts", servers=escape(", ".join(dict.fromkeys(a.server for a in far))))]
    if any(address.open_line for address in far):
        notes.append(words("remote.facts.open"))
    if len(far) == 2 and len(set(far)) == 1:
        notes.append(words("compare.same_twice"))
    return "".join(f'<p class="n-sub">{note}</p>' for note in notes)


def keep(keys: Keys, picked: Sequence[str], given: Sequence[str | None]) -> None:
    """Hand the keys over to memory. UserErrors as ``parse`` and ``Keys.put`` give them."""
    for text, key in zip(picked, given, strict=True):
        if key and is_remote(text):
            keys.put(parse(text).url, key)
