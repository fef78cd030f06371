"""The owner's room for studies in the comparison tab.

Covers: its components and which of them triggers what. Does not cover: what the handlers do (tab_study_events.py), the
form of a new study (tab_study_form.py), the raters' page (tab_rate.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from assets.words import Words
from compare import study_panel as view
from compare import tab_changes_set, tab_study_form, tab_study_one
from compare.services import CompareServices
from compare.tab_study_events import StudyPage
from compare.tab_study_one import Room

_HERE = "(room, count) => [room, count, location.origin + location.pathname]"
_HERE_ACT = "(room) => [room, window.naranhiAct, location.origin + location.pathname]"
_TOP = "() => document.getElementById('n-studies')?.scrollIntoView({block: 'nearest'})"
TICK = 2.0


@dataclass(frozen=True)
class StudyTab:
    """For tab.py and app.py. ``results`` leads to the results tab; ``area`` is shown while the switch says so."""

    area: gr.Column
    page: StudyPage

    @property
    def results(self) -> gr.Button:
        return self.page.one.results

    def show_on(self, triggers: Sequence[Any]) -> None:
        """Bring the room up to date at these events."""
        gr.on(list(triggers), self.page.show, [self.page.state], self.page.outputs, **_QUIET)


_QUIET = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": 8}


def build(words: Words, services: CompareServices) -> StudyTab:
    """The room's components and events, in the Blocks that are open."""
    state = gr.State(Room())
    with gr.Column(visible=False, elem_classes="n-plain", elem_id="n-studies") as area:
        with gr.Column(elem_classes="n-plain") as home:
            listed = gr.HTML()
            with gr.Row(elem_classes="n-actions"):
                new = gr.Button(words("studies.new"), variant="primary", elem_id="n-study-new")
                opened = gr.UploadButton(
                    words("studies.open_pack"), file_types=[".zip"], variant="secondary", elem_id="n-study-open-pack"
                )
        form = tab_study_form.build(words)
        one = tab_study_one.build(words)
        with one.area:
            changes = tab_changes_set.build(words)
    act = gr.Button(visible="hidden", elem_id=view.ACT)
    payload, place = gr.Textbox(visible=False), gr.Textbox(visible=False)
    timer = gr.Timer(TICK, active=False)
    page = StudyPage(words, services, state, home, listed, new, opened, form, one, timer)
    act.click(page.act, [state, payload, place], page.outputs, js=_HERE_ACT, **_QUIET)
    timer.tick(page.tick, [state], page.outputs, **_QUIET)
    opened.upload(page.unpack, [state, opened], page.outputs, **_QUIET)
    _wire_form(page)
    _wire_one(page, place)
    tab_changes_set.SetPage(words, services, changes, page.telling, page.only_owner).wire(state, one.head)
    return StudyTab(area, page)


def _wire_form(page: StudyPage) -> None:
    form, state = page.form, page.state
    page.new.click(page.begin, [state], page.outputs, **_QUIET).then(
        page.foresee, form.fields, form.estimate, **_QUIET
    ).then(None, None, None, js=_TOP, api_visibility="private")
    form.template.input(page.template, [state, form.template], form.outputs, **_QUIET).then(
        page.foresee, form.fields, form.estimate, **_QUIET
    )
    form.sets.input(page.ask, [form.sets], [form.questions], **_QUIET).then(
        page.foresee, form.fields, form.estimate, **_QUIET
    )
    form.language.input(page.write, [form.language], form.outputs, **_QUIET)
    for field in form.counted:
        if field is not form.sets:
            changed = field.change if isinstance(field, gr.Slider) else field.input
            changed(page.foresee, form.fields, form.estimate, trigger_mode="always_last", **_QUIET)
    form.create.click(page.create, {state, *form.fields}, page.outputs, **_QUIET)
    form.back.click(page.home_again, [state], page.outputs, **_QUIET)


def _wire_one(page: StudyPage, place: gr.Textbox) -> None:
    one, state = page.one, page.state
    one.start.click(page.start, [state], page.outputs, **_QUIET)
    one.stop.click(page.stop, [state], page.outputs, **_QUIET)
    one.again.click(page.again, [state], page.outputs, **_QUIET).then(
        page.foresee, page.form.fields, page.form.estimate, **_QUIET
    ).then(None, None, None, js=_TOP, api_visibility="private")
    sure = json.dumps(page.words("studies.remove.sure"))
    one.remove.click(
        page.remove, [state, place], page.outputs, js=f"room => [room, confirm({sure}) ? 'yes' : '']", **_QUIET
    )
    one.open.click(page.open, [state], page.outputs, **_QUIET)
    one.close.click(page.close, [state], page.outputs, **_QUIET)
    one.reopen.click(page.open, [state], page.outputs, **_QUIET)
    one.add.click(page.add, [state, one.count, place], page.outputs, js=_HERE, **_QUIET)
    one.save.click(page.rewrite, [state, one.title, one.consent, one.target], page.outputs, **_QUIET)
    one.pack.click(page.pack, [state], page.outputs, **_QUIET)
    one.votes.click(page.votes, [state], page.outputs, **_QUIET)
    one.merge.upload(page.merge, [state, one.merge], page.outputs, **_QUIET)
