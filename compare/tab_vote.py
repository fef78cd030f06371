"""The vote bar, the marks per side and the reveal.

Covers: components, what they show at each stage, reading the marks. Does not cover: events (tab_events.py), keys
(keys.js).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from assets.words import Words
from compare import views
from compare.criteria import CRITERIA, Criterion
from compare.session import PLACES, Session
from compare.trial import CHOICES


@dataclass(frozen=True)
class Mark:
    """One scale for one side."""

    domain: str
    criterion: str
    place: str
    radio: gr.Radio


@dataclass(frozen=True)
class VotePanel:
    """Components. ``groups`` holds the scales of each domain; the bar stays in view.

    ``area`` is shown while one may vote and ``details`` in it once something is chosen: two components, because a late
    answer to a choice must not bring the scales back after the vote.
    """

    area: gr.Column
    details: gr.Column
    groups: dict[str, gr.Column]
    marks: tuple[Mark, ...]
    comment: gr.Textbox
    bar: gr.Column
    head: gr.HTML
    choice: gr.Radio
    layout: gr.Textbox
    confirm: gr.Button
    revealed: gr.Column
    result: gr.HTML
    following: gr.Button
    undo: gr.Button

    @property
    def outputs(self) -> list[Any]:
        bar = [self.bar, self.head, self.choice, self.confirm, self.revealed, self.result, self.following, self.undo]
        return [self.area, self.details, *self.groups.values(), *self.radios, self.comment, *bar]

    @property
    def radios(self) -> list[gr.Radio]:
        return [mark.radio for mark in self.marks]


def build(words: Words) -> VotePanel:
    marks: list[Mark] = []
    with (
        gr.Column(visible=False, elem_classes="n-plain") as area,
        gr.Column(visible=False, elem_classes="n-card n-marks", elem_id="n-marks") as details,
    ):
        gr.HTML(f'<h3 class="n-h">{words("compare.marks")}</h3>')
        groups = {domain: _group(domain, criteria, marks, words) for domain, criteria in CRITERIA.items()}
        comment = gr.Textbox(
            label=words("compare.comment"), placeholder=words("compare.comment.placeholder"), lines=1, max_lines=6
        )
    with gr.Column(visible=False, elem_classes="n-sticky n-votebar", elem_id="n-votebar") as bar:
        head = gr.HTML(views.vote_head(False, words))
        with gr.Row(elem_classes="n-vote"):
            choice = gr.Radio(
                [(words(f"compare.vote.{c}"), c) for c in CHOICES],
                label=words("compare.vote"),
                show_label=False,
                container=False,
                elem_id="n-choice",
                elem_classes="n-choices",
            )
            layout = gr.Textbox("columns", visible=False)
            confirm = gr.Button(
                words("compare.confirm"), variant="primary", elem_id="n-confirm", scale=0, min_width=120
            )
    with gr.Column(visible=False, elem_classes="n-sticky n-votebar", elem_id="n-revealed") as revealed:
        result = gr.HTML()
        with gr.Row(elem_classes="n-actions"):
            following = gr.Button(words("compare.prompt.next"), variant="primary", elem_id="n-next")
            undo = gr.Button(words("compare.undo"))
    return VotePanel(
        area, details, groups, tuple(marks), comment, bar, head, choice, layout, confirm, revealed, result, following,
        undo,
    )  # fmt: skip


def _group(domain: str, criteria: Sequence[Criterion], marks: list[Mark], words: Words) -> gr.Column:
    with gr.Column(visible=False, elem_classes="n-plain") as group:
        for criterion in criteria:
            gr.HTML(f'<p class="n-criterion"><b>{words(criterion.label)}</b> {words(criterion.question)}</p>')
            with gr.Row(elem_classes="n-scales"):
                marks += [Mark(domain, criterion.key, place, _scale(criterion, place, words)) for place in PLACES]
    return group


def _scale(criterion: Criterion, place: str, words: Words) -> gr.Radio:
    return gr.Radio(
        [(words(criterion.anchor(value)), value) for value in criterion.values],
        label=words(f"compare.side.{place}"),
        elem_classes=["n-scale", f"n-scale-{place}"],
    )


def read_marks(panel: VotePanel, domain: str, values: Sequence[int | None]) -> dict[str, dict[str, int]]:
    """{"left": {criterion: mark}, "right": {...}} of the scales used; ``values`` in the order of ``radios``."""
    found: dict[str, dict[str, int]] = {}
    for mark, value in zip(panel.marks, values, strict=True):
        if value is not None and mark.domain == domain:
            found.setdefault(mark.place, {})[mark.criterion] = int(value)
    return found


def paint(panel: VotePanel, session: Session, words: Words) -> dict[Any, Any]:
    """The bar when both answers are complete, the reveal after the vote, nothing otherwise."""
    seen = session.stage == "revealed" and session.talk is not None
    undone = session.talk is not None and session.talk.undone
    return {
        panel.area: gr.update(visible=session.can_vote),
        panel.bar: gr.update(visible=session.can_vote),
        panel.revealed: gr.update(visible=seen),
        panel.result: views.revealed(session, words) if seen else "",
        panel.undo: gr.update(visible=seen and not undone),
    }


def paint_blank(panel: VotePanel, words: Words) -> dict[Any, Any]:
    """Nothing chosen yet: for a new pair of answers."""
    blank: dict[Any, Any] = {panel.details: gr.update(visible=False), panel.choice: None, panel.comment: ""}
    blank[panel.head] = views.vote_head(False, words)
    return blank | dict.fromkeys(panel.radios)


def paint_marks(panel: VotePanel, domain: str, words: Words) -> dict[Any, Any]:
    """The scales of a domain, once a choice is made."""
    shown = domain if domain in panel.groups else "general"
    return {panel.details: gr.update(visible=True), panel.head: views.vote_head(True, words)} | {
        group: gr.update(visible=name == shown) for name, group in panel.groups.items()
    }
