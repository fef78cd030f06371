"""Choosing a pair, loading it, giving it back: what happens when the owner presses something in the setup card.

Covers: those handlers, and following a loading that somebody has begun. Does not cover: components (tab_setup.py), the
line and the engine (desk.py).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import gradio as gr

from assets.errors import UserError
from compare import tab_remote, tab_setup, tab_talk, views
from compare.candidates import Asked, choose, look_up
from compare.session import Session
from compare.tab_page import Painted, Shown

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loads(Painted):
    """A page on which pairs can be chosen and loaded."""

    def look(self, session: Session, base: str | None, other: str | None, request: gr.Request) -> Shown:
        """A picker has changed: memory, download, fields for a foreign adapter."""
        with self.telling():
            self.only_owner(request)
            session.picked = (base or "", other or "")
            return tab_setup.about(self.setup, self.services, self.words, *session.picked)
        return {self.setup.facts: ""}

    def load(
        self,
        session: Session,
        base: str | None,
        other: str | None,
        system: str | None,
        template: str | None,
        key_base: str | None,
        key_other: str | None,
        request: gr.Request,
    ) -> Iterator[Shown]:
        """Load the pair and show how far it is. Leaving the page does not stop it; cancelling does."""
        keys = {self.setup.key_base: gr.update(value=""), self.setup.key_other: gr.update(value="")}
        yield {self.setup.load: gr.update(interactive=False), self.setup.progress: "", **keys}
        try:
            self.only_owner(request)
            session.picked = (base or "", other or "")
            tab_remote.keep(self.services.keys, session.picked, (key_base, key_other))
            asked = Asked((template or "").strip(), (system or "").strip())
            chosen = choose(self.services.workspace, *session.picked, asked)
            fitting = tab_setup.room(self.services, [look_up(side) for side in session.picked])
            cards = fitting.wanted if fitting else 1
            self.services.desk.load(chosen.first, chosen.second, not (fitting and fitting.in_turn), cards)
        except Exception as error:
            if not isinstance(error, UserError):
                log.exception("loading could not begin")
            note = views.bad(views.sentence(error, self.words))
            yield {self.setup.progress: note, self.setup.load: gr.update(interactive=True)}
            return
        session.editing = False
        session.clear()
        for key, values in chosen.notes:
            gr.Info(self.words(key, **values), title=self.words("app.name"))
        yield from self.follow(session)

    def follow(self, session: Session) -> Iterator[Shown]:
        loading = None
        for loading in self.services.desk.follow():
            if loading.ended:
                break
            yield {
                self.setup.progress: views.loading(loading, self.words),
                self.setup.card: gr.update(visible=True),
                self.setup.load: gr.update(visible=False),
                self.setup.cancel: gr.update(visible=True),
            }
        if loading is not None:
            yield self.paint(session)

    def cancel_loading(self, request: gr.Request) -> None:
        with self.telling():
            self.only_owner(request)
            self.services.desk.cancel_loading()

    def change(self, session: Session, request: gr.Request) -> Shown:
        with self.telling():
            self.only_owner(request)
            session.editing = True
        return self.paint(session)

    def back(self, session: Session) -> Shown:
        session.editing, session.picked = False, ("", "")
        return self.paint(session)

    def unload(self, session: Session, request: gr.Request) -> Shown:
        with self.telling():
            self.only_owner(request)
            self.services.desk.unload()
            gr.Info(self.words("compare.unloaded"), title=self.words("app.name"))
        return self.paint(session)

    def choose(self, session: Session, base: str, adapter: str, request: gr.Request) -> Shown:
        """Open the card with this pair chosen, as "compare with base" in the training tab asks."""
        with self.telling():
            self.only_owner(request)
            session.picked, session.editing, session.studying = (base, adapter), True, False
        return self.paint(session) | tab_talk.paint_mode(self.talk, session, self.words)
