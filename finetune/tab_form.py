"""The form for a new run, and the one place where it becomes a TrainSpec.

Covers: components by field name, presets, ``to_spec``. Does not cover: the choice of data (tab_data.py), what happens on a
click (tab.py) or runs that exist (tab_runs.py).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

import gradio as gr

from assets.catalog import STARTER, find_model, models
from assets.words import Words
from finetune import spec as specs
from finetune import tab_budget, tab_data

PRESETS = ("quick", "balanced", "high_rank", "preference", "large")


@dataclass(frozen=True)
class Form:
    """Every component whose value a spec needs; the names are the arguments of ``to_spec``."""

    model: Any
    source: Any
    file: Any
    upload: Any
    hub_id: Any
    hub_split: Any
    pairs: Any
    shape: Any
    columns: Any
    system: Any
    preset: Any
    name: Any
    objective: Any
    start: Any
    beta: Any
    loss: Any
    noise: Any
    sft_weight: Any
    desirable_weight: Any
    undesirable_weight: Any
    max_prompt: Any
    method: Any
    rank: Any
    alpha: Any
    dropout: Any
    targets: Any
    rslora: Any
    dora: Any
    learning_rate: Any
    scheduler: Any
    warmup: Any
    steps: Any
    epochs: Any
    micro_batch: Any
    accumulation: Any
    max_length: Any
    max_grad_norm: Any
    weight_decay: Any
    seed: Any
    packing: Any
    checkpointing: Any
    every: Any
    examples: Any
    samples: Any
    sample_tokens: Any
    keep: Any
    best: Any
    patience: Any
    heldout: Any
    placement: Any
    gpus: Any
    precision: Any
    offload: Any
    limit: Any
    minutes: Any
    until: Any
    zone: Any
    smaller: Any
    tries: Any

    def inputs(self) -> dict[str, Any]:
        """What ``to_spec`` reads; ``upload`` is the name under which the page stored what ``file`` brought."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "file"}


GROUPS: dict[str, tuple[str, ...]] = {
    "preference": (
        "objective",
        "start",
        "beta",
        "loss",
        "noise",
        "sft_weight",
        "desirable_weight",
        "undesirable_weight",
        "max_prompt",
    ),
    "lora": ("method", "rank", "alpha", "dropout", "targets", "rslora", "dora"),
    "schedule": (
        "learning_rate",
        "scheduler",
        "warmup",
        "steps",
        "epochs",
        "micro_batch",
        "accumulation",
        "max_length",
        "max_grad_norm",
        "weight_decay",
        "seed",
        "packing",
        "checkpointing",
    ),
    "watch": ("every", "examples", "samples", "sample_tokens", "keep", "best", "patience", "heldout"),
    "hardware": ("placement", "gpus", "precision", "offload"),
}
CHOICES: dict[str, list[str]] = {
    "objective": list(get_args(specs.Objective)),
    "loss": list(get_args(specs.Loss)),
    "method": list(get_args(specs.Method)),
    "scheduler": ["cosine", "linear", "constant"],
    "placement": ["auto", "single", "ddp", "fsdp"],
    "precision": ["auto", "bfloat16", "float16", "float32"],
}


def build(words: Words) -> Form:
    """The whole form inside the current container."""
    parts: dict[str, Any] = {}
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=300, elem_classes="n-card"):
            gr.HTML(title(1, words("train.model")))
            parts["model"] = gr.Dropdown(
                model_choices(words),
                value=STARTER,
                allow_custom_value=True,
                show_label=False,
                label=words("train.model"),
                info=words("train.model.info"),
                elem_id="train-model",
            )
            about = gr.HTML(model_note(STARTER, words))
            parts["model"].change(lambda m: model_note(m, words), parts["model"], about, api_visibility="private")
        with gr.Column(scale=2, min_width=320, elem_classes="n-card"):
            gr.HTML(title(2, words("train.data")))
            parts |= tab_data.build(words)
    with gr.Column(elem_classes="n-card"):
        gr.HTML(title(3, words("train.preset")))
        parts["preset"] = gr.Radio(
            [(words("train.preset." + p), p) for p in PRESETS],
            value="quick",
            show_label=False,
            label=words("train.preset"),
            elem_classes="n-pick",
            elem_id="train-preset",
            container=False,
        )
        parts |= tab_budget.build(words)
        parts |= _advanced(words)
    return Form(**parts)


def title(number: int, text: str) -> str:
    return f'<h3 class="n-h"><span class="n-num">{number}</span>{text}</h3>'


def model_choices(words: Words) -> list[tuple[str, str]]:
    gated = " · " + words("train.hub.closed")
    return [(card.name + (gated if card.gated else ""), card.id) for card in models()]


def model_note(model_id: str, words: Words) -> str:
    """A sentence about a known model and what to mind with it."""
    card = find_model(model_id or "")
    if card is None:
        return ""
    notes = "".join(f'<p class="n-sub">{words(key)}</p>' for key in (card.about, *card.notes) if key in words)
    return notes


def _advanced(words: Words) -> dict[str, Any]:
    defaults = flat(specs.TrainSpec(specs.ModelSpec("-"), specs.DataSpec("-")))
    defaults |= preset_values("quick")
    parts: dict[str, Any] = {}
    with gr.Accordion(words("train.advanced"), open=False, elem_classes="n-plain", elem_id="train-advanced"):
        parts["name"] = gr.Textbox(
            label=words("train.name"), info=words("train.name.info"), max_length=80, elem_id="train-name"
        )
        for group, names in GROUPS.items():
            gr.HTML(f'<h4 class="n-h" style="margin-top:10px">{words("train.advanced." + group)}</h4>')
            with gr.Row():
                for name in names:
                    parts[name] = _field(name, defaults[name], words)
    return parts


def _field(name: str, value: Any, words: Words) -> Any:
    label = words("train.f." + name)
    if name == "start":  # filled with the adapters that are there when the page is opened
        return gr.Dropdown(
            [], value=value, label=label, min_width=220, allow_custom_value=True, elem_id="train-start-from"
        )
    if name in CHOICES:
        named = [(words(f"train.{name}.{one}"), one) for one in CHOICES[name]] if name == "method" else CHOICES[name]
        return gr.Dropdown(named, value=value, label=label, min_width=150, elem_id=f"train-{name}")
    if isinstance(value, bool):
        return gr.Checkbox(value, label=label, min_width=150, elem_id=f"train-{name}")
    if isinstance(value, str) or name == "learning_rate":
        text = f"{value:g}" if isinstance(value, float) else value
        return gr.Textbox(text, label=label, min_width=150, max_lines=1, elem_id=f"train-{name}")
    return gr.Number(
        value, label=label, min_width=150, precision=0 if isinstance(value, int) else None, elem_id=f"train-{name}"
    )


def flat(spec: specs.TrainSpec) -> dict[str, Any]:
    """The form's numbers of a spec, by field name."""
    values = spec.to_dict()
    found = {name: values[name] for name in ("method", "objective", "start")} | {"heldout": values["data"]["heldout"]}
    for part in ("preference", "lora", "schedule", "watch", "hardware"):
        found |= values[part]
    return found


def preset_values(name: str) -> dict[str, Any]:
    """What a preset puts into the form; fields that it does not name get their defaults."""
    spec = specs.with_recipe(name, specs.ModelSpec("-"), specs.DataSpec("-"))
    return flat(spec)


def to_spec(values: dict[str, Any]) -> specs.TrainSpec:
    """The form as a spec. UserError for the first value that will not do."""
    data = tab_data.data_of(values)
    model = (values["model"] or "").strip()
    spec: dict[str, Any] = {
        "model": {"id": model},
        "data": {f.name: getattr(data, f.name) for f in fields(data)},
        "name": (values["name"] or "").strip() or _name(model, data),
        "method": values["method"],
        "objective": values["objective"],
        "start": (values["start"] or "").strip(),
        **tab_budget.parts_of(values),
    }
    kinds = {
        "preference": specs.PreferenceSpec,
        "lora": specs.LoraSpec,
        "schedule": specs.ScheduleSpec,
        "watch": specs.WatchSpec,
        "hardware": specs.HardwareSpec,
    }
    for part, kind in kinds.items():
        spec[part] = {f.name: values[f.name] for f in fields(kind) if f.name in values}
    return specs.from_dict(spec)


def _name(model: str, data: specs.DataSpec) -> str:
    return f"{Path(model).name} · {Path(data.id).stem}"
