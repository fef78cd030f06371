"""The training tab: runs first, then a new run; it answers a change of the form with a preview and a plan.

Covers: wiring. Does not cover: training; a click on start writes a job's folder and returns.
"""

from __future__ import annotations

import logging
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from assets.errors import UserError
from assets.files import lock
from assets.words import Words
from finetune import data as reading
from finetune import (
    methods,
    preview,
    tab_data,
    tab_elsewhere,
    tab_elsewhere_events,
    tab_enough,
    tab_form,
    tab_hub,
    tab_merge,
    tab_plan,
    tab_preference,
    tab_rates,
    tab_runs,
    tab_share,
    tab_side,
    views,
)
from finetune import start as starting
from finetune.services import TrainServices

HIDDEN = {"show_progress": "hidden", "api_visibility": "private"}
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainTab:
    """What app.py wires further: the run that is shown, the buttons that lead to the comparison with the base, with the
    adapter it went on from, of two runs and of two of a group, and where a preference file goes."""

    picked: Any
    compare: Any
    side: tab_side.Side
    enough: tab_enough.Card
    parent: Any
    preference: tab_preference.PreferencePanel


@dataclass(frozen=True)
class _Plan:
    line: Any
    first: Any
    start: Any
    shrink: Any
    rate: Any
    bar: Any
    yaml: Any
    command: Any
    preview: Any
    request: Any
    here: Any
    enough: tab_enough.Panel
    elsewhere: tab_elsewhere.Panel


def build(words: Words, services: TrainServices) -> TrainTab:
    """The tab's content inside the current container, with its events."""
    if services.jobs.closed:
        gr.HTML(f'<div class="n-note warn">{words(services.jobs.closed)}</div>', elem_id="train-closed")
    enough = tab_enough.card(words)
    runs = tab_runs.build(words)
    with runs.card:
        side = tab_side.build(words, services.jobs)
        tab_share.build(words, services, runs.picked)
        tab_merge.build(words, services, runs.picked)
        tab_elsewhere_events.card(words, services, runs.picked, runs.head)
    with gr.Accordion(words("train.new"), open=True, elem_id="train-new") as fold:
        form = tab_form.build(words)
        parts = _outcome(words, bool(services.jobs.closed))
        with gr.Accordion(words("train.hub"), open=False, elem_classes="n-card"):
            tab_hub.build(words, services.owner)
    tab_runs.wire(runs, services.jobs, words, services.owner, services.elsewhere.runners)
    tab_enough.wire_card(enough, runs, words, services)
    _wire_form(form, parts, runs, fold, words, services)
    _wire_elsewhere(form, parts, runs, fold, words, services)
    preference = tab_preference.wire(form, fold, words, services)
    return TrainTab(runs.picked, runs.compare, side, enough, runs.parent, preference)


def _outcome(words: Words, closed: bool) -> _Plan:
    with gr.Column(elem_classes="n-card"):
        gr.HTML(tab_form.title(4, words("train.preview")))
        shown = gr.HTML(elem_id="train-preview")
    with gr.Column(elem_classes="n-card"):
        where = tab_elsewhere.choice(words, closed)
        with gr.Column(visible=not closed) as here:
            line = gr.HTML(elem_id="train-plan")
            first = gr.HTML()
            shrink = gr.Button(
                words("train.shrink"), variant="primary", size="lg", visible=False, elem_id="train-shrink"
            )
            rate = gr.Button(words("rates.use"), visible=False, elem_id="train-rate-use")
            start = gr.Button(words("train.start.first"), variant="primary", size="lg", elem_id="train-start")
            enough = tab_enough.panel(words)
        elsewhere = tab_elsewhere.build(words, where)
        with gr.Accordion(words("train.memory"), open=False, elem_classes="n-plain"):
            bar = gr.HTML(elem_id="train-bar")
        with gr.Accordion(words("train.yaml"), open=False, elem_classes="n-plain"):
            yaml = gr.Code(
                language="yaml", interactive=False, show_label=False, label=words("train.yaml"), elem_id="train-yaml"
            )
        with gr.Accordion(words("train.command"), open=False, elem_classes="n-plain"):
            gr.HTML(f'<p class="n-sub">{words("train.command.sub")}</p>')
            command = gr.Code(
                language="shell",
                interactive=False,
                show_label=False,
                label=words("train.command"),
                wrap_lines=True,
                elem_id="train-command",
            )
    return _Plan(line, first, start, shrink, rate, bar, yaml, command, shown, gr.State(""), here, enough, elsewhere)


def _wire_form(
    form: tab_form.Form, parts: _Plan, runs: tab_runs.Runs, fold: Any, words: Words, services: TrainServices
) -> None:
    inputs = form.inputs()
    planned = [parts.line, parts.first, parts.start, parts.shrink, parts.rate, parts.bar, parts.yaml, parts.command]

    def replan(**values: Any) -> list[Any]:
        return tab_plan.outputs(values, words, services)

    def look(**values: Any) -> Iterator[str]:
        yield from tab_plan.show_preview(values, words, services)

    changes = [c.change for name, c in inputs.items() if name not in ("upload", "preset", "columns")]
    gr.on(
        [*changes, form.columns.submit],
        replan,
        inputs_kwargs=inputs,
        outputs=planned,
        trigger_mode="always_last",
        **HIDDEN,
    )
    previews = [
        form.model.change,
        form.source.change,
        form.shape.change,
        form.pairs.change,
        form.objective.change,
        form.columns.submit,
        form.system.change,
        form.max_length.change,
    ]
    gr.on(previews, look, inputs_kwargs=inputs, outputs=parts.preview, trigger_mode="always_last", **HIDDEN)
    gr.context.Context.root_block.load(look, inputs_kwargs=inputs, outputs=parts.preview, **HIDDEN)
    tab_rates.wire(form, services, parts.rate)

    def store(path: str | None, request: gr.Request) -> Iterator[list[Any]]:
        yield [gr.skip(), gr.skip(), gr.skip(), views.waiting(words("train.preview.reading"))]
        yield _store(path, request, words, services)

    form.file.upload(
        store,
        form.file,
        [form.upload, form.shape, form.columns, parts.preview],
        **HIDDEN,
    )
    names_of_shrink = ["method", "rank", "alpha", "micro_batch", "accumulation", "max_length", "checkpointing"]
    names_of_shrink += ["placement", "gpus"]
    parts.shrink.click(
        lambda **v: tab_plan.shrunk(v, names_of_shrink, words, services),
        inputs_kwargs=inputs,
        outputs=[getattr(form, n) for n in names_of_shrink],
        **HIDDEN,
    )
    form.hub_id.input(lambda: [None, ""], None, [form.shape, form.columns], **HIDDEN)

    begun = [parts.request, runs.picked, runs.seen, fold, *planned]

    def start(request: gr.Request, token: str, **values: Any) -> list[Any]:
        try:
            return _start(request, token, values, words, services)
        except UserError as error:
            gr.Warning(words.error(error), duration=None)
            return [gr.skip()] * len(begun)

    parts.start.click(
        start,
        inputs_kwargs={"token": parts.request, **inputs},
        outputs=begun,
        concurrency_limit=1,
        trigger_mode="once",
        api_visibility="private",
    ).then(lambda p, s: tab_runs.refresh(services.jobs, p, {}, words), [runs.picked, runs.seen], runs.shown(), **HIDDEN)

    def shown(event: Any) -> None:
        event.then(lambda p: tab_runs.refresh(services.jobs, p, {}, words), runs.picked, runs.shown(), **HIDDEN)

    tab_enough.wire_panel(parts.enough, form, [runs.picked, runs.seen, fold], shown, words, services)
    _on_load(inputs, planned, parts, runs, fold, words, services)


def _wire_elsewhere(
    form: tab_form.Form, parts: _Plan, runs: tab_runs.Runs, fold: Any, words: Words, services: TrainServices
) -> None:
    def show(job_id: str, folds: bool) -> list[Any]:
        if not job_id:
            return [gr.skip()] * (tab_runs.SHOWN + 1)
        fold_update = gr.update(open=False) if folds else gr.skip()
        return [*tab_runs.refresh(services.jobs, job_id, {}, words), fold_update]

    def shown(event: Any, job: Any, folds: bool) -> None:
        event.then(lambda job_id: show(job_id, folds), job, [*runs.shown(), fold], **HIDDEN)

    tab_elsewhere_events.wire(parts.elsewhere, parts.here, form.inputs(), words, services, shown)


def _on_load(
    inputs: dict[str, Any],
    planned: list[Any],
    parts: _Plan,
    runs: tab_runs.Runs,
    fold: Any,
    words: Words,
    services: TrainServices,
) -> None:
    page = gr.context.Context.root_block
    page.load(lambda: gr.update(open=not any(job.active for job in services.jobs.list())), None, fold, **HIDDEN)
    page.load(lambda: secrets.token_hex(8), None, parts.request, **HIDDEN)
    page.load(lambda **v: tab_plan.outputs(v, words, services), inputs_kwargs=inputs, outputs=planned, **HIDDEN)
    page.load(lambda: tab_runs.refresh(services.jobs, None, {}, words), None, runs.shown(), **HIDDEN)


def _store(path: str | None, request: gr.Request, words: Words, services: TrainServices) -> list[Any]:
    """Keep an uploaded file in the workspace and say how it was understood."""
    if path is None:
        return ["", None, "", ""]
    if not services.owner(request):
        raise gr.Error(words("app.owner_only"), print_exception=False)
    try:
        name = keep_upload(Path(path), services)
        mapping = reading.guess(reading.read_file(services.workspace.uploads / name))
    except UserError as error:
        return ["", None, "", views.error(words.error(error))]
    return [name, mapping.shape, tab_data.write_columns(mapping.columns), gr.skip()]


def keep_upload(path: Path, services: TrainServices) -> str:
    """The file's name in the workspace: its own, or with a number when another file has that name already."""
    with lock(services.workspace.uploads / "uploads"):
        for number in range(1000):
            name = path.name if number == 0 else f"{path.stem}-{number}{path.suffix}"
            target = services.workspace.uploads / name
            if not target.exists():
                shutil.copyfile(path, target)
                return name
            if target.stat().st_size == path.stat().st_size and target.read_bytes() == path.read_bytes():
                return name
    raise UserError("data.too_many_uploads", name=path.name)


def _start(request: gr.Request, token: str, values: dict[str, Any], words: Words, services: TrainServices) -> list[Any]:
    """Queue the run and hand out a fresh token, so that a second click in the same moment finds the first run."""
    if not services.owner(request):
        raise UserError("app.owner_only")
    spec = tab_form.to_spec(values)
    reading = services.readings.get(spec)
    preview.check(reading, spec)
    preview.check_heldout(reading, spec)
    starting.check(services.workspace, spec, reading.chat.template_hash)
    folder = services.jobs.new_folder()
    made, _ = tab_plan.make(spec, services, folder)
    methods.check_room(spec, made)
    job = services.jobs.create(spec, made, folder, token)
    gr.Info(words("train.queued" if job.state == "queued" else "train.started"))
    log.info("run %s %s", job.id, asdict(spec.model))
    return [
        secrets.token_hex(8),
        tab_runs.select(services.jobs, job.id, words),
        {},
        gr.update(open=False),
        *tab_plan.outputs(values, words, services),
    ]
