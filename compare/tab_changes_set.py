"""Where tuning made it worse, over a study's prompts: folded under the study, measured when asked for.

Covers: its components, what they show, its events; the owner alone. Does not cover: the figures (changes_measure.py),
the HTML (views_changes_set.py), the rest of the study's page (tab_study.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import gradio as gr

from assets.words import Words
from compare import changes_set, views_changes
from compare import views_changes_set as view
from compare.changes_set import Measured, Sides
from compare.services import CompareServices
from compare.study import Study
from compare.tab_study_one import HOME, NEW, Room

TICK = 1.0
ORDERS = (("reference", "changes.set.by_reference"), ("change", "changes.set.by_change"))
Shown = dict[Any, Any]
_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": 8}


@dataclass(frozen=True)
class SetPanel:
    """Components."""

    fold: gr.Accordion
    models: gr.Dropdown
    progress: gr.HTML
    start: gr.Button
    stop: gr.Button
    order: gr.Radio
    rows: gr.HTML
    pick: gr.Dropdown
    detail: gr.HTML
    timer: gr.Timer

    @property
    def outputs(self) -> list[Any]:
        return list(vars(self).values())


def build(words: Words) -> SetPanel:
    title = words("changes.set")
    with gr.Accordion(title, open=False, visible=False, elem_classes="n-fold", elem_id="n-changes-set") as fold:
        gr.HTML(f'<p class="n-sub">{words("changes.set.sub")}</p>')
        models = gr.Dropdown([], label=words("changes.set.models"), visible=False, elem_id="n-changes-models")
        progress = gr.HTML()
        with gr.Row(elem_classes="n-actions"):
            start = gr.Button(words("changes.set.start"), variant="secondary", elem_id="n-changes-start")
            stop = gr.Button(words("compare.stop"), variant="stop", visible=False, elem_id="n-changes-stop")
        order = gr.Radio(
            [(words(key), name) for name, key in ORDERS],
            value=ORDERS[0][0],
            label=words("changes.set.order"),
            show_label=False,
            container=False,
            visible=False,
            elem_classes="n-pills",
            elem_id="n-changes-order",
        )
        rows = gr.HTML(elem_id="n-changes-rows")
        pick = gr.Dropdown([], label=words("changes.set.pick"), visible=False, elem_id="n-changes-pick")
        detail = gr.HTML(elem_id="n-changes-detail")
    timer = gr.Timer(TICK, active=False)
    return SetPanel(fold, models, progress, start, stop, order, rows, pick, detail, timer)


@dataclass(frozen=True)
class SetPage:
    """The panel with the services behind it. ``telling`` says what went wrong inside, ``only_owner`` refuses others."""

    words: Words
    services: CompareServices
    panel: SetPanel
    telling: Callable[[], AbstractContextManager[Any]]
    only_owner: Callable[[gr.Request], None]

    def wire(self, state: gr.State, head: gr.HTML) -> None:
        """``head`` changes with the study that is looked at."""
        panel, seen = self.panel, [state, self.panel.models, self.panel.order]
        head.change(self.arrive, [state], panel.outputs, **_QUIET)
        panel.fold.expand(self.look, seen, panel.outputs, **_QUIET)
        panel.timer.tick(self.look, seen, panel.outputs, **_QUIET)
        panel.start.click(self.start, seen, panel.outputs, **_QUIET)
        panel.stop.click(self.stop, seen, panel.outputs, **_QUIET)
        for chooser in (panel.models, panel.order):
            chooser.input(self.turn, seen, panel.outputs, **_QUIET)
        panel.pick.input(self.show, [state, panel.models, panel.pick], panel.detail, **_QUIET)

    def arrive(self, room: Room, request: gr.Request) -> Shown:
        """Another study: folded and empty, to be seen where two of its models can be held against each other."""
        with self.telling():
            self.only_owner(request)
            study = self._study(room)
            pairs = changes_set.sides_of(study) if study is not None else ()
            if study is not None and pairs:
                choices = [(self._names(study, sides), _value(sides)) for sides in pairs]
                models = gr.update(choices=choices, value=choices[0][1], visible=len(pairs) > 1)
                return self._cleared() | {
                    self.panel.fold: gr.update(visible=True, open=False),
                    self.panel.models: models,
                }
        return self._cleared() | {self.panel.fold: gr.update(visible=False, open=False)}

    def look(self, room: Room, models: str | None, order: str, request: gr.Request) -> Shown:
        """How far it is, and what was found up to now."""
        with self.telling():
            self.only_owner(request)
            return self._paint(room, models, order)
        return {self.panel.timer: gr.Timer(active=False)}

    def start(self, room: Room, models: str | None, order: str, request: gr.Request) -> Shown:
        with self.telling():
            self.only_owner(request)
            if (at := self._at(room, models)) is not None:
                self.services.measurer.start(at[0].id, at[1])
        return self.look(room, models, order, request)

    def stop(self, room: Room, models: str | None, order: str, request: gr.Request) -> Shown:
        with self.telling():
            self.only_owner(request)
            if (at := self._at(room, models)) is not None:
                self.services.measurer.stop(at[0].id)
        return self.look(room, models, order, request)

    def turn(self, room: Room, models: str | None, order: str, request: gr.Request) -> Shown:
        """Another pair of models or another order: the list anew, no prompt chosen."""
        shown = self.look(room, models, order, request)
        return shown | {self.panel.pick: shown.get(self.panel.pick, {}) | {"value": None}, self.panel.detail: ""}

    def show(self, room: Room, models: str | None, prompt_id: str | None, request: gr.Request) -> str:
        """One prompt: its question, both answers, the tuned one as a heat map."""
        with self.telling():
            self.only_owner(request)
            at = self._at(room, models)
            measured = self._found(*at).get(prompt_id or "") if at is not None else None
            if at is not None and measured is not None:
                return self._detail(at[0], measured)
        return ""

    def _paint(self, room: Room, models: str | None, order: str) -> Shown:
        at = self._at(room, models)
        if at is None:
            return self._cleared()
        study, sides = at
        panel, words = self.panel, self.words
        found, work = self._found(study, sides), self.services.measurer.work(study.id, sides)
        total = len(changes_set.ready(study, self.services.studies.items(study.id).read(), sides))
        running = work is not None and work.running
        known = "change" if order == "change" else "reference"
        ordered = (changes_set.by_reference if known == "reference" else changes_set.by_change)(found.values())
        label = words("changes.set.go_on" if found else "changes.set.start")
        choices = list(self._choices(study, ordered))
        return {
            panel.progress: view.progress(work, len(found), total, words),
            panel.start: gr.update(visible=not running and len(found) < total, value=label),
            panel.stop: gr.update(visible=running, interactive=running and not (work and work.stopping)),
            panel.order: gr.update(visible=bool(found)),
            panel.rows: view.listed(study, ordered, list(found.values()), known, words),
            panel.pick: gr.update(choices=choices, visible=bool(choices)),
            panel.timer: gr.Timer(active=running),
        }

    def _cleared(self) -> Shown:
        panel = self.panel
        hidden = dict.fromkeys((panel.start, panel.stop, panel.order, panel.models), gr.update(visible=False))
        pick = gr.update(choices=[], value=None, visible=False)
        blank = dict.fromkeys((panel.progress, panel.rows, panel.detail), "")
        return hidden | blank | {panel.pick: pick, panel.timer: gr.Timer(active=False)}

    def _choices(self, study: Study, ordered: Sequence[Measured]) -> Iterator[tuple[str, str]]:
        for number, one in enumerate(ordered[: view.SHOWN], 1):
            yield f"{number}. {view.first_words(study.prompt(one.prompt_id))}", one.prompt_id

    def _detail(self, study: Study, measured: Measured) -> str:
        answers = self.services.studies.items(study.id).read()
        prompt = study.prompt(measured.prompt_id)
        names = [study.arm(key).name for key in (measured.sides.base, measured.sides.tuned)]
        return view.detail(
            prompt,
            changes_set.ask(study, answers, measured.sides, prompt).answers[measured.sides.base],
            names,
            views_changes.changes(measured.changes, self.words),
            self.words,
        )

    def _found(self, study: Study, sides: Sides) -> dict[str, Measured]:
        studies = self.services.studies
        return changes_set.read(studies.folder(study.id), study, studies.items(study.id).read(), sides)

    def _study(self, room: Room) -> Study | None:
        return None if room.at in (HOME, NEW) else self.services.studies.get(room.at)

    def _at(self, room: Room, models: str | None) -> tuple[Study, Sides] | None:
        study = self._study(room)
        pairs = changes_set.sides_of(study) if study is not None else ()
        sides = next((pair for pair in pairs if _value(pair) == models), pairs[0] if pairs else None)
        return (study, sides) if study is not None and sides is not None else None

    def _names(self, study: Study, sides: Sides) -> str:
        base, tuned = (study.arm(key).name for key in (sides.base, sides.tuned))
        return self.words("changes.set.pair", base=base, tuned=tuned)


def _value(sides: Sides) -> str:
    return f"{sides.base}-{sides.tuned}"
