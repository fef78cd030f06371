"""What tuning changed, folded under the answers and asked for when it is unfolded.

Covers: its components, when they may be seen, the event. Does not cover: the figures (views_changes.py), which answers
(talk.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import gradio as gr

from assets.words import Words
from compare import views_changes
from compare.desk import Desk
from compare.session import Session


@dataclass(frozen=True)
class ChangesPanel:
    """Components."""

    fold: gr.Accordion
    body: gr.HTML

    @property
    def outputs(self) -> list[Any]:
        return [self.fold, self.body]


def build(words: Words) -> ChangesPanel:
    label = words("compare.changes")
    with gr.Accordion(label, open=False, visible=False, elem_classes="n-card n-changes", elem_id="n-changes") as fold:
        body = gr.HTML()
    return ChangesPanel(fold, body)


def paint(panel: ChangesPanel, session: Session) -> dict[Any, Any]:
    """Folded and empty; to be seen once the names are, for two answers of one base."""
    talk = session.talk
    open_talk = session.stage == "answered" and talk is not None and not talk.blind
    seen = (session.stage == "revealed" or open_talk) and talk is not None and talk.comparable is not None
    return {panel.fold: gr.update(visible=seen, open=False), panel.body: ""}


def unfold(
    panel: ChangesPanel,
    desk: Desk,
    words: Words,
    telling: Callable[[], AbstractContextManager[None]],
    session: Session,
) -> Iterator[dict[Any, Any]]:
    """Find out, and say so meanwhile."""
    yield {panel.body: f'<p class="n-sub">{words("compare.changes.measuring")}</p>'}
    shown = f'<p class="n-sub">{words("compare.changes.failed")}</p>'
    with telling():
        if session.compare(desk) and session.talk is not None and session.talk.changes is not None:
            shown = views_changes.changes(session.talk.changes, words)
    yield {panel.body: shown}
