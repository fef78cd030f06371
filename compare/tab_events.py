"""What happens when somebody presses something in the comparison tab.

Covers: every handler, who may do what, telling people what went wrong. Does not cover: which component triggers which
handler (tab.py), the logic of a comparison (session.py, desk.py). Handlers change the visitor's Session in place and
return what the page shows of it.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gradio as gr

from assets.catalog import Prompt
from assets.errors import UserError
from assets.prompt_sets import listed
from assets.words import Words
from compare import tab_setup, tab_talk, tab_vote, views
from compare.candidates import Asked, choose
from compare.engine import Sampling
from compare.services import CompareServices
from compare.session import Question, Session
from compare.tab_setup import SetupPanel
from compare.tab_talk import TalkPanel
from compare.tab_vote import VotePanel

log = logging.getLogger(__name__)
FRAME = 0.05
RATER_LENGTH = 16
Shown = dict[Any, Any]


@dataclass(frozen=True)
class Page:
    """One page's components with the services behind it."""

    words: Words
    services: CompareServices
    state: gr.State
    browser: gr.BrowserState
    setup: SetupPanel
    talk: TalkPanel
    vote: VotePanel

    @property
    def outputs(self) -> list[Any]:
        return [*self.setup.outputs, *self.talking, self.browser]

    @property
    def talking(self) -> list[Any]:
        return [*self.talk.outputs, *self.vote.outputs]

    # Who looks, and what they see

    def show(self, session: Session, kept: str | None, request: gr.Request) -> Iterator[Shown]:
        """The page is opened or looked at again: everything as it is now, and loading as it goes on."""
        first = not session.rater
        with self.telling():
            self._know(session, kept, request)
        begun = self._begin(session) if first else {}
        yield self.paint(session) | begun | {self.browser: session.rater}
        if session.role == "owner":
            yield from self._follow(session)

    def _know(self, session: Session, kept: str | None, request: gr.Request) -> None:
        session.role = "owner" if self.services.owner(request) else "visitor"
        if not session.rater:
            known = isinstance(kept, str) and kept.isalnum() and len(kept) == RATER_LENGTH
            rater = str(kept) if known else secrets.token_hex(RATER_LENGTH // 2)
            votes = self.services.ratings.read().votes
            session.meet(rater, {v.prompt_id for v in votes if v.rater == rater and v.prompt_id})

    def paint(self, session: Session) -> Shown:
        """The whole tab."""
        owner = session.role == "owner"
        shown = tab_setup.paint(self.setup, self.services, self.words, session, owner=owner)
        return shown | self.paint_talk(session) | self._prefill(session)

    def paint_talk(self, session: Session) -> Shown:
        ready = self.services.desk.pair is not None
        talk = tab_talk.paint(self.talk, session, ready, self.words)
        return talk | tab_vote.paint(self.vote, session, self.words)

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

    # Choosing and loading

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
        request: gr.Request,
    ) -> Iterator[Shown]:
        """Load the pair and show how far it is. Leaving the page does not stop it; cancelling does."""
        yield {self.setup.load: gr.update(interactive=False), self.setup.progress: ""}
        try:
            self.only_owner(request)
            session.picked = (base or "", other or "")
            asked = Asked((template or "").strip(), (system or "").strip())
            chosen = choose(self.services.workspace, *session.picked, asked)
            self.services.desk.load(chosen.first, chosen.second)
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
        yield from self._follow(session)

    def _follow(self, session: Session) -> Iterator[Shown]:
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
            session.picked, session.editing = (base, adapter), True
        return self.paint(session)

    # Asking

    def ask(self, session: Session, text: str, domain: str, prompt_id: str | None, *settings: Any) -> Iterator[Shown]:
        """A first question, the next one, or the last one in other words."""
        with self.telling():
            system, sampling = tab_talk.read_settings(self.words, *settings)
            prompt = tab_talk.find_prompt(self._listed(domain), prompt_id)
            opening = tuple(dict(m) for m in prompt.messages[:-1]) if prompt else ()
            question = Question(text or "", domain, opening, prompt)
            session.ask(self.services.desk.pair, question, system, sampling, self.services.app_version)
            yield from self._answer(session, sampling)
        yield self._answered(session)

    def again(self, session: Session, *settings: Any) -> Iterator[Shown]:
        """Both answers once more, with the next seed: the same one would give the same answers."""
        with self.telling():
            system, sampling = tab_talk.read_settings(self.words, *settings)
            sampling = Sampling(**{**vars(sampling), "seed": sampling.seed + 1})
            session.again(self.services.desk.pair, system, sampling, self.services.app_version)
            yield {self.talk.seed: sampling.seed}
            yield from self._answer(session, sampling)
        yield self._answered(session)

    def _answer(self, session: Session, sampling: Sampling) -> Iterator[Shown]:
        last = 0.0
        answers = session.run(self.services.desk, sampling)
        try:
            next(answers)
            yield self.paint_talk(session) | tab_vote.paint_blank(self.vote, self.words)
            for ended in answers:
                if ended or time.monotonic() - last >= FRAME:
                    last = time.monotonic()
                    yield tab_talk.paint_panes(self.talk, session, self.words)
        finally:
            answers.close()

    def _answered(self, session: Session) -> Shown:
        shown = self.paint_talk(session)
        if session.stage == "answered":
            shown[self.talk.text]["value"] = ""
        return shown

    def stop(self, session: Session) -> None:
        session.stop(self.services.desk)

    # Beginning anew

    def _begin(self, session: Session, after: str | None = None) -> Shown:
        prompt = tab_talk.next_prompt(self._listed(session.domain), after, session.rated)
        if prompt is not None and prompt.id in session.rated:
            gr.Info(self.words("compare.all_rated"), title=self.words("app.name"))
        return self._put(session, prompt)

    def _listed(self, domain: str) -> tuple[Prompt, ...]:
        return listed(self.services.workspace, domain)

    def relist(self, session: Session, prompt_id: str | None) -> Shown:
        """The pickers after a set was uploaded; an answer that stands there stays."""
        if session.stage != "ready":
            return self.paint(session)
        prompt = tab_talk.find_prompt(self._listed(session.domain), prompt_id)
        return self._begin(session) if prompt is None else self._put(session, prompt)

    def _put(self, session: Session, prompt: Any) -> Shown:
        session.clear()
        shown = self.paint_talk(session) | tab_vote.paint_blank(self.vote, self.words)
        put = tab_talk.paint_prompt(
            self.talk, session.domain, self._listed(session.domain), prompt, session.rated, self.words
        )
        return {key: _merged(shown.get(key), value) for key, value in put.items()} | {
            key: value for key, value in shown.items() if key not in put
        }

    def mode(self, session: Session, mode: str, prompt_id: str | None) -> Shown:
        """Blind or open; a comparison begins anew, for its names have been seen or are about to be."""
        if session.ticket is not None:
            return self.paint(session)
        session.blind = mode != "open"
        return self.paint(session) | self._put(session, tab_talk.find_prompt(self._listed(session.domain), prompt_id))

    def domain(self, session: Session, domain: str) -> Shown:
        session.domain = domain
        return self._begin(session)

    def prompt(self, session: Session, prompt_id: str | None) -> Shown:
        return self._put(session, tab_talk.find_prompt(self._listed(session.domain), prompt_id))

    def following(self, session: Session, prompt_id: str | None) -> Shown:
        return self._begin(session, prompt_id)

    def clear(self, session: Session, prompt_id: str | None) -> Shown:
        return self._put(session, tab_talk.find_prompt(self._listed(session.domain), prompt_id))

    # Voting

    def chosen(self, session: Session) -> Shown:
        if not session.can_vote or session.talk is None:
            return {self.vote.details: gr.update(visible=False)}
        return tab_vote.paint_marks(self.vote, session.talk.question.domain, self.words)

    def confirm(
        self, session: Session, choice: str | None, comment: str | None, layout: str, *marks: int | None
    ) -> Shown:
        """Store the vote and reveal; once, however often it is pressed."""
        with self.telling():
            domain = session.talk.question.domain if session.talk else ""
            read = tab_vote.read_marks(self.vote, domain, marks)
            known = layout if layout in ("columns", "stacked") else "columns"
            session.vote(choice, read, comment or "", self.services.ratings, known)
        return self.paint_talk(session)

    def undo(self, session: Session) -> Shown:
        with self.telling():
            session.undo(self.services.ratings)
        return self.paint_talk(session)


def _merged(first: Any, second: Any) -> Any:
    """Two updates of one component as one."""
    return first | second if isinstance(first, dict) and isinstance(second, dict) else second
