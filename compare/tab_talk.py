"""What to ask, and the two panes that answer.

Covers: components, what they show at each stage of a session. Does not cover: events (tab_events.py), the vote
(tab_vote.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from assets.catalog import Prompt
from assets.errors import UserError
from assets.words import Words
from compare import views
from compare.criteria import DOMAINS
from compare.engine import Sampling
from compare.session import PLACES, Session

DEFAULT = Sampling()


@dataclass(frozen=True)
class TalkPanel:
    """Components of the question card and the panes."""

    mode: gr.Radio
    hint: gr.HTML
    card: gr.Column
    pick: gr.Column
    domain: gr.Radio
    prompt: gr.Dropdown
    following: gr.Button
    before: gr.HTML
    text: gr.Textbox
    reference: gr.Accordion
    answer: gr.HTML
    ask: gr.Button
    stop: gr.Button
    again: gr.Button
    clear: gr.Button
    system: gr.Textbox
    temperature: gr.Slider
    top_p: gr.Slider
    max_tokens: gr.Slider
    seed: gr.Number
    left: gr.HTML
    right: gr.HTML

    @property
    def settings(self) -> list[Any]:
        """Inputs of ``read_settings``, in its order."""
        return [self.system, self.temperature, self.top_p, self.max_tokens, self.seed]

    @property
    def outputs(self) -> list[Any]:
        return list(vars(self).values())


def read_settings(words: Words, system: str | None, *numbers: float | None) -> tuple[str, Sampling]:
    """The folded settings. UserError for an empty or impossible number."""
    names = ("temperature", "top_p", "max_tokens", "seed")
    for name, value in zip(names, numbers, strict=True):
        if value is None:
            raise UserError("compare.bad_number", name=words(f"compare.{name}"))
    temperature, top_p, tokens, seed = (value or 0 for value in numbers)
    return (system or "").strip(), Sampling(
        temperature=float(temperature), top_p=float(top_p), max_new_tokens=int(tokens), seed=int(seed)
    )


def switch(words: Words) -> tuple[gr.Radio, gr.HTML]:
    """What kind of comparison this is, and a line about it: the top of the tab."""
    with gr.Row(elem_classes="n-bar-top"):
        mode = gr.Radio(
            modes(words, owner=False),
            value="blind",
            label=words("compare.mode"),
            show_label=False,
            container=False,
            elem_classes="n-switch",
            elem_id="n-mode",
        )
        hint = gr.HTML(_hint("blind", words))
    return mode, hint


def modes(words: Words, *, owner: bool) -> list[tuple[str, str]]:
    """Studies are made by the owner alone."""
    return [(words(f"compare.mode.{mode}"), mode) for mode in ("open", "blind", *(("study",) if owner else ()))]


def build(words: Words, mode: gr.Radio, hint: gr.HTML) -> TalkPanel:
    with gr.Column(elem_classes="n-card n-question") as card:
        pick, domain, prompt, following, before = _pick(words)
        text = gr.Textbox(
            label=words("compare.text"), show_label=False, container=False, lines=2, max_lines=8, elem_id="n-text"
        )
        with gr.Accordion(words("compare.reference"), open=False, visible=False, elem_classes="n-fold") as reference:
            answer = gr.HTML()
        with gr.Row(elem_classes="n-actions"):
            ask = gr.Button(words("compare.ask"), variant="primary", elem_id="n-ask")
            stop = gr.Button(words("compare.stop"), variant="stop", visible=False, elem_id="n-stop")
            again = gr.Button(words("compare.again"), visible=False, elem_id="n-again")
            clear = gr.Button(words("compare.clear"), visible=False)
        settings = _settings(words)
    with gr.Row(equal_height=True, elem_classes="n-panes"):
        left, right = (_pane(place, words) for place in PLACES)
    return TalkPanel(
        mode, hint, card, pick, domain, prompt, following, before, text, reference, answer, ask, stop, again, clear,
        *settings, left, right,
    )  # fmt: skip


def _pick(words: Words) -> tuple[gr.Column, gr.Radio, gr.Dropdown, gr.Button, gr.HTML]:
    with gr.Column(elem_classes="n-plain") as pick:
        with gr.Row(elem_classes="n-choose"):
            domain = gr.Radio(
                [(words(f"compare.domain.{d}"), d) for d in DOMAINS],
                value="emotion",
                label=words("compare.domain"),
                show_label=False,
                container=False,
                elem_classes="n-pills",
                elem_id="n-domain",
            )
            prompt = gr.Dropdown(
                [], label=words("compare.prompt"), show_label=False, container=False, scale=5, elem_id="n-prompt"
            )
            following = gr.Button(words("compare.prompt.next"), scale=0, min_width=110)
        before = gr.HTML(visible=False)
    return pick, domain, prompt, following, before


def _settings(words: Words) -> tuple[gr.Textbox, gr.Slider, gr.Slider, gr.Slider, gr.Number]:
    with gr.Accordion(words("compare.details"), open=False, elem_classes="n-fold"):
        gr.HTML(f'<p class="n-sub">{words("compare.details.sub")}</p>')
        system = gr.Textbox(
            label=words("compare.system"), placeholder=words("compare.system.placeholder"), lines=2, max_lines=6
        )
        with gr.Row(elem_classes="n-numbers"):
            temperature = gr.Slider(0, 2, DEFAULT.temperature, step=0.05, label=words("compare.temperature"))
            top_p = gr.Slider(0.05, 1, DEFAULT.top_p, step=0.05, label=words("compare.top_p"))
            tokens = gr.Slider(8, 2048, DEFAULT.max_new_tokens, step=8, label=words("compare.max_tokens"))
            seed = gr.Number(DEFAULT.seed, precision=0, minimum=0, label=words("compare.seed"))
    return system, temperature, top_p, tokens, seed


def _pane(place: str, words: Words) -> gr.HTML:
    empty = Session().panes()[0]
    with gr.Column(elem_classes=["n-answer", "n-card", f"n-{place}"], elem_id=f"n-pane-{place}"):
        return gr.HTML(views.pane(empty, place, words))


def _hint(mode: str, words: Words) -> str:
    return f'<p class="n-sub">{words(f"compare.mode.{mode}.sub")}</p>'


def paint(panel: TalkPanel, session: Session, ready: bool, words: Words) -> dict[Any, Any]:
    """Every part that depends on the stage. ``ready`` says whether anything is loaded."""
    stage = session.stage
    busy = stage == "busy"
    more = stage == "answered"
    label = {"answered": "compare.follow", "stopped": "compare.again"}.get(stage, "compare.ask")
    voting = session.can_vote
    asking = gr.update(
        value=words(label),
        visible=stage not in ("busy", "revealed"),
        interactive=ready,
        variant="secondary" if voting else "primary",
    )
    return {
        panel.mode: gr.update(choices=modes(words, owner=session.role == "owner"), interactive=not busy),
        panel.card: gr.update(visible=stage != "revealed"),
        panel.pick: gr.update(visible=stage == "ready"),
        panel.text: gr.update(
            interactive=not busy, placeholder=words("compare.text.more" if more else "compare.text.first")
        ),
        panel.ask: asking,
        panel.stop: gr.update(visible=busy),
        panel.again: gr.update(visible=more, interactive=ready),
        panel.clear: gr.update(visible=stage in ("answered", "stopped")),
    } | paint_panes(panel, session, words)


def paint_mode(panel: TalkPanel, session: Session, words: Words) -> dict[Any, Any]:
    """The switch itself. Not a part of ``paint``, whose late answer must not turn a switch back that was just moved."""
    return {panel.mode: gr.update(value=session.mode), panel.hint: _hint(session.mode, words)}


def paint_panes(panel: TalkPanel, session: Session, words: Words) -> dict[Any, Any]:
    """Both panes, and nothing else: what changes while answers stream."""
    left, right = session.panes()
    return {
        panel.left: views.pane(left, "left", words, session.place),
        panel.right: views.pane(right, "right", words, session.place),
    }


def paint_prompt(
    panel: TalkPanel, domain: str, listed: Sequence[Prompt], prompt: Prompt | None, rated: set[str], words: Words
) -> dict[Any, Any]:
    """The picker of a domain with one prompt chosen, its text, context and reference."""
    choices = [(views.first_words(p, i, p.id in rated), p.id) for i, p in enumerate(listed, 1)]
    before = views.context(prompt, words)
    return {
        panel.domain: gr.update(value=domain),
        panel.prompt: gr.update(choices=choices, value=prompt.id if prompt else None, visible=bool(listed)),
        panel.following: gr.update(visible=bool(listed)),
        panel.text: gr.update(value=prompt.messages[-1]["content"] if prompt else ""),
        panel.before: gr.update(value=before, visible=bool(before)),
        panel.reference: gr.update(visible=bool(prompt and prompt.reference), open=False),
        panel.answer: views.reference(prompt),
    }


def find_prompt(listed: Sequence[Prompt], prompt_id: str | None) -> Prompt | None:
    return next((p for p in listed if p.id == prompt_id), None)


def next_prompt(listed: Sequence[Prompt], prompt_id: str | None, rated: set[str]) -> Prompt | None:
    """The next one without this rater's vote, going round; simply the next one when all are rated."""
    at = next((i for i, p in enumerate(listed) if p.id == prompt_id), -1)
    around = [*listed[at + 1 :], *listed[: at + 1]]
    return next((p for p in around if p.id not in rated), around[0] if around else None)
