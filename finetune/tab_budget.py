"""The form's time limit, and whether a run that is out of memory may go on smaller by itself.

Covers: the components and what their values mean in a TrainSpec. Does not cover: forecasts (tab_plan.py) or what a run
does with them (train_time.py, remedy.py).
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from assets.errors import UserError
from assets.words import Words
from finetune.budget import is_time
from finetune.spec import RescueSpec

KINDS = ("none", "minutes", "until")
HIDDEN = {"show_progress": "hidden", "api_visibility": "private"}


def build(words: Words) -> dict[str, Any]:
    """The components by field name, inside the current container."""
    parts: dict[str, Any] = {}
    gr.HTML(f'<h4 class="n-h" style="margin-top:12px">{words("train.limit")}</h4>')
    parts["limit"] = gr.Radio(
        [(words("train.limit." + kind), kind) for kind in KINDS],
        value="none",
        show_label=False,
        label=words("train.limit"),
        elem_classes="n-pick",
        elem_id="train-limit-kind",
        container=False,
    )
    with gr.Row():
        parts["minutes"] = gr.Number(
            30, label=words("train.limit.f.minutes"), precision=0, minimum=1, visible=False, elem_id="train-minutes"
        )
        parts["until"] = gr.Textbox(
            "07:00",
            label=words("train.limit.f.until"),
            info=words("train.limit.f.until.info"),
            max_lines=1,
            visible=False,
            elem_id="train-until",
        )
    parts["zone"] = gr.State(None)
    parts["smaller"] = gr.Checkbox(
        False, label=words("train.smaller"), info=words("train.smaller.info"), elem_id="train-smaller"
    )
    parts["tries"] = gr.Number(
        RescueSpec().tries,
        label=words("train.smaller.tries"),
        precision=0,
        minimum=1,
        maximum=10,
        visible=False,
        elem_id="train-tries",
    )
    _wire(parts)
    return parts


def _wire(parts: dict[str, Any]) -> None:
    parts["limit"].change(
        lambda kind: [gr.update(visible=kind == "minutes"), gr.update(visible=kind == "until")],
        parts["limit"],
        [parts["minutes"], parts["until"]],
        **HIDDEN,
    )
    parts["smaller"].change(lambda on: gr.update(visible=on), parts["smaller"], parts["tries"], **HIDDEN)
    page = gr.context.Context.root_block
    if page is not None:
        js = "() => -new Date().getTimezoneOffset()"
        page.load(lambda zone: zone, gr.Number(visible=False), parts["zone"], js=js, **HIDDEN)


def parts_of(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The parts "budget" and "rescue" of a spec from the form's values. UserError for a limit that is none."""
    budget: dict[str, Any] = {}
    if values["limit"] == "minutes":
        if not values["minutes"]:
            raise UserError("train.limit.no_minutes")
        budget["minutes"] = values["minutes"]
    if values["limit"] == "until":
        budget["until"] = written(values["until"] or "", values["zone"])
        if not is_time(budget["until"]):
            raise UserError("spec.until", until=values["until"])
    return {"budget": budget, "rescue": {"smaller": bool(values["smaller"]), "tries": values["tries"]}}


def written(text: str, zone: float | None) -> str:
    """A time of day with the person's offset from Greenwich: the machine may stand elsewhere."""
    clock = text.strip()
    if len(clock) == 4 and clock[1] == ":":
        clock = f"0{clock}"
    if zone is None or not clock:
        return clock
    sign, minutes = "-" if zone < 0 else "+", abs(round(zone))
    return f"{clock}{sign}{minutes // 60:02d}:{minutes % 60:02d}"
