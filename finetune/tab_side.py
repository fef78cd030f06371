"""Choosing runs to look at beside each other.

Covers: components and events below the list of runs. Does not cover: what is shown (side.py) or the blind comparison
that the button leads to (app.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from assets.words import Words
from finetune import side, views
from finetune.jobs import Jobs
from finetune.outcome import made

HIDDEN: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


@dataclass(frozen=True)
class Side:
    """``chosen`` holds the ids of the ticked runs; ``compare`` is for two that both have an adapter."""

    fold: Any
    chosen: Any
    axis: Any
    shown: Any
    compare: Any


def build(words: Words, jobs: Jobs) -> Side:
    """A folded part of the card of runs."""
    with gr.Accordion(words("side.title"), open=False, elem_classes="n-plain", elem_id="train-side") as fold:
        gr.HTML(f'<p class="n-sub">{words("side.sub", most=side.MOST)}</p>')
        chosen = gr.CheckboxGroup(
            [], show_label=False, container=False, elem_classes="n-pick n-ticks", elem_id="train-side-runs"
        )
        axis = gr.Radio(
            [(words(f"side.axis.{name}"), name) for name in side.AXES],
            value="step",
            show_label=False,
            container=False,
            elem_classes="n-pills",
            elem_id="train-side-axis",
        )
        shown = gr.HTML(side.show([], "step", words))
        compare = gr.Button(words("side.compare"), variant="primary", visible=False, elem_id="train-side-compare")
    parts = Side(fold, chosen, axis, shown, compare)
    _wire(parts, jobs, words)
    return parts


def _wire(parts: Side, jobs: Jobs, words: Words) -> None:
    def listed(ticked: list[str] | None) -> Any:
        begun = [job for job in jobs.list() if job.started is not None]
        ids = {job.id for job in begun}
        kept = [job_id for job_id in ticked or [] if job_id in ids]
        return gr.update(choices=[(views.label(job, words), job.id) for job in begun], value=kept)

    def look(ticked: list[str], axis: side.Axis) -> list[Any]:
        found = side.runs(jobs, ticked)
        return [side.show(found, axis, words), gr.update(visible=ready(jobs, found))]

    parts.fold.expand(listed, parts.chosen, parts.chosen, **HIDDEN)
    inputs, outputs = [parts.chosen, parts.axis], [parts.shown, parts.compare]
    parts.chosen.input(look, inputs, outputs, trigger_mode="always_last", **HIDDEN)
    parts.axis.input(look, inputs, outputs, trigger_mode="always_last", **HIDDEN)


def ready(jobs: Jobs, found: list[side.Run]) -> bool:
    """Whether the blind comparison can take them: two that have ended with an adapter."""
    return len(found) == 2 and all(not run.job.active and made(jobs.folder(run.job.id)) is not None for run in found)
