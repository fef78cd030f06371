"""One study as its owner sees it: its components, and what they show.

Covers: the answers being made, links, progress, votes from elsewhere. Does not cover: events (tab_study.py,
tab_study_events.py), the HTML parts (study_panel.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from assets.words import Words
from compare import study_panel as view
from compare.services import CompareServices
from compare.study import Study
from compare.study_items import report
from compare.study_links import address
from compare.study_make import forecast
from compare.study_raters import Link

HOME, NEW = "home", "new"
Shown = dict[Any, Any]


@dataclass
class Room:
    """Where one visitor looks: HOME, NEW or a study's id; ``links`` are those made while they looked, ``draft`` is the
    study that the form changes, if it is not a new one."""

    at: str = HOME
    links: list[Link] = field(default_factory=list)
    base: str = ""
    told: str = ""
    draft: str = ""

    def go(self, at: str) -> None:
        if at != self.at:
            self.at, self.links, self.told, self.draft = at, [], "", ""


@dataclass(frozen=True)
class OnePanel:
    """Components of one study."""

    area: gr.Column
    head: gr.HTML
    make: gr.Column
    making: gr.HTML
    start: gr.Button
    stop: gr.Button
    open: gr.Button
    again: gr.Button
    remove: gr.Button
    share: gr.Column
    count: gr.Number
    add: gr.Button
    links: gr.HTML
    watch: gr.Column
    progress: gr.HTML
    told: gr.HTML
    foot: gr.Row
    results: gr.Button
    close: gr.Button
    reopen: gr.Button
    edit: gr.Accordion
    title: gr.Textbox
    consent: gr.Textbox
    target: gr.Number
    save: gr.Button
    away: gr.Accordion
    pack: gr.Button
    votes: gr.Button
    merge: gr.UploadButton
    file: gr.DownloadButton

    @property
    def outputs(self) -> list[Any]:
        return list(vars(self).values())


def build(words: Words) -> OnePanel:
    with gr.Column(visible=False, elem_classes="n-plain") as area:
        head = gr.HTML()
        with gr.Column(elem_classes="n-card", visible=False) as make:
            gr.HTML(f'<h4 class="n-h">{words("studies.make")}</h4><p class="n-sub">{words("studies.make.sub")}</p>')
            making = gr.HTML()
            with gr.Row(elem_classes="n-actions"):
                start = gr.Button(words("studies.start"), variant="primary", elem_id="n-study-start")
                stop = gr.Button(words("compare.stop"), variant="stop", visible=False, elem_id="n-study-stop")
                open_ = gr.Button(words("studies.open"), variant="primary", visible=False, elem_id="n-study-open")
                again = gr.Button(words("studies.again"), visible=False, elem_id="n-study-again")
                remove = gr.Button(words("studies.remove"), visible=False, elem_id="n-study-remove")
        with gr.Column(elem_classes="n-card", visible=False) as share:
            gr.HTML(f'<h4 class="n-h">{words("studies.share")}</h4><p class="n-sub">{words("studies.share.sub")}</p>')
            with gr.Row(elem_classes="n-study-share"):
                count = gr.Number(
                    1, minimum=1, maximum=100, precision=0, label=words("studies.how_many"), elem_id="n-study-count"
                )
                add = gr.Button(words("studies.add"), variant="primary", elem_id="n-study-add")
            links = gr.HTML(elem_id="n-study-links")
        with gr.Column(elem_classes="n-card", visible=False) as watch:
            gr.HTML(f'<h4 class="n-h">{words("studies.watch")}</h4>')
            progress = gr.HTML(elem_id="n-study-progress")
        told = gr.HTML(elem_id="n-study-told")
        with gr.Row(elem_classes="n-actions n-study-foot") as foot:
            results = gr.Button(words("studies.results"), elem_id="n-study-results")
            close = gr.Button(words("studies.close"), elem_id="n-study-close")
            reopen = gr.Button(words("studies.reopen"), elem_id="n-study-reopen")
        edit, title, consent, target, save = _texts(words)
        with gr.Accordion(
            words("studies.elsewhere"), open=False, elem_classes="n-fold", elem_id="n-study-away"
        ) as away:
            gr.HTML(f'<p class="n-sub">{words("studies.elsewhere.sub")}</p>')
            with gr.Row(elem_classes="n-actions"):
                pack = gr.Button(words("studies.pack"), elem_id="n-study-pack")
                votes = gr.Button(words("studies.votes_csv"), elem_id="n-study-votes")
                merge = gr.UploadButton(
                    words("studies.merge"), file_types=[".csv"], variant="secondary", elem_id="n-study-merge"
                )
            file = gr.DownloadButton(
                words("studies.download"),
                visible=False,
                variant="primary",
                elem_classes="n-fit",
                elem_id="n-study-file",
            )
    return OnePanel(
        area, head, make, making, start, stop, open_, again, remove, share, count, add, links, watch, progress, told,
        foot, results, close, reopen, edit, title, consent, target, save, away, pack, votes, merge, file,
    )  # fmt: skip


def _texts(words: Words) -> tuple[gr.Accordion, gr.Textbox, gr.Textbox, gr.Number, gr.Button]:
    look = ["n-fold", "n-study-form"]
    with gr.Accordion(words("studies.edit"), open=False, elem_classes=look, elem_id="n-study-edit") as edit:
        title = gr.Textbox(label=words("studies.title"), max_length=200)
        consent = gr.Textbox(label=words("studies.consent"), lines=6, max_lines=20, info=words("studies.edit.info"))
        target = gr.Number(
            label=words("studies.target"), info=words("studies.target.more"), minimum=1, precision=0,
            elem_id="n-study-target",
        )  # fmt: skip
        save = gr.Button(words("studies.save"), elem_classes="n-fit", elem_id="n-study-save")
    return edit, title, consent, target, save


def paint(panel: OnePanel, services: CompareServices, words: Words, study: Study, room: Room) -> Shown:
    """Everything of one study."""
    begun = study.state in ("open", "closed")
    step = _step(services, study)
    return {
        panel.head: view.head(study, step, words),
        panel.make: gr.update(visible=not begun),
        panel.share: gr.update(visible=study.state == "open"),
        panel.add: gr.update(variant="primary" if step == "share" else "secondary"),
        panel.links: view.links(room.links, address(room.base, services.host), words),
        panel.watch: gr.update(visible=begun),
        panel.told: room.told,
        panel.results: gr.update(
            visible=begun and not study.packed, variant="primary" if step == "watch" else "secondary"
        ),
        panel.close: gr.update(visible=study.state == "open"),
        panel.reopen: gr.update(visible=study.state == "closed"),
        panel.title: study.title,
        panel.consent: study.consent,
        panel.target: study.target,
        panel.away: gr.update(visible=begun),
        panel.pack: gr.update(visible=not study.packed),
        panel.merge: gr.update(visible=not study.packed),
        panel.file: gr.update(visible=False),
    } | paint_now(panel, services, words, study)


def _step(services: CompareServices, study: Study) -> str:
    if study.state not in ("open", "closed"):
        return "make"
    invited = study.state == "closed" or services.study_service.raters(study.id).all()
    return "watch" if invited else "share"


def paint_now(panel: OnePanel, services: CompareServices, words: Words, study: Study) -> Shown:
    """What moves by itself: the answers being made, the raters."""
    if study.state in ("open", "closed"):
        progress = services.study_service.progress(study.id)
        revoked = {rater.rater for rater in services.study_service.raters(study.id).all() if rater.revoked_at}
        return {panel.progress: view.progress(progress, revoked, words)}
    items = services.studies.items(study.id).read()
    counted, work = report(study, items), services.maker.work(study.id)
    running = work is not None and work.running
    whole = counted.done == counted.total
    begun = "studies.go_on" if counted.done else "studies.start"
    return {
        panel.making: view.making(work, counted, forecast(study, items), words),
        panel.start: gr.update(visible=not running and not whole, value=words(begun)),
        panel.stop: gr.update(visible=running, interactive=running and not (work and work.stopping)),
        panel.open: gr.update(visible=whole and not running),
        panel.again: gr.update(visible=study.state == "draft" and not running),
        panel.remove: gr.update(visible=not running),
    }
