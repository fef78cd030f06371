"""The list of runs and the run that is looked at, refreshed while something moves.

Covers: components, one refresh that only sends what changed, stop / resume / delete. Does not cover: starting a run
(tab.py) or what comes after "compare" (app.py). A run never depends on this page: it reads files and leaves requests.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import gradio as gr

from assets.errors import UserError
from assets.words import Words, size
from finetune import elsewhere_view, remedy, verdict_record, views, views_loss
from finetune.jobs import Job, Jobs
from finetune.outcome import made
from finetune.progress import read, tail
from finetune.runner import Runners

INTERVAL = 1.5
SHOWN = 17  # components of Runs.shown
RECENT = 6
HIDDEN = {"show_progress": "hidden", "api_visibility": "private"}


@dataclass(frozen=True)
class Runs:
    """The components other parts need: ``picked`` holds the id of the run that is shown."""

    card: Any
    picked: Any
    older: Any
    head: Any
    loss: Any
    more: Any
    samples: Any
    log: Any
    record: Any
    stop: Any
    resume: Any
    smaller: Any
    compare: Any
    parent: Any
    again: Any
    delete: Any
    timer: Any
    seen: Any
    request: Any

    def shown(self) -> list[Any]:
        """The outputs of ``refresh``, in its order."""
        return [
            self.seen,
            self.card,
            self.picked,
            self.older,
            self.head,
            self.loss,
            self.more,
            self.samples,
            self.log,
            self.record,
            self.stop,
            self.resume,
            self.smaller,
            self.compare,
            self.parent,
            self.again,
            self.delete,
        ]


def build(words: Words) -> Runs:
    """Runs on the left, the chosen one on the right; stacked on a phone."""
    with gr.Column(visible=False, elem_classes="n-card", elem_id="train-runs") as card:
        gr.HTML(f'<h2 class="n-h">{words("train.runs")}</h2>')
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=220):
                picked = gr.Radio(
                    [],
                    show_label=False,
                    label=words("train.runs"),
                    elem_classes="n-pick n-list",
                    container=False,
                    elem_id="train-picked",
                )
                older = gr.Checkbox(
                    False, label="", visible=False, container=False, elem_classes="n-check", elem_id="train-older"
                )
            with gr.Column(scale=3, min_width=320):
                head = gr.HTML(elem_id="train-head")
                with gr.Row(elem_classes="n-actions"):
                    stop = gr.Button(
                        words("train.stop"), variant="primary", visible=False, elem_id="train-stop", min_width=150
                    )
                    compare = gr.Button(
                        words("train.compare"), variant="primary", visible=False, elem_id="train-compare", min_width=150
                    )
                    parent = gr.Button(
                        words("train.compare.parent"), visible=False, elem_id="train-compare-parent", min_width=150
                    )
                    smaller = gr.Button(
                        words("remedy.go"), variant="primary", visible=False, elem_id="train-smaller-go", min_width=150
                    )
                    resume = gr.Button(
                        words("train.resume"), variant="primary", visible=False, elem_id="train-resume", min_width=150
                    )
                    again = gr.Button(words("train.again"), visible=False, elem_id="train-again", min_width=120)
                    delete = gr.Button(words("train.delete"), visible=False, elem_id="train-delete", min_width=120)
                loss = gr.HTML(elem_id="train-loss")
                gr.HTML(f'<h3 class="n-h" style="margin-top:8px">{words("train.samples")}</h3>')
                samples = gr.HTML(elem_id="train-samples")
                with gr.Accordion(words("train.chart.more"), open=False, elem_classes="n-plain"):
                    more = gr.HTML()
                with gr.Accordion(words("train.log"), open=False, elem_classes="n-plain"):
                    log = gr.HTML(elem_id="train-log")
                record = gr.HTML()
    timer = gr.Timer(INTERVAL)
    return Runs(
        card,
        picked,
        older,
        head,
        loss,
        more,
        samples,
        log,
        record,
        stop,
        resume,
        smaller,
        compare,
        parent,
        again,
        delete,
        timer,
        gr.State({}),
        gr.State(""),
    )


def refresh(jobs: Jobs, picked: str | None, seen: dict[str, str], words: Words, whole: bool = False) -> list[Any]:
    """Values for ``Runs.shown``; parts that look the same as last time are skipped, so that nothing flickers."""
    listed = jobs.list()
    if any(job.state == "queued" for job in listed):  # the comparison may have freed its device, and it starts no job
        jobs.start_next()
    ids = [job.id for job in listed]
    asked = picked
    if picked not in ids:
        picked = next((job.id for job in listed if job.active), ids[0] if ids else None)
    look = _digest((whole, _look(jobs, listed, picked)))
    if seen.get("look") == look:  # most ticks: nothing on disk has moved, so nothing is read or drawn
        return [gr.skip()] * SHOWN
    job = next((j for j in listed if j.id == picked), None)
    texts = _texts(jobs, job, words) if job else dict.fromkeys(("head", "loss", "more", "samples", "log", "record"), "")
    shown = listed if whole else recent(listed, picked)
    choices = _choices(shown, words)
    older = {"visible": len(listed) > RECENT, "label": words("train.runs.older", count=len(listed))}
    values: dict[str, Any] = {
        "card": bool(ids),
        "picked": [choices, picked],
        "older": older,
        **texts,
        "buttons": _buttons(jobs, job),
    }
    marks = {key: _digest(value) for key, value in values.items()}
    changed = {key for key in values if seen.get(key) != marks[key]}
    out: list[Any] = [{**marks, "look": look}]
    out.append(gr.update(visible=bool(ids)) if "card" in changed else gr.skip())
    # A tick that began before another run was chosen must not choose the old one again when it ends.
    value = {"value": picked} if not seen or picked != asked else {}
    out.append(gr.update(choices=choices, **value) if "picked" in changed else gr.skip())
    out.append(gr.update(**older) if "older" in changed else gr.skip())
    out += [values[key] if key in changed else gr.skip() for key in texts]
    buttons = values["buttons"]
    out += [gr.update(**b) if "buttons" in changed else gr.skip() for b in buttons]
    return out


def recent(listed: list[Job], picked: str | None) -> list[Job]:
    """Runs that go on, the one that is looked at, and the newest: RECENT of them, or all that go on if these are more."""
    first = sorted(listed, key=lambda job: (not job.active, job.id != picked))
    keep = {job.id for job in first[: max(RECENT, sum(job.active for job in listed))]}
    return sorted((job for job in listed if job.id in keep), key=lambda job: not job.active)


def select(jobs: Jobs, job_id: str, words: Words) -> Any:
    """An update of ``picked`` that shows a run the list may not have yet: a value without its choice is refused."""
    return gr.update(choices=_choices(recent(jobs.list(), job_id), words), value=job_id)


def _choices(listed: list[Job], words: Words) -> list[tuple[str, str]]:
    return [(views.label(job, words), job.id) for job in listed]


def _digest(value: Any) -> str:
    return blake2b(repr(value).encode(), digest_size=8).hexdigest()


def _look(jobs: Jobs, listed: list[Job], picked: str | None) -> str:
    """What a refresh depends on, without reading the files: states, and size and time of the shown run's files."""
    files: list[tuple[str, int, int]] = []
    if picked is not None:
        for name in ("metrics.jsonl", "samples.jsonl", "train.log", "stop", "run.json", "remote.json", "job.log"):
            path = jobs.folder(picked) / name
            if path.exists():
                found = path.stat()
                files.append((name, found.st_size, found.st_mtime_ns))
    return _digest((picked, [(job.id, job.name, job.state, job.attempt, job.error) for job in listed], files))


def _texts(jobs: Jobs, job: Job, words: Words) -> dict[str, str]:
    folder = jobs.folder(job.id)
    progress = read(folder)
    return {
        "head": views.head(job, progress, jobs.stopping(job.id), words)
        + elsewhere_view.place(job, folder, words)
        + verdict_record.show(folder, words),
        "loss": views_loss.show(progress, words),
        "more": views.more_charts(progress, words),
        "samples": views.samples(progress, words),
        "log": views.log(tail(folder / "train.log") or tail(folder / "job.log"), words),
        "record": f'<p class="n-sub">{words("train.record", folder=f"jobs/{job.id}", size=size(_disk(folder)))}</p>',
    }


def _disk(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def _buttons(jobs: Jobs, job: Job | None) -> list[dict[str, Any]]:
    """stop, resume, resume smaller, compare, compare with the parent, again, delete: only what makes sense now."""
    if job is None:
        return [{"visible": False}] * 7
    adapter = made(jobs.folder(job.id)) is not None
    ended = not job.active
    smaller = ended and job.memory is not None and job.memory["remedy"] is not None
    return [
        {"visible": job.active, "interactive": not jobs.stopping(job.id)},
        {"visible": job.state in ("stopped", "failed"), "variant": "secondary" if smaller else "primary"},
        {"visible": smaller},
        {"visible": ended and adapter, "variant": "primary" if job.state == "finished" else "secondary"},
        {"visible": ended and adapter and bool(job.facts.get("start"))},
        {"visible": ended},
        {"visible": ended},
    ]


def wire(runs: Runs, jobs: Jobs, words: Words, owner: Any, runners: Runners) -> None:
    """Refreshing and the buttons of one run. Every handler checks who asks."""

    def show(picked: str | None, seen: dict[str, str], whole: bool) -> list[Any]:
        return refresh(jobs, picked, seen, words, whole)

    def act(action: Any) -> Any:
        def handler(picked: str, seen: dict[str, str], whole: bool, request: gr.Request) -> list[Any]:
            if not owner(request):
                raise gr.Error(words("app.owner_only"), print_exception=False)
            try:
                action(picked)
            except UserError as error:
                gr.Warning(words.error(error))
            return refresh(jobs, picked, {}, words, whole)

        return handler

    def again(picked: str, seen: dict[str, str], whole: bool, token: str, request: gr.Request) -> list[Any]:
        """A fresh token goes out with the new run, so that two clicks in the same moment make one."""
        if not owner(request):
            raise gr.Error(words("app.owner_only"), print_exception=False)
        try:
            job_id = runners.again(picked, token).id
        except UserError as error:
            gr.Warning(words.error(error))
            job_id = picked
        return [secrets.token_hex(8), *refresh(jobs, job_id, {}, words, whole)]

    inputs, outputs = [runs.picked, runs.seen, runs.older], runs.shown()
    runs.timer.tick(show, inputs, outputs, concurrency_limit=8, **HIDDEN)
    runs.older.input(show, inputs, outputs, **HIDDEN)
    runs.picked.input(show, inputs, outputs, **HIDDEN)
    runs.stop.click(act(runners.stop), inputs, outputs, **HIDDEN)
    runs.resume.click(act(runners.resume), inputs, outputs, **HIDDEN)
    runs.smaller.click(act(lambda picked: remedy.go_on(jobs, picked)), inputs, outputs, trigger_mode="once", **HIDDEN)
    gr.context.Context.root_block.load(lambda: secrets.token_hex(8), None, runs.request, **HIDDEN)
    runs.again.click(again, [*inputs, runs.request], [runs.request, *outputs], trigger_mode="once", **HIDDEN)
    runs.delete.click(act(jobs.delete), inputs, outputs, js=_confirm(words("train.delete.sure")), **HIDDEN)


def _confirm(question: str) -> str:
    """Asks in the browser; a refusal sends an unknown run, which changes nothing."""
    return f"(picked, ...rest) => [confirm({question + '?'!r}) ? picked : '', ...rest]"
