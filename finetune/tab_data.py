"""The form's choice of data: built-in sets, a file, the Hub, votes; how a file is to be understood; the system prompt.

Covers: components, which of them are shown, ``data_of``. Does not cover: the rest of the form (tab_form.py), reading and
previewing (sources.py, preview.py).
"""

from __future__ import annotations

import re
from typing import Any

import gradio as gr

from assets.catalog import datasets, read_dialogues
from assets.words import Words
from finetune import spec as specs
from finetune.data import FIELDS, SUFFIXES

BUILTIN = {"emotion": "naranhi/emotion-ko", "science": "naranhi/science-ko"}


def build(words: Words) -> dict[str, Any]:
    """Components by field name, inside the current container."""
    counts = {d.id: len(read_dialogues(d.file)) for d in datasets() if d.kind == "builtin" and d.file}
    labels = [(words("train.data." + key, count=counts[i]), key) for key, i in BUILTIN.items()]
    labels += [(words("train.data." + key), key) for key in ("file", "hub", "preferences")]
    parts: dict[str, Any] = {}
    parts["source"] = gr.Radio(
        labels,
        value="emotion",
        show_label=False,
        label=words("train.data"),
        elem_classes="n-pick",
        elem_id="train-data",
        container=False,
    )
    with gr.Group(visible=False, elem_classes="n-plain") as mine:
        parts["upload"] = gr.State("")
        parts["file"] = gr.File(
            label=words("train.data.upload"),
            file_types=sorted(SUFFIXES),
            type="filepath",
            height=120,
            elem_id="train-upload",
        )
    with gr.Row(visible=False) as hub:
        presets = [d.id for d in datasets() if d.kind == "hub"]
        parts["hub_id"] = gr.Dropdown(
            presets, value=presets[0], allow_custom_value=True, label=words("train.data.hub_id"), scale=3
        )
        parts["hub_split"] = gr.Textbox("train", label=words("train.data.split"), scale=1, min_width=110)
    with gr.Row(visible=False) as voted:
        parts["pairs"] = gr.Dropdown(
            [], label=words("train.data.pairs"), info=words("train.data.pairs.info"), elem_id="train-pairs"
        )
    with gr.Row(visible=False) as mapping:
        parts["shape"] = gr.Dropdown(
            [(words("data.shape." + s), s) for s in FIELDS],
            value=None,
            label=words("train.data.shape"),
            min_width=160,
            elem_id="train-shape",
        )
        parts["columns"] = gr.Textbox(
            label=words("train.data.columns"), info=words("train.data.columns.info"), scale=2, elem_id="train-columns"
        )
    parts["source"].change(
        lambda kind: [
            gr.update(visible=kind == "file"),
            gr.update(visible=kind == "hub"),
            gr.update(visible=kind in ("file", "hub")),
            gr.update(visible=kind == "preferences"),
        ],
        parts["source"],
        [mine, hub, mapping, voted],
        api_visibility="private",
        show_progress="hidden",
    )
    parts["system"] = gr.Textbox(
        label=words("train.system"), info=words("train.system.info"), lines=1, max_lines=4, elem_id="train-system"
    )
    return parts


def data_of(values: dict[str, Any]) -> specs.DataSpec:
    """The data part of the form."""
    source = values["source"]
    shape = values["shape"] if source in ("file", "hub") else None
    common: dict[str, Any] = {"heldout": float(values["heldout"] or 0), "system": (values["system"] or "").strip()}
    if shape:
        common |= {"shape": shape, "columns": read_columns(values["columns"] or "")}
    if source in BUILTIN:
        return specs.DataSpec(BUILTIN[source], "builtin", **common)
    if source == "preferences":
        return specs.DataSpec(values["pairs"] or "", "preferences", **common)
    if source == "hub":
        return specs.DataSpec((values["hub_id"] or "").strip(), "hub", split=values["hub_split"] or "train", **common)
    return specs.DataSpec(values["upload"], "file", **common)


def read_columns(text: str) -> dict[str, str]:
    """ "question=Q, answer=A" as a dict; a column's own name may hold commas, only "field=" begins a new pair."""
    starts = list(re.finditer(r"(?:^|,)\s*([a-z]+\d*)\s*=", text))
    ends = [m.start() for m in starts[1:]] + [len(text)] * bool(starts)
    return {m[1]: text[m.end() : end].strip() for m, end in zip(starts, ends, strict=True)}


def write_columns(columns: dict[str, str]) -> str:
    return ", ".join(f"{field}={column}" for field, column in columns.items())
