"""One page of the comparison tab: its components, the services behind it, what it shows of a session.

Covers: painting all of it or a part, noticing that others loaded or unloaded, telling people what went wrong. Does not
cover: what a press does (tab_loading.py, tab_events.py).
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gradio as gr

from assets.access import for_visitors
from assets.errors import UserError
from assets.words import Words
from compare import tab_changes, tab_setup, tab_talk, tab_vote, views
from compare.services import CompareServices
from compare.session import Session
from compare.tab_changes import ChangesPanel
from compare.tab_setup import SetupPanel
from compare.tab_talk import TalkPanel
from compare.tab_vote import VotePanel

log = logging.getLogger(__name__)
Shown = dict[Any, Any]


@dataclass(frozen=True)
class Painted:
    """One page's components with the services behind it."""

    words: Words
    services: CompareServices
    state: gr.State
    browser: gr.BrowserState
    setup: SetupPanel
    talk: TalkPanel
    vote: VotePanel
    changes: ChangesPanel

    @property
    def outputs(self) -> list[Any]:
        return [*self.setup.outputs, *self.talking, self.browser]

    @property
    def talking(self) -> list[Any]:
        return [*self.talk.outputs, *self.vote.outputs, *self.changes.outputs]

    def paint(self, session: Session) -> Shown:
        """The whole tab."""
        owner = session.role == "owner"
        session.seen = self._state()
        shown = tab_setup.paint(self.setup, self.services, self.words, session, owner=owner)
        return shown | self.paint_talk(session) | self._prefill(session)

    def paint_talk(self, session: Session) -> Shown:
        ready = self.services.desk.pair is not None
        talk = tab_talk.paint(self.talk, session, ready, self.words)
        return talk | tab_vote.paint(self.vote, session, self.words) | tab_changes.paint(self.changes, session)

    @for_visitors
    def tick(self, session: Session) -> Any:
        """Now and then: whether others have loaded or unloaded, or it fell asleep, since this page was painted. A new
        value then, else nothing: a handler with the whole page as its output costs the browser, whatever it returns."""
        same = session.ticket is not None or session.seen == self._state()
        return gr.skip() if same else secrets.token_hex(8)

    @for_visitors
    def repaint(self, session: Session) -> Shown:
        """The whole tab as it is now."""
        return self.paint(session)

    def _state(self) -> tuple[str, bool]:
        desk = self.services.desk
        return desk.pair.id if desk.pair else "", desk.resting

    def _prefill(self, session: Session) -> Shown:
        """The system prompt of a pair that this visitor has not met yet."""
        pair = self.services.desk.pair
        if pair is None or session.met == pair.id:
            return {}
        session.met = pair.id
        return {self.talk.system: pair.system}

    @contextmanager
    def telling(self) -> Iterator[None]:
        """What goes wrong inside is said in the page's language; the unexpected goes to the log as well."""
        try:
            yield
        except UserError as error:
            gr.Warning(self.words.error(error), title=self.words("app.name"))
        except Exception as error:
            log.exception("a handler of the comparison failed")
            gr.Warning(views.sentence(error, self.words), title=self.words("app.failed"), duration=None)

    def only_owner(self, request: gr.Request) -> None:
        if not self.services.owner(request):
            raise UserError("app.owner_only")
