"""What the form's values mean on this machine: the plan's line, the remedy when it does not fit, the preview.

Covers: updates for the components below the form. Does not cover: the form itself (tab_form.py) and its events (tab.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from assets.errors import UserError
from assets.leases import holder
from assets.words import Words, duration
from finetune import (
    gpu,
    methods,
    outlook,
    plan,
    preview,
    rates,
    shapes,
    tab_form,
    views,
    views_memory,
    views_rates,
    views_time,
)
from finetune import shrink as shrinking
from finetune import start as starting
from finetune.memory import Shape
from finetune.services import TrainServices
from finetune.spec import TrainSpec

EXAMPLE = Path("workspace/jobs/my-run")


def shape_of(spec: TrainSpec, services: TrainServices) -> Shape:
    """From the model's config if it is at hand, else from the catalogue. UserError when neither knows it."""
    return shapes.shape_of(services.workspace, spec.model)


def make(spec: TrainSpec, services: TrainServices, folder: Path) -> tuple[plan.LaunchPlan, gpu.Machine]:
    machine = gpu.read(services.workspace.root)
    shape = shape_of(spec, services)
    methods.check(spec, shape)
    return plan.make(spec, machine, shape, folder), machine


def outputs(values: dict[str, Any], words: Words, services: TrainServices) -> list[Any]:
    """line, first-visit sentence, start button, shrink button, button for the advised rate, memory bar, YAML, command."""
    try:
        spec = tab_form.to_spec(values)
        starting.check(services.workspace, spec)
        made, machine = make(spec, services, EXAMPLE)
        shown, shape = plan.shown(made), shape_of(spec, services)
        look = outlook.look(spec, made, shape, machine, services, time.time())
    except UserError as error:
        off = [gr.update(interactive=False), gr.update(visible=False), gr.update(visible=False)]
        return [views.error(words.error(error)), "", *off, "", gr.skip(), gr.skip()]
    line = views.plan_line(made, look.span, words) + views_time.lines(look, values["zone"], words)
    line += views_rates.show(spec, shape, words)
    taken = next((h for d in made.devices if (h := holder(services.workspace, d)) is not None), None)
    if taken is not None:
        mine = taken.get("kind") == "engine"
        busy = words("train.plan.busy_engine") if mine else words("train.plan.busy", name=taken.get("name", "?"))
        line += f'<p class="n-sub">{busy}</p>'
    remedy = _remedy(spec, machine, services) if made.fit == "too_big" else None
    if remedy:
        changes = ", ".join(f"{words('train.f.' + key)} {value}" for key, value in remedy.items())
        line += f'<p class="n-sub">{words("train.shrink.how", changes=changes)}</p>'
    ran_before = bool(services.jobs.list())
    text = words("train.queue") if taken is not None else words("train.start" if ran_before else "train.start.first")
    start = gr.update(value=text, interactive=not services.jobs.closed, variant="secondary" if remedy else "primary")
    bar = views_memory.bars(made, words)
    return [
        line,
        "" if ran_before else _first(look.span, words),
        start,
        gr.update(visible=bool(remedy)),
        gr.update(visible=rates.doubt(spec, shape) is not None),
        bar,
        spec.to_yaml(),
        shown,
    ]


def _remedy(spec: TrainSpec, machine: gpu.Machine, services: TrainServices) -> dict[str, Any] | None:
    """What to change so that it fits; the machine and the model's shape are read once for all that is tried."""
    shape = shape_of(spec, services)

    def fits(changed: TrainSpec) -> bool:
        return plan.make(changed, machine, shape, EXAMPLE).fit != "too_big"

    return shrinking.elsewhere(spec, fits) or shrinking.shrink(spec, fits)


def shrunk(values: dict[str, Any], names: list[str], words: Words, services: TrainServices) -> list[Any]:
    remedy = _remedy(tab_form.to_spec(values), gpu.read(services.workspace.root), services) or {}
    return [remedy.get(name, gr.skip()) for name in names]


def _first(span: tuple[float, float] | None, words: Words) -> str:
    minutes = (
        words("train.time.unknown") if span is None else words("train.time.about", time=duration(words, sum(span) / 2))
    )
    return f'<p class="n-sub">{words("train.first.sub", minutes=minutes)}</p>'


def show_preview(values: dict[str, Any], words: Words, services: TrainServices) -> Iterator[str]:
    """The preview, and before it that the data is being read where that is still to do."""
    try:
        spec = tab_form.to_spec(values)
        if not services.readings.ready(spec):
            yield views.waiting(words("train.preview.reading"))
        yield preview.show(services.workspace, services.readings.get(spec), spec, words)
    except UserError as error:
        yield views.error(words.error(error))
