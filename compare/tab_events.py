"""What happens when somebody presses something in the comparison tab.

Covers: asking, beginning anew, voting, and who looks. Does not cover: choosing and loading (tab_loading.py), which
component triggers which handler (tab.py), the logic of a comparison (session.py, desk.py). Handlers change the
visitor's Session in place and return what the page shows of it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from assets.access import for_visitors, for_visitors_limited
from assets.catalog import Prompt
from assets.prompt_sets import listed
from compare import tab_changes, tab_talk, tab_vote
from compare.engine import Sampling
from compare.heldout import ordered
from compare.session import Question, Session
from compare.tab_loading import Loads
from compare.tab_page import Shown

FRAME = 0.05
RATER_LENGTH = 16


@dataclass(frozen=True)
class Page(Loads):
    """One page with every handler."""

    # Who looks, and what they see

    @for_visitors
    def show(self, session: Session, kept: str | None, request: gr.Request) -> Shown:
        """The page is opened or looked at again: everything as it is now."""
        first = not session.rater
        with self.telling():
            self._know(session, kept, request)
        begun = self._begin(session) if first else {}
        return self.paint(session) | begun | {self.browser: session.rater}

    def _know(self, session: Session, kept: str | None, request: gr.Request) -> None:
        session.role = "owner" if self.services.owner(request) else "visitor"
        if not session.rater:
            known = isinstance(kept, str) and kept.isalnum() and len(kept) == RATER_LENGTH
            rater = str(kept) if known else secrets.token_hex(RATER_LENGTH // 2)
            votes = self.services.ratings.read().votes
            session.meet(rater, {v.prompt_id for v in votes if v.rater == rater and v.prompt_id})

    # Asking

    @for_visitors_limited
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

    @for_visitors_limited
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

    @for_visitors
    def stop(self, session: Session) -> None:
        session.stop(self.services.desk)

    # Beginning anew

    def _begin(self, session: Session, after: str | None = None) -> Shown:
        prompt = tab_talk.next_prompt(self._listed(session.domain), after, session.rated)
        if prompt is not None and prompt.id in session.rated:
            gr.Info(self.words("compare.all_rated"), title=self.words("app.name"))
        return self._put(session, prompt)

    def _listed(self, domain: str) -> tuple[Prompt, ...]:
        pair = self.services.desk.pair
        return ordered(listed(self.services.workspace, domain), pair.candidates if pair else ())

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

    @for_visitors
    def mode(self, session: Session, mode: str, prompt_id: str | None) -> Shown:
        """Blind or open; a comparison begins anew, for its names have been seen or are about to be."""
        before = session.blind
        if session.ticket is None:
            session.studying = mode == "study" and session.role == "owner"
            session.blind = before if session.studying else mode != "open"
        shown = self.paint(session) | tab_talk.paint_mode(self.talk, session, self.words)
        if session.blind == before:
            return shown
        return shown | self._put(session, tab_talk.find_prompt(self._listed(session.domain), prompt_id))

    @for_visitors
    def domain(self, session: Session, domain: str) -> Shown:
        session.domain = domain
        return self._begin(session)

    @for_visitors
    def prompt(self, session: Session, prompt_id: str | None) -> Shown:
        return self._put(session, tab_talk.find_prompt(self._listed(session.domain), prompt_id))

    @for_visitors
    def following(self, session: Session, prompt_id: str | None) -> Shown:
        return self._begin(session, prompt_id)

    @for_visitors
    def clear(self, session: Session, prompt_id: str | None) -> Shown:
        return self._put(session, tab_talk.find_prompt(self._listed(session.domain), prompt_id))

    # Voting

    @for_visitors
    def chosen(self, session: Session) -> Shown:
        if not session.can_vote or session.talk is None:
            return {self.vote.details: gr.update(visible=False)}
        return tab_vote.paint_marks(self.vote, session.talk.question.domain, self.words)

    @for_visitors
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

    @for_visitors_limited
    def unfold(self, session: Session) -> Iterator[Shown]:
        """What tuning changed, once the names may be seen."""
        yield from tab_changes.unfold(self.changes, self.services.desk, self.words, self.telling, session)

    @for_visitors
    def undo(self, session: Session) -> Shown:
        with self.telling():
            session.undo(self.services.ratings)
        return self.paint_talk(session)


def _merged(first: Any, second: Any) -> Any:
    """Two updates of one component as one."""
    return first | second if isinstance(first, dict) and isinstance(second, dict) else second
