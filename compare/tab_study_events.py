"""What happens when the owner presses something in the room for studies.

Covers: every handler, that only the owner may, telling what went wrong. Does not cover: which component triggers which
handler (tab_study.py). Everything shown is read from disk each time; a visitor's Room only knows where they look and the
links made just now, which cannot be read again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from assets.errors import UserError
from assets.words import Words
from compare import study_choice as choice
from compare import study_panel as view
from compare import tab_setup, tab_study_draft, tab_study_one
from compare.candidates import look_up
from compare.desk import Candidate
from compare.services import CompareServices
from compare.study import Study
from compare.tab_study_away import Away
from compare.tab_study_form import FormPanel
from compare.tab_study_one import HOME, NEW, OnePanel, Room, Shown


@dataclass(frozen=True)
class StudyPage(Away):
    """One page's components with the services behind it."""

    words: Words
    services: CompareServices
    state: gr.State
    home: gr.Column
    listed: gr.HTML
    new: gr.Button
    opened: gr.UploadButton
    form: FormPanel
    one: OnePanel
    timer: gr.Timer

    @property
    def outputs(self) -> list[Any]:
        home = [self.home, self.listed, self.new, self.opened, self.timer]
        return [*home, *self.form.outputs, *self.one.outputs]

    @property
    def _nothing(self) -> Shown:
        """Leave the page as it is. (An empty dict is no answer to gradio.)"""
        return {self.form.note: gr.skip()}

    # What is shown

    def show(self, room: Room, request: gr.Request) -> Shown:
        """The room as it is now; for anybody but the owner, one sentence."""
        if not self.services.owner(request):
            note = f'<div class="n-empty">{self.words("studies.owner_only")}</div>'
            hidden = dict.fromkeys((self.new, self.opened), gr.update(visible=False))
            return {self.home: gr.update(visible=True), self.listed: note, self.timer: gr.Timer(active=False)} | hidden
        return self.paint(room)

    def paint(self, room: Room) -> Shown:
        study = self._study(room)
        shown: Shown = {
            self.home: gr.update(visible=room.at == HOME),
            self.form.area: gr.update(visible=room.at == NEW),
            self.one.area: gr.update(visible=study is not None),
            self.timer: gr.Timer(active=study is not None and self._moves(study)),
        }
        if study is not None:
            return shown | tab_study_one.paint(self.one, self.services, self.words, study, room)
        if room.at == HOME:
            studies = self.services.studies
            shown[self.listed] = view.listed(studies.list(), self._counts(), studies.broken(), self.words)
        return shown

    def _counts(self) -> dict[str, int]:
        """Votes of each study that has begun."""
        begun = [study.id for study in self.services.studies.list() if study.state in ("open", "closed")]
        return {name: self.services.study_service.progress(name).votes for name in begun}

    def _study(self, room: Room) -> Study | None:
        """The study looked at; a room whose study is gone goes home."""
        if room.at in (HOME, NEW):
            return None
        try:
            return self.services.studies.get(room.at)
        except UserError as error:
            self.warn(error)
            room.go(HOME)
            return None

    def _moves(self, study: Study) -> bool:
        work = self.services.maker.work(study.id)
        return study.state == "open" or (work is not None and work.running)

    # Going about

    def act(self, room: Room, told: str, base: str, request: gr.Request) -> Shown:
        """A button in an HTML part was pressed."""
        with self.telling():
            self.only_owner(request)
            asked = _asked(told)
            do = asked.get("do", "")
            if do == "home":
                room.go(HOME)
            elif do == "open":
                room.go(self.services.studies.get(asked.get("study", "")).id)
            elif do in ("renew", "revoke") and (study := self._study(room)) is not None:
                room.base = base or room.base
                self._change_link(room, study, do, asked.get("rater", ""))
            return self.paint(room)
        return self._nothing

    def _change_link(self, room: Room, study: Study, do: str, rater: str) -> None:
        raters = self.services.study_service.raters(study.id)
        room.links = [link for link in room.links if link.rater != rater]
        if do == "revoke":
            raters.revoke(rater)
        else:
            room.links = [raters.renew(rater), *room.links]

    def home_again(self, room: Room, request: gr.Request) -> Shown:
        with self.telling():
            self.only_owner(request)
            room.go(room.draft or HOME)
            return self.paint(room)
        return self._nothing

    def tick(self, room: Room, request: gr.Request) -> Shown:
        """While something moves. The whole room is painted once it has stopped."""
        if not self.services.owner(request) or (study := self._study(room)) is None:
            return {self.timer: gr.Timer(active=False)}
        return (
            tab_study_one.paint_now(self.one, self.services, self.words, study)
            if self._moves(study)
            else self.paint(room)
        )

    # A new study

    def begin(self, room: Room, request: gr.Request) -> Shown:
        with self.telling():
            self.only_owner(request)
            room.go(NEW)
            return self.paint(room) | tab_study_draft.fill(self.form, self.services, self.words)
        return self._nothing

    def template(self, room: Room, key: str, request: gr.Request) -> Shown:
        with self.telling():
            self.only_owner(request)
            known = key if key in choice.TEMPLATES else choice.TEMPLATES[0]
            return tab_study_draft.fill(self.form, self.services, self.words, known)
        return self._nothing

    def ask(self, sets: list[str], request: gr.Request) -> Any:
        with self.telling():
            self.only_owner(request)
            return tab_study_draft.ask(self.form, self.services, self.words, sets or [])[self.form.questions]
        return gr.skip()

    def write(self, language: str, request: gr.Request) -> Shown:
        with self.telling():
            self.only_owner(request)
            return tab_study_draft.write(self.form, language)
        return self._nothing

    def foresee(self, values: Mapping[Any, Any], request: gr.Request) -> str:
        """The estimate for the form as it stands."""
        if not self.services.owner(request):
            return ""
        return tab_study_draft.foresee(self.form, values, self.services, self.words)

    def create(self, values: Mapping[Any, Any], request: gr.Request) -> Shown:
        room: Room = values[self.state]
        with self.telling():
            self.only_owner(request)
            names = values[self.form.models] or ()
            candidates = choice.candidates(self.services.workspace, names, self.services.desk.pair)
            draft = tab_study_draft.read(self.form, values, self.services, candidates)
            studies = self.services.studies
            kept = studies.save(replace(draft, id=room.draft)) if room.draft else studies.create(draft)
            room.go(kept.id)
            return self.paint(room)
        return self._nothing

    def again(self, room: Room, request: gr.Request) -> Shown:
        """The form as this draft has it. Saving it replaces the draft."""
        with self.telling():
            self.only_owner(request)
            study = self._study(room)
            if study is not None and study.state == "draft":
                room.go(NEW)
                room.draft = study.id
                return self.paint(room) | tab_study_draft.refill(self.form, self.services, self.words, study)
            return self.paint(room)
        return self._nothing

    def remove(self, room: Room, sure: str, request: gr.Request) -> Shown:
        """Delete a study that was never opened, if the owner is ``sure``."""
        with self.telling():
            self.only_owner(request)
            study = self._study(room)
            if study is not None and sure:
                work = self.services.maker.work(study.id)
                if work is not None and work.running:
                    raise UserError("study.still_making")
                self.services.studies.remove(study.id)
                room.go(HOME)
            return self.paint(room)
        return self._nothing

    # One study

    def start(self, room: Room, request: gr.Request) -> Shown:
        return self._change(room, request, lambda study: self.services.maker.start(study.id, self._together))

    def _together(self, first: Candidate, second: Candidate) -> bool:
        sides = [look_up(candidate.adapter or candidate.base) for candidate in (first, second)]
        fitting = tab_setup.room(self.services, sides)
        return not (fitting and fitting.in_turn)

    def stop(self, room: Room, request: gr.Request) -> Shown:
        return self._change(room, request, lambda study: self.services.maker.stop(study.id))

    def open(self, room: Room, request: gr.Request) -> Shown:
        return self._change(room, request, lambda study: self.services.studies.set_state(study.id, "open"))

    def close(self, room: Room, request: gr.Request) -> Shown:
        return self._change(room, request, lambda study: self.services.studies.set_state(study.id, "closed"))

    def rewrite(self, room: Room, title: str, consent: str, target: float | None, request: gr.Request) -> Shown:
        """What raters read, which may be put better at any time, and how many votes there shall be, never fewer."""

        def written(study: Study) -> None:
            shown, goal = (title or "").strip() or study.title, int(target or study.target)
            self.services.studies.save(replace(study, title=shown, consent=(consent or "").strip(), target=goal))
            room.told = f'<div class="n-note good">{self.words("studies.saved")}</div>'

        return self._change(room, request, written)

    def add(self, room: Room, count: float | None, base: str, request: gr.Request) -> Shown:
        """New raters; their links stand on the page until the owner goes elsewhere."""

        def added(study: Study) -> None:
            room.base = base or room.base
            room.links += self.services.study_service.raters(study.id).add(int(count or 1))

        return self._change(room, request, added)

    def _change(self, room: Room, request: gr.Request, how: Callable[[Study], object]) -> Shown:
        with self.telling():
            self.only_owner(request)
            study = self._study(room)
            if study is not None:
                room.told = ""
                how(study)
            return self.paint(room)
        return self._nothing


def _asked(told: str) -> dict[str, str]:
    try:
        found = json.loads(str(told)[:10_000])
    except ValueError:
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}
