"""Presets fill the form, and the learning rate follows what is advised until a person writes another.

Covers: events between the form's fields. Does not cover: the rule (rates.py) or the line about it (views_rates.py).
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from assets.errors import UserError
from finetune import rates, tab_form
from finetune.services import TrainServices
from finetune.shapes import shape_of
from finetune.spec import DataSpec, ModelSpec, recipes, with_recipe
from finetune.views_rates import number

HIDDEN: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
FOLLOWED = ("model", "objective", "method", "rank", "alpha", "targets", "rslora", "micro_batch", "accumulation")


def wire(form: tab_form.Form, services: TrainServices, use: Any) -> None:
    """``use`` is a button that puts the advised rate in."""
    ours = gr.State(form.learning_rate.value)
    inputs = form.inputs()
    names = list(tab_form.preset_values("quick"))
    filled = [*(getattr(form, name) for name in names), ours]
    form.preset.input(lambda p, model: fill(p, model, names, services), [form.preset, form.model], filled, **HIDDEN)

    def changed(rate_before: str, **values: Any) -> list[Any]:
        return follow(values, rate_before, services)

    changes = [inputs[name].change for name in FOLLOWED]
    outputs = [form.learning_rate, ours]
    gr.on(
        changes,
        changed,
        inputs_kwargs={"rate_before": ours, **inputs},
        outputs=outputs,
        trigger_mode="always_last",
        **HIDDEN,
    )
    use.click(lambda **values: put(values, services), inputs_kwargs=inputs, outputs=outputs, **HIDDEN)


def fill(preset: str, model: str | None, names: list[str], services: TrainServices) -> list[Any]:
    """The values of these fields and the rate once more: a preset's own is for the model that it was measured on."""
    values = tab_form.preset_values(preset)
    try:
        spec = with_recipe(preset, ModelSpec((model or "").strip()), DataSpec("-"))
        values["learning_rate"] = rates.advise(spec, shape_of(services.workspace, spec.model)).rate
    except UserError:  # no model yet, or one that nobody knows
        pass
    rate = number(values["learning_rate"])
    return [*(rate if name == "learning_rate" else values[name] for name in names), rate]


def follow(values: dict[str, Any], before: str, services: TrainServices) -> list[Any]:
    """The rate to show and the one that was filled in last. A rate of one's own stays; a preset's goes where it would do
    harm."""
    found = _advised(values, services)
    if found is None:
        return [gr.skip(), gr.skip()]
    rate, poor = found
    now = str(values["learning_rate"]).strip()
    if now == before or (poor and now in preset_rates()):
        return [rate, rate]
    return [gr.skip(), gr.skip()]


def put(values: dict[str, Any], services: TrainServices) -> list[Any]:
    found = _advised(values, services)
    return [gr.skip(), gr.skip()] if found is None else [found[0], found[0]]


def preset_rates() -> set[str]:
    """What presets write into the field."""
    return {number(float(recipe["schedule"]["learning_rate"])) for recipe in recipes().values()}


def _advised(values: dict[str, Any], services: TrainServices) -> tuple[str, bool] | None:
    """The advised rate, and whether the one in the form is doubted; None while the form is no run."""
    try:
        spec = tab_form.to_spec(values)
        shape = shape_of(services.workspace, spec.model)
    except UserError:
        return None
    return number(rates.advise(spec, shape).rate), rates.doubt(spec, shape) is not None
