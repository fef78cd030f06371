"""The form of a new study.

Covers: its components. Does not cover: what fills them and what becomes of them (tab_study_draft.py), events
(tab_study.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from assets.words import LANGUAGES, Words
from compare import study_choice as choice
from compare.engine import Sampling
from compare.study import REVEALS

RATERS = 6


@dataclass(frozen=True)
class FormPanel:
    """Components. Every field but the buttons is an input of ``read``, by component and not by place."""

    area: gr.Column
    template: gr.Radio
    note: gr.HTML
    name: gr.Textbox
    models: gr.Dropdown
    sets: gr.CheckboxGroup
    per_set: gr.Slider
    part: gr.Radio
    questions: gr.CheckboxGroup
    raters: gr.Slider
    target: gr.Slider
    reveal: gr.Radio
    language: gr.Radio
    length: gr.Slider
    overlap: gr.Slider
    repeats: gr.Slider
    same: gr.Slider
    title: gr.Textbox
    rubric: gr.Textbox
    consent: gr.Textbox
    system: gr.Textbox
    temperature: gr.Slider
    tokens: gr.Slider
    estimate: gr.HTML
    create: gr.Button
    back: gr.Button

    @property
    def fields(self) -> set[Any]:
        return set(vars(self).values()) - {self.area, self.note, self.estimate, self.create, self.back}

    @property
    def counted(self) -> list[Any]:
        """The fields that the estimate depends on."""
        numbers = [self.per_set, self.raters, self.target, self.length, self.overlap, self.repeats, self.same]
        return [self.models, self.sets, self.part, self.questions, *numbers]

    @property
    def outputs(self) -> list[Any]:
        return list(vars(self).values())


def build(words: Words) -> FormPanel:
    with gr.Column(visible=False, elem_classes="n-card n-study-form") as area:
        gr.HTML(f'<h3 class="n-h">{words("studies.new")}</h3><p class="n-sub">{words("studies.new.sub")}</p>')
        template = _radio(words, "template", choice.TEMPLATES, "n-pick", label=False)
        note = gr.HTML()
        name = gr.Textbox(
            label=words("studies.name"), info=words("studies.name.info"), max_length=120, elem_id="n-study-title"
        )
        models = _models(words)
        sets, per_set, part = _prompts(words)
        questions = _questions(words)
        raters, target, reveal, language = _raters(words)
        estimate = gr.HTML()
        numbers = _numbers(words)
        texts = _texts(words)
        sampling = _sampling(words)
        with gr.Row(elem_classes="n-actions"):
            create = gr.Button(words("studies.create"), variant="primary", elem_id="n-study-create")
            back = gr.Button(words("compare.cancel"))
    return FormPanel(
        area, template, note, name, models, sets, per_set, part, questions, raters, target, reveal, language, *numbers,
        *texts, *sampling, estimate, create, back,
    )  # fmt: skip


def _step(number: int, key: str, words: Words) -> None:
    gr.HTML(f'<h4 class="n-h"><span class="n-num">{number}</span>{words(key)}</h4>')


def _radio(words: Words, field: str, values: Sequence[str], look: str, label: bool = True) -> gr.Radio:
    return gr.Radio(
        [(words(f"studies.{field}.{value}"), value) for value in values],
        value=values[0],
        label=words(f"studies.{field}") if label else None,
        show_label=label,
        container=label,
        elem_classes=look,
        elem_id=f"n-study-{field}",
    )


def _models(words: Words) -> gr.Dropdown:
    _step(1, "studies.step1", words)
    return gr.Dropdown(
        [],
        multiselect=True,
        allow_custom_value=True,
        label=words("studies.models"),
        info=words("studies.models.info"),
        elem_id="n-study-models",
    )


def _prompts(words: Words) -> tuple[gr.CheckboxGroup, gr.Slider, gr.Radio]:
    _step(2, "studies.step2", words)
    sets = gr.CheckboxGroup([], label=words("studies.sets"), elem_classes="n-ticks", elem_id="n-study-sets")
    with gr.Row(elem_classes="n-study-row"):
        per_set = gr.Slider(
            1,
            200,
            choice.PER_SET,
            step=1,
            label=words("studies.per_set"),
            elem_classes="n-plain-slider",
            elem_id="n-study-per-set",
        )
        part = _radio(words, "part", choice.PARTS, "n-ticks")
    return sets, per_set, part


def _questions(words: Words) -> gr.CheckboxGroup:
    _step(3, "studies.step3", words)
    return gr.CheckboxGroup(
        [],
        label=words("studies.questions"),
        info=words("studies.questions.info"),
        elem_classes="n-ticks",
        elem_id="n-study-questions",
    )


def _raters(words: Words) -> tuple[gr.Slider, gr.Slider, gr.Radio, gr.Radio]:
    _step(4, "studies.step4", words)
    with gr.Row(elem_classes="n-study-row"):
        raters = gr.Slider(1, 60, RATERS, step=1, label=words("studies.raters"), elem_classes="n-plain-slider")
        target = gr.Slider(20, 2000, 200, step=10, label=words("studies.target"), elem_classes="n-plain-slider")
    with gr.Row(elem_classes="n-study-row"):
        reveal = _radio(words, "reveal", REVEALS, "n-ticks")
        language = _radio(words, "language", LANGUAGES, "n-ticks")
    language.value = words.language
    return raters, target, reveal, language


def _numbers(words: Words) -> tuple[gr.Slider, gr.Slider, gr.Slider, gr.Slider]:
    with gr.Accordion(words("studies.numbers"), open=False, elem_classes="n-fold"), gr.Row(elem_classes="n-numbers"):
        length = gr.Slider(4, 200, 40, step=1, label=words("studies.length"), info=words("studies.length.info"))
        overlap = gr.Slider(0, 60, 10, step=1, label=words("studies.overlap"), info=words("studies.overlap.info"))
        repeats = gr.Slider(0, 30, 10, step=5, label=words("studies.repeats"), info=words("studies.repeats.info"))
        same = gr.Slider(0, 30, 5, step=5, label=words("studies.same"), info=words("studies.same.info"))
    return length, overlap, repeats, same


def _texts(words: Words) -> tuple[gr.Textbox, gr.Textbox, gr.Textbox]:
    with gr.Accordion(words("studies.texts"), open=False, elem_classes="n-fold", elem_id="n-study-texts"):
        title = gr.Textbox(label=words("studies.title"), max_length=200)
        rubric = gr.Textbox(label=words("studies.rubric"), lines=4, max_lines=14)
        consent = gr.Textbox(label=words("studies.consent"), lines=6, max_lines=20, info=words("studies.consent.info"))
    return title, rubric, consent


def _sampling(words: Words) -> tuple[gr.Textbox, gr.Slider, gr.Slider]:
    with gr.Accordion(words("studies.sampling"), open=False, elem_classes="n-fold"):
        system = gr.Textbox(label=words("compare.system"), info=words("studies.system.info"), lines=2, max_lines=6)
        with gr.Row(elem_classes="n-numbers"):
            temperature = gr.Slider(0, 2, Sampling().temperature, step=0.05, label=words("compare.temperature"))
            tokens = gr.Slider(16, 2048, Sampling().max_new_tokens, step=8, label=words("compare.max_tokens"))
    return system, temperature, tokens
