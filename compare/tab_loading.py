"""Choosing a pair, loading it, giving it back: what happens when the owner presses something in the setup card.

Covers: those handlers, and following a loading that somebody has begun. Does not cover: components (tab_setup.py), the
line and the engine (desk.py).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

import gradio as gr

from assets.access import for_visitors
from assets.errors import UserError
from compare import tab_remote, tab_setup, tab_talk, views
from compare.candidates import Asked, choose, look_up
from compare.session import Session
from compare.tab_page import Painted, Shown

log = logging.getLogger(__name__)
STALE = ("?", False)  # no state of the desk: the page must be painted anew
PACE = 0.5  # seconds between two looks at how far loading is


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
    ) -> Shown:
        """Begin to load the pair. Leaving the page does not stop it; cancelling does."""
        keys = {self.setup.key_base: gr.update(value=""), self.setup.key_other: gr.update(value="")}
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
            return keys | {self.setup.progress: views.bad(views.sentence(error, self.words))}
        session.editing, session.seen = False, STALE
        session.clear()
        for key, values in chosen.notes:
            gr.Info(self.words(key, **values), title=self.words("app.name"))
        return keys | self._loading("")

    def _loading(self, progress: str) -> Shown:
        return {
            self.setup.progress: progress,
            self.setup.card: gr.update(visible=True),
            self.setup.load: gr.update(visible=False),
            self.setup.cancel: gr.update(visible=True),
        }

    # The browser needs a while for a whole page, and shows what events that run side by side have sent in any order:
    # a page sent late would cover an answer that had begun. So loading is followed by an event, the page that comes of
    # it painted by the next, and asking opened by one more.

    @for_visitors
    def follow(self, session: Session) -> Iterator[Shown]:
        """How far loading is, until it ends. Each time all of it: of what comes in between, the browser may lose some."""
        yield {self.setup.progress: gr.skip()}
        last = 0.0
        for loading in self.services.desk.follow() if session.role == "owner" else ():
            if loading.ended:
                return
            session.seen = STALE
            if time.monotonic() - last >= PACE:
                last = time.monotonic()
                yield self._loading(views.loading(loading, self.words))

    @for_visitors
    def settle(self, session: Session) -> Shown:
        """The whole page where it shows what is no more; nobody can ask yet."""
        if session.seen == self._state():
            return {self.setup.progress: gr.skip()}
        shown = self.paint(session)
        return shown | {self.talk.ask: shown[self.talk.ask] | {"interactive": False}}

    @for_visitors
    def ready(self) -> Shown:
        """Open asking where there is somebody to ask."""
        return {self.talk.ask: gr.update(interactive=self.services.desk.pair is not None)}

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
