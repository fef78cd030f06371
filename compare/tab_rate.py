"""The rater's page: one link, one list, nothing of the tabs.

Covers: the one event that every button, key and reload goes through, which screen it leads to. Does not cover: how a
screen looks (rate_view.py), what is served and kept (study_serve.py), keys and what was on screen (rate.js).

Nothing is remembered here: an act carries the link's code and the token of the item it is about, so that a second
click, a reload, another device or a restarted app all meet the same study on disk.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from assets.access import for_raters
from assets.errors import UserError
from assets.words import Words
from compare import rate_view as view
from compare.study_serve import StudyService
from compare.study_store import Studies
from compare.study_view import Seat, Served
from compare.views import sentence

log = logging.getLogger(__name__)
RATERS = 16  # events at once: file work in gradio's thread pool (40 threads), the rest waits its turn
_EVENT = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": RATERS}
_TAKE = "() => [window.naranhiRate.take()]"
_DONE = "() => window.naranhiRate.done()"
_MESSAGES = ("closed", "not_open", "withdrawn")
# The study has moved on without this page: it is shown where it stands, not why the click came too late.
_MOVED = ("study.closed", "study.not_open", "study.withdrawn", "study.list_done", "study.consent_first")


@dataclass(frozen=True)
class RatePage:
    """The page's handlers. ``service`` is asked by code each time."""

    service: StudyService
    studies: Studies

    @for_raters
    def act(self, text: str, request: gr.Request) -> tuple[Any, str]:
        """(screen, note). Whatever a rater does; a note leaves the screen, and the choice on it, as they are."""
        asked = view.read_act(text)
        words = Words(_language(request))
        try:
            seat = self.service.enter(_text(asked, "c"))
            words = Words(seat.language)
            try:
                return self._do(seat, _text(asked, "do"), asked, words), ""
            except UserError as error:
                if error.key not in _MOVED:
                    raise
                return self._screen(seat, words), ""
        except UserError as error:
            return self._told(error, words)
        except Exception as error:
            log.exception("the rater's page failed")
            return gr.skip(), view.note(sentence(error, words))

    def _told(self, error: UserError, words: Words) -> tuple[Any, str]:
        if error.key in ("study.link_unknown", "study.link_revoked"):
            return view.message(words("rate.no_entry"), words.error(error), words), ""
        return gr.skip(), view.note(words.error(error))

    def _do(self, seat: Seat, do: str, asked: Mapping[str, object], words: Words) -> str:
        if do == "vote":
            served = self._vote(seat, asked)
        elif do == "undo":
            served = self.service.undo(seat, _text(asked, "token"))
        else:
            self._other(seat, do)
            served = None
        revealed = self.service.reveal(seat) if do == "reveal" else ()
        return self._item(seat, served, words) if served is not None else self._screen(seat, words, revealed)

    def _vote(self, seat: Seat, asked: Mapping[str, object]) -> Served | None:
        layout = _text(asked, "layout")
        seconds = asked.get("seconds")
        return self.service.vote(
            seat,
            _text(asked, "token"),
            _text(asked, "choice"),
            _marks(asked.get("marks")),
            _text(asked, "comment").strip(),
            layout if layout in ("columns", "stacked") else "columns",
            float(seconds) if isinstance(seconds, int | float) and 0 <= seconds < 1e6 else None,
        )

    def _other(self, seat: Seat, do: str) -> None:
        if do == "consent":
            self.service.consent(seat)
        elif do == "withdraw":
            self.service.withdraw(seat)

    def _screen(self, seat: Seat, words: Words, revealed: Any = ()) -> str:
        """Where this rater stands now."""
        shown = self.service.welcome(seat)
        if shown.stage == "consent":
            return view.welcome(shown, words)
        if shown.stage == "done":
            return view.done(self.service.finished(seat), words, revealed)
        if shown.stage in _MESSAGES:
            return view.message(words(f"rate.{shown.stage}"), words(f"rate.{shown.stage}.sub"), words)
        served = self.service.next_item(seat)
        if served is None:
            return view.done(self.service.finished(seat), words)
        return self._item(seat, served, words)

    def _item(self, seat: Seat, served: Served, words: Words) -> str:
        return view.item(served, words, self.studies.get(seat.study_id).rubric)


def build(service: StudyService, studies: Studies) -> RatePage:
    """The page's few components in the Blocks or route that is open."""
    page = RatePage(service, studies)
    gr.Navbar(visible=False)
    screen = gr.HTML(elem_id="n-rate-screen")
    note = gr.HTML(elem_id="n-rate-note")
    act = gr.Textbox(visible=False)
    go = gr.Button(visible="hidden", elem_id="n-rate-go")
    root = gr.context.Context.root_block
    opened = root.load(page.act, act, [screen, note], js=_TAKE, queue=True, api_name="rate_open", **_EVENT)
    acted = go.click(page.act, act, [screen, note], js=_TAKE, api_name="rate_act", **_EVENT)
    for event in (opened, acted):
        event.then(None, None, None, js=_DONE, api_visibility="private")
    return page


def _text(asked: Mapping[str, object], key: str) -> str:
    value = asked.get(key, "")
    return value if isinstance(value, str) else ""


def _marks(value: object) -> dict[str, dict[str, int]]:
    """Whole numbers per side and question; what is no mark is left out, what is off its scale the service refuses."""
    sides = value if isinstance(value, dict) else {}
    return {
        place: {str(key): mark for key, mark in marks.items() if type(mark) is int}
        for place in view.PLACES
        if isinstance(marks := sides.get(place), dict) and marks
    }


def _language(request: Any) -> str:
    """Of a browser, for a link that belongs to no study."""
    accepted = str(getattr(request, "headers", {}).get("accept-language", "")) if request is not None else ""
    return "en" if accepted and not accepted.lower().startswith("ko") else "ko"
