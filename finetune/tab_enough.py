"""Is LoRA enough: the offer below the plan, and the table of a group of runs above the runs.

Covers: components and events. Does not cover: what is run (enough.py), what came of it (enough_result.py), the texts
(views_enough.py) or the blind comparison that the table's button leads to (app.py).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import gradio as gr

from assets.errors import UserError
from assets.words import Words
from finetune import enough, groups, tab_form, tab_runs, views, views_enough
from finetune.enough_result import Row, pair, rows
from finetune.services import TrainServices

HIDDEN: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
FILES = ("metrics.jsonl", "run.json", "job.json")
INTERVAL = 3.0  # seconds between two looks at the table of a group
Spans = dict[str, Any]
"""Role -> seconds, least and most, of the runs on offer."""


@dataclass(frozen=True)
class Panel:
    """``open`` tells whether the fold is, ``spans`` what was offered last, ``request`` names the next click."""

    fold: Any
    told: Any
    roles: Any
    total: Any
    go: Any
    open: Any
    spans: Any
    request: Any

    def offered(self) -> list[Any]:
        return [self.told, self.roles, self.total, self.go, self.spans]


@dataclass(frozen=True)
class Card:
    """``chosen`` holds the ids of the two runs that ``compare`` puts side by side."""

    shown: Any
    told: Any
    chosen: Any
    compare: Any
    seen: Any

    def outputs(self) -> list[Any]:
        return [self.seen, self.shown, self.told, self.chosen, self.compare]


def panel(words: Words) -> Panel:
    """The fold below the button that starts a run."""
    with gr.Accordion(words("enough.title"), open=False, elem_classes="n-plain", elem_id="train-enough") as fold:
        gr.HTML(f'<p class="n-sub">{words("enough.sub")}</p>')
        roles = gr.CheckboxGroup(
            [], show_label=False, container=False, elem_classes="n-pick n-ticks", elem_id="train-enough-roles"
        )
        told = gr.HTML(elem_id="train-enough-told")
        total = gr.HTML(elem_id="train-enough-total")
        go = gr.Button(words("enough.go"), interactive=False, elem_id="train-enough-go")
    return Panel(fold, told, roles, total, go, gr.State(False), gr.State({}), gr.State(""))


def card(words: Words) -> Card:
    """The table, above the runs; hidden for runs that belong to no group."""
    with gr.Column(visible=False, elem_classes="n-card", elem_id="train-enough-card") as shown:
        told = gr.HTML(elem_id="train-enough-result")
        chosen = gr.CheckboxGroup(
            [],
            label=words("enough.pick"),
            show_label=False,
            container=False,
            visible=False,
            elem_classes="n-pick n-ticks",
            elem_id="train-enough-pair",
        )
        compare = gr.Button(words("side.compare"), variant="primary", visible=False, elem_id="train-enough-compare")
    return Card(shown, told, chosen, compare, gr.State(""))


def wire_card(made: Card, runs: tab_runs.Runs, words: Words, services: TrainServices) -> None:
    def show(picked: str | None, chosen: list[str] | None, seen: str) -> list[Any]:
        return refresh(picked, chosen or [], seen, words, services)

    def turn(picked: str | None, chosen: list[str] | None, seen: str) -> list[Any]:
        return [*show(picked, chosen, seen), gr.Timer(active=_in_group(picked, services))]

    inputs = [runs.picked, made.chosen, made.seen]
    timer = gr.Timer(INTERVAL, active=False)  # runs of their own, and most are, have no table to look at again
    timer.tick(show, inputs, made.outputs(), concurrency_limit=8, **HIDDEN)
    runs.picked.change(turn, inputs, [*made.outputs(), timer], **HIDDEN)
    made.chosen.input(lambda chosen: gr.update(interactive=len(chosen) == 2), made.chosen, made.compare, **HIDDEN)


def refresh(picked: str | None, chosen: list[str], seen: str, words: Words, services: TrainServices) -> list[Any]:
    """Values for ``Card.outputs``; nothing is read or sent while nothing has moved."""
    try:
        group = _group_of(picked, services)
    except UserError as error:
        told = views.error(words.error(error))
        return [told, gr.update(visible=True), told, gr.update(visible=False), gr.update(visible=False)]
    if group is None:
        hidden = [
            gr.update(visible=False),
            "",
            gr.update(choices=[], value=[], visible=False),
            gr.update(visible=False),
        ]
        return ["", *hidden] if seen else [gr.skip()] * 5
    look = _look(group, services)
    if look == seen:
        return [gr.skip()] * 5
    found = rows(services.jobs, group)
    return [look, gr.update(visible=True), views_enough.result(group, found, words), *_choice(found, chosen, words)]


def _group_of(job_id: str | None, services: TrainServices) -> groups.Group | None:
    """None for a run of its own, or one that was deleted a moment ago. UserError for a record that cannot be read."""
    try:
        group_id = services.jobs.get(job_id).group if job_id else ""
    except UserError:
        return None
    return groups.read(services.workspace, group_id) if group_id else None


def _when_open(at_open: bool) -> Any:
    return secrets.token_hex(8) if at_open else gr.skip()


def _in_group(job_id: str | None, services: TrainServices) -> bool:
    try:
        return _group_of(job_id, services) is not None
    except UserError:
        return True


def _look(group: groups.Group, services: TrainServices) -> str:
    """What the table depends on: the files of its runs, and whether their supervisors live."""
    marks: list[Any] = [group.id]
    for member in group.members:
        folder = services.workspace.jobs / member.job
        stats = [path.stat() for name in FILES if (path := folder / name).exists()]
        marks.append([(s.st_size, s.st_mtime_ns) for s in stats])
        with suppress(UserError):
            marks.append(services.jobs.get(member.job).state)
    return blake2b(repr(marks).encode(), digest_size=8).hexdigest()


def _choice(found: list[Row], chosen: list[str], words: Words) -> list[Any]:
    """Which two to compare, once two have ended with something: the person's choice, or the two of the verdict."""
    ready = [(views_enough.name_of(row.role, words), row.job) for row in found if row.result]
    ids = {job for _, job in ready}
    kept = [job for job in chosen if job in ids]
    value = kept if len(kept) == 2 else pair(found)
    enough_of_them = len(ready) > 1
    return [
        gr.update(choices=ready, value=value if enough_of_them else [], visible=enough_of_them),
        gr.update(
            visible=enough_of_them,
            interactive=len(value) == 2,
            variant="secondary" if any(row.active for row in found) else "primary",
        ),
    ]


def wire_panel(
    made: Panel,
    form: tab_form.Form,
    begun: list[Any],
    after: Callable[[Any], Any],
    words: Words,
    services: TrainServices,
) -> None:
    """``begun`` are the run that is shown, what was seen of it and the form's fold; ``after`` shows the new run."""
    inputs = form.inputs()

    def look(**values: Any) -> list[Any]:
        return [True, *offered(values, words, services)]

    def again(**values: Any) -> list[Any]:
        return offered(values, words, services)

    def go(request: gr.Request, at_roles: list[str], at_token: str, **values: Any) -> list[Any]:
        try:
            return queue(request, at_roles, at_token, values, words, services)
        except UserError as error:
            gr.Warning(words.error(error), duration=None)
            return [gr.skip()] * (1 + len(begun))

    made.fold.expand(look, inputs_kwargs=inputs, outputs=[made.open, *made.offered()], **HIDDEN)
    made.fold.collapse(lambda: False, None, made.open, **HIDDEN)
    changes = [c.change for name, c in inputs.items() if name not in ("upload", "preset", "columns", "name")]
    # A step of its own: an event with the whole form as its input costs the browser, folded or not.
    stale = gr.State("")
    gr.on(changes, _when_open, made.open, stale, trigger_mode="always_last", **HIDDEN)
    stale.change(again, inputs_kwargs=inputs, outputs=made.offered(), trigger_mode="always_last", **HIDDEN)
    made.roles.input(
        lambda roles, spans: [views_enough.total([spans[r] for r in roles], words), _ready(roles)],
        [made.roles, made.spans],
        [made.total, made.go],
        **HIDDEN,
    )
    after(
        made.go.click(
            go,
            inputs_kwargs={"at_roles": made.roles, "at_token": made.request, **inputs},
            outputs=[made.request, *begun],
            concurrency_limit=1,
            trigger_mode="once",
            api_visibility="private",
        )
    )
    gr.context.Context.root_block.load(lambda: secrets.token_hex(8), None, made.request, **HIDDEN)


def offered(values: dict[str, Any], words: Words, services: TrainServices) -> list[Any]:
    """Values for ``Panel.offered``."""
    try:
        found = enough.offer(tab_form.to_spec(values), services, time.time())
    except UserError as error:
        gone = gr.update(choices=[], value=[])
        return [views.error(words.error(error)), gone, "", gr.update(interactive=False), {}]
    spans: Spans = {wish.role: wish.span for wish in found.wishes}
    choices = [(views_enough.option(wish, words), wish.role) for wish in found.wishes]
    ticks = gr.update(choices=choices, value=list(spans))
    return [
        views_enough.told(found, words),
        ticks,
        views_enough.total(list(spans.values()), words),
        _ready(spans),
        spans,
    ]


def _ready(roles: Any) -> Any:
    return gr.update(interactive=len(roles) > 1)


def queue(
    request: gr.Request,
    roles: list[str],
    token: str,
    values: dict[str, Any],
    words: Words,
    services: TrainServices,
) -> list[Any]:
    """A fresh token, the group's first run as the one that is shown, nothing seen of it yet, the form folded."""
    if not services.owner(request):
        raise UserError("app.owner_only")
    found = enough.offer(tab_form.to_spec(values), services, time.time())
    group = enough.queue(found, roles, token, services, words)
    gr.Info(words("enough.queued", count=len(group.members)))
    first = group.members[0].job
    return [secrets.token_hex(8), tab_runs.select(services.jobs, first, words), {}, gr.update(open=False)]
