"""The comparison tab.

Covers: putting its panels together and wiring every event. Does not cover: what the handlers do (tab_events.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from assets.access import for_visitors
from assets.words import Words
from compare import tab_changes, tab_prompts, tab_setup, tab_study, tab_talk, tab_vote
from compare.services import CompareServices
from compare.session import Session
from compare.tab_events import Page
from compare.tab_prompts import PromptPanel
from compare.tab_study import StudyTab

VISITORS = 16
LOOK = 5.0
_INTO_VIEW = "() => requestAnimationFrame(() => document.getElementById('{}')?.scrollIntoView({{block: 'nearest'}}))"

# The panes stand one above the other on a phone, which a vote should remember (theme.css, 700 px).
_LAYOUT = "(s, c, t, l, ...m) => [s, c, t, window.innerWidth <= 700 ? 'stacked' : 'columns', ...m]"
_TO_PANES = "() => { if (innerWidth <= 700) document.getElementById('n-pane-left')?.scrollIntoView({block: 'start'}) }"


@dataclass(frozen=True)
class CompareTab:
    """For app.py. ``state`` is the visitor's session, ``train`` the button that leads to the training tab.

    ``choose(session, base, adapter_folder, request)`` returns updates of ``outputs``.
    """

    page: Page
    study: StudyTab
    own: PromptPanel

    @property
    def state(self) -> gr.State:
        return self.page.state

    @property
    def train(self) -> gr.Button:
        return self.page.setup.train

    @property
    def outputs(self) -> list[Any]:
        return self.page.outputs

    @property
    def choose(self) -> Callable[[Session, str, str, gr.Request], dict[Any, Any]]:
        return self.page.choose

    def show_on(self, triggers: Sequence[Any]) -> None:
        """Bring the tab up to date at these events: the page's load and the tab's select."""
        page = self.page
        _followed(page, gr.on(list(triggers), page.show, [page.state, page.browser], page.outputs, **_quiet(VISITORS)))


def build(words: Words, services: CompareServices) -> CompareTab:
    """The tab's components and events, in the Blocks that are open."""
    state = gr.State(Session())
    browser = gr.BrowserState("", storage_key="naranhi-rater", secret="naranhi")
    mode, hint = tab_talk.switch(words)
    with gr.Column(elem_classes="n-plain") as chat:
        setup = tab_setup.build(words)
        talk = tab_talk.build(words, mode, hint)
        changes = tab_changes.build(words)
        vote = tab_vote.build(words)
        own = tab_prompts.build(words, services)
    study = tab_study.build(words, services)
    page = Page(words, services, state, browser, setup, talk, vote, changes)
    _wire_setup(page)
    _wire_talk(page)
    _wire_vote(page)
    tab_prompts.on_kept(own, page.relist, [state, talk.prompt], page.talking)
    mode.change(_rooms, mode, [chat, study.area], **_quiet())
    study.show_on([mode.change])
    return CompareTab(page, study, own)


@for_visitors
def _rooms(mode: str) -> list[Any]:
    """The talk or the studies, whichever the switch says."""
    return [gr.update(visible=mode != "study"), gr.update(visible=mode == "study")]


def _quiet(limit: int | None = None) -> dict[str, Any]:
    """How every event runs: not in the public API, without gradio's own progress; ``limit`` at a time."""
    return {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": limit}


def _followed(page: Page, begun: Any) -> None:
    """After it: how far loading is, the page as it is then, and asking open, one after the other."""
    following = begun.then(page.follow, [page.state], page.setup.outputs, **_quiet(VISITORS))
    whole = following.then(page.settle, [page.state], page.outputs, **_quiet(VISITORS))
    whole.then(page.ready, None, [page.talk.ask], **_quiet(VISITORS))


def _wire_setup(page: Page) -> None:
    setup, state = page.setup, page.state
    for picker in (setup.base, setup.other):
        changed = [setup.facts, setup.foreign, setup.key_base, setup.key_other, setup.load]
        picker.change(page.look, [state, setup.base, setup.other], changed, trigger_mode="always_last", **_quiet())
    asked = [setup.base, setup.other, setup.system, setup.template, setup.key_base, setup.key_other]
    _followed(page, setup.load.click(page.load, [state, *asked], setup.outputs, **_quiet(VISITORS)))
    setup.cancel.click(page.cancel_loading, None, None, **_quiet())
    setup.change.click(page.change, [state], page.outputs, **_quiet())
    setup.back.click(page.back, [state], page.outputs, **_quiet())
    setup.unload.click(page.unload, [state], page.outputs, **_quiet())
    moved = gr.State("")
    gr.Timer(LOOK).tick(page.tick, [state], moved, **_quiet(VISITORS))
    moved.change(page.repaint, [state], page.outputs, **_quiet(VISITORS))


def _wire_talk(page: Page) -> None:
    talk, state = page.talk, page.state
    asked = [state, talk.text, talk.domain, talk.prompt, *talk.settings]
    talk.ask.click(None, None, None, js=_TO_PANES, api_visibility="private")
    gr.on([talk.ask.click, talk.text.submit], page.ask, asked, page.talking, **_quiet(VISITORS))
    talk.again.click(page.again, [state, *talk.settings], page.talking, **_quiet(VISITORS))
    talk.stop.click(page.stop, [state], None, **_quiet())
    talk.clear.click(page.clear, [state, talk.prompt], page.talking, **_quiet())
    talk.following.click(page.following, [state, talk.prompt], page.talking, **_quiet())
    talk.prompt.input(page.prompt, [state, talk.prompt], page.talking, **_quiet())
    talk.domain.input(page.domain, [state, talk.domain], page.talking, **_quiet())
    talk.mode.input(page.mode, [state, talk.mode, talk.prompt], page.outputs, **_quiet())


def _wire_vote(page: Page) -> None:
    vote, state = page.vote, page.state
    vote.choice.input(page.chosen, [state], [vote.details, vote.head, *vote.groups.values()], **_quiet())
    given = [state, vote.choice, vote.comment, vote.layout, *vote.radios]
    voted = vote.confirm.click(page.confirm, given, page.talking, js=_LAYOUT, **_quiet())
    voted.then(None, None, None, js=_INTO_VIEW.format("n-revealed"), api_visibility="private")
    page.changes.fold.expand(page.unfold, [state], page.changes.outputs, **_quiet(VISITORS))
    vote.undo.click(page.undo, [state], page.talking, **_quiet())
    vote.following.click(page.following, [state, page.talk.prompt], page.talking, **_quiet())
