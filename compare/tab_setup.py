"""The card in which a pair is chosen and loaded, and the one line it becomes.

Covers: its components, what they show for a state, the texts of the pickers. Does not cover: events (tab_events.py).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from assets.catalog import STARTER, find_model
from assets.errors import UserError
from assets.words import Words, size
from compare import tab_remote, views
from compare.adapters import Adapter
from compare.candidates import Choice, Option, is_here, look_up, options, shape_of
from compare.footprint import Fit, fit, footprint
from compare.services import CompareServices
from compare.session import Session


@dataclass(frozen=True)
class SetupPanel:
    """Components. ``train`` leads to the training tab; app.py gives it its event."""

    top: gr.Row
    line: gr.HTML
    tools: gr.Row
    change: gr.Button
    unload: gr.Button
    card: gr.Column
    empty: gr.Column
    train: gr.Button
    base: gr.Dropdown
    other: gr.Dropdown
    foreign: gr.Column
    system: gr.Textbox
    template: gr.Textbox
    key_base: gr.Textbox
    key_other: gr.Textbox
    facts: gr.HTML
    progress: gr.HTML
    load: gr.Button
    cancel: gr.Button
    back: gr.Button

    @property
    def outputs(self) -> list[Any]:
        return [v for v in vars(self).values() if v is not self.train]


def build(words: Words) -> SetupPanel:
    """The pickers are empty until ``paint`` fills them for somebody who may load: the page itself names no model."""
    with gr.Row(elem_classes="n-loaded") as top:
        line = gr.HTML(views.loaded_line(None, False, words))
        with gr.Row(visible=False, elem_classes="n-tools") as tools:
            change = gr.Button(words("compare.change"), size="sm", min_width=72)
            unload = gr.Button(words("compare.unload"), size="sm", min_width=72)
    with gr.Column(visible=False, elem_classes="n-card") as card:
        gr.HTML(f'<h3 class="n-h">{words("compare.setup")}</h3><p class="n-sub">{words("compare.setup.sub")}</p>')
        with gr.Column(visible=False, elem_classes="n-plain") as empty:
            gr.HTML(f'<div class="n-note">{words("compare.nothing_trained")}</div>')
            train = gr.Button(words("compare.go_train"), elem_classes="n-fit")
        with gr.Row(elem_classes="n-pickers"):
            base = _picker(words, "base", "n-left")
            other = _picker(words, "other", "n-right")
        foreign, system, template = _foreign(words)
        key_base, key_other = tab_remote.build(words)
        facts = gr.HTML()
        progress = gr.HTML()
        with gr.Row(elem_classes="n-actions"):
            load = gr.Button(words("compare.load"), variant="primary", elem_id="n-load")
            cancel = gr.Button(words("compare.cancel"), visible=False)
            back = gr.Button(words("compare.back"), visible=False)
    return SetupPanel(
        top, line, tools, change, unload, card, empty, train, base, other, foreign, system, template, key_base,
        key_other, facts, progress, load, cancel, back,
    )  # fmt: skip


def _picker(words: Words, name: str, look: str) -> gr.Dropdown:
    return gr.Dropdown(
        [],
        label=words(f"compare.{name}"),
        info=words(f"compare.{name}.info"),
        allow_custom_value=True,
        elem_id=f"n-{name}",
        elem_classes=look,
    )


def _foreign(words: Words) -> tuple[gr.Column, gr.Textbox, gr.Textbox]:
    with gr.Column(visible=False, elem_classes="n-plain") as foreign:
        gr.HTML(f'<div class="n-note warn">{words("compare.foreign")}</div>')
        system = gr.Textbox(label=words("compare.foreign.system"), lines=2, max_lines=6)
        template = gr.Textbox(
            label=words("compare.foreign.template"), info=words("compare.foreign.template.info"), lines=2, max_lines=8
        )
    return foreign, system, template


def paint(
    panel: SetupPanel, services: CompareServices, words: Words, session: Session, *, owner: bool
) -> dict[Any, Any]:
    """Every component for the state of the desk. The pickers are filled only where the card is open."""
    pair, loading = services.desk.pair, services.desk.loading
    busy = loading is not None and not loading.ended
    open_ = owner and (busy or pair is None or session.editing)
    line = views.loaded_line(pair, not session.blind, words, services.desk.resting, services.idle)
    if pair is None and not owner:
        line = f'<p class="n-sub">{words("compare.none_loaded.visitor")}</p>'
    shown = {
        panel.top: gr.update(visible=not open_),
        panel.line: line,
        panel.tools: gr.update(visible=owner),
        panel.card: gr.update(visible=open_),
        panel.progress: views.loading(loading, words) if open_ else "",
        panel.load: gr.update(visible=not busy),
        panel.cancel: gr.update(visible=busy),
        panel.back: gr.update(visible=open_ and pair is not None and not busy),
    }
    if not open_ or busy:
        return shown
    filled = fill(panel, services, words, *session.picked)
    filled[panel.load] = gr.update(visible=True, **filled.pop(panel.load))
    return shown | filled


def fill(panel: SetupPanel, services: CompareServices, words: Words, first: str, second: str) -> dict[Any, Any]:
    """The pickers' choices, and their values: those given, else what is loaded, else the newest run and its base."""
    listed = options(services.workspace)
    if not first and not second:
        first, second = suggested(services, listed)
    return {
        panel.base: gr.update(choices=_choices(listed, words, "model"), value=first or None),
        panel.other: gr.update(choices=_choices(listed, words, "run"), value=second or None),
        panel.empty: gr.update(visible=not any(o.kind == "run" for o in listed)),
    } | about(panel, services, words, first, second)


def suggested(services: CompareServices, listed: Sequence[Option]) -> tuple[str, str]:
    """What the pickers begin with."""
    pair = services.desk.pair
    if pair is not None:
        first, second = (c.adapter or c.base for c in pair.candidates)
        return first, second
    run = next((o for o in listed if o.kind == "run"), None)
    if run is None:
        return STARTER, ""
    base = look_up(run.value).base_id
    card = find_model(base)
    return (card.id if card else base or STARTER), run.value


def _choices(listed: Sequence[Option], words: Words, first: str) -> list[tuple[str, str]]:
    """Models first for the base; runs first for the other side, where models are "another model"."""
    ordered = sorted(listed, key=lambda option: option.kind != first)
    return [(_option(option, words, first), option.value) for option in ordered]


def _option(option: Option, words: Words, first: str) -> str:
    if option.kind == "run":
        when = time.strftime("%m.%d %H:%M", time.localtime(option.when))
        return words("compare.option.run", name=option.name, when=when)
    return option.name if first == "model" else words("compare.option.model", name=option.name)


def about(panel: SetupPanel, services: CompareServices, words: Words, first: str, second: str) -> dict[Any, Any]:
    """The memory line or what is wrong with the choice, and the fields for an adapter made elsewhere."""
    keys = (panel.key_base, panel.key_other)
    hidden = {panel.foreign: gr.update(visible=False), **tab_remote.hidden(keys)}
    if not first or not second:
        return {panel.facts: "", panel.load: gr.update(interactive=False), **hidden}
    try:
        sides = [look_up(first), look_up(second)]
        near = [side for side in sides if side.remote is None]
        fitting = room(services, sides)
        text = (facts(services, words, near, fitting) if near else "") + tab_remote.facts(sides, words)
    except UserError as error:
        bad = {panel.facts: views.bad(words.error(error)), panel.load: gr.update(interactive=False)}
        return bad | tab_remote.hidden(keys)  # the fields stay: hiding them would lose what is being typed there
    foreign = gr.update(visible=any(side.foreign for side in sides))
    wanted = fitting.wanted if fitting else 1
    taken = services.machine.taken(wanted=wanted) if services.machine is not None and near else None
    label = "compare.load.later" if taken else "compare.load.turns" if fitting and fitting.in_turn else "compare.load"
    text += views.taken_note(taken, words) if taken else ""
    shown = {panel.facts: text, panel.foreign: foreign, **tab_remote.shown(keys, sides, words)}
    return shown | {panel.load: gr.update(interactive=True, value=words(label))}


def room(services: CompareServices, sides: Sequence[Choice]) -> Fit | None:
    """Whether the pair fits into free memory, what is loaded now counted as free; None when a size is unknown."""
    sides = [side for side in sides if side.remote is None]
    bases = [_base(side, sides) for side in sides]
    shapes = {base: shape_of(services.workspace, base) for base in bases}
    if not sides or services.machine is None or any(shape is None for shape in shapes.values()):
        return None
    desk = services.desk
    loaded = desk.pair.loaded if desk.pair is not None and not desk.resting else None
    own = loaded.held if loaded else {}
    held = max(own.values(), default=loaded.memory_bytes if loaded else 0)
    tuned = sum(side.adapter.size for side in sides if side.adapter is not None)
    known = [(shape, bases.count(base)) for base, shape in shapes.items() if shape is not None]
    machine, free = services.machine, services.machine.free() + held
    found = fit(known, tuned, free, machine.room(own))
    later = len(fit(known, tuned, free, machine.room(own, later=True)).cards) if not found.fits else 0
    return replace(found, later=later)


def facts(services: CompareServices, words: Words, sides: Sequence[Choice], fitting: Fit | None) -> str:
    """One line: memory, what will be downloaded, or that both are the same; a warning when memory will not do."""
    bases = [_base(side, sides) for side in sides]
    shapes = {base: shape_of(services.workspace, base) for base in bases}
    adapters = [side.adapter for side in sides if side.adapter is not None]
    notes = [] if len({side.text for side in sides}) == len(sides) else [words("compare.same_twice")]
    parts = [f'<p class="n-memory">{_memory(bases, shapes, adapters, words)}</p>']
    missing = [find_model(base) for base in dict.fromkeys(bases) if not is_here(services.workspace, base)]
    if download := sum(card.parameters * 2 for card in missing if card is not None):
        notes.append(words("compare.download", size=size(download)))
    parts += [f'<p class="n-sub">{note}</p>' for note in notes]
    if fitting is not None and fitting.cards:
        parts.append(f'<p class="n-note">{_over_cards(fitting, words)}</p>')
    if fitting is not None and not fitting.fits and not fitting.later:
        key = "compare.memory.turns" if fitting.in_turn else "compare.memory.short"
        needed = fitting.together if fitting.in_turn else fitting.alone
        parts.append(f'<p class="n-note warn">{words(key, needed=size(needed), free=size(fitting.free))}</p>')
    return "".join(parts)


def _over_cards(fitting: Fit, words: Words) -> str:
    """On which cards it will lie, and how much on each."""
    numbers = ", ".join(str(number) for number, _ in fitting.cards)
    each = ", ".join(words("compare.memory.card", number=n, size=size(held)) for n, held in fitting.cards)
    key = "compare.memory.cards" if fitting.split else "compare.memory.apart"
    return words(key, numbers=numbers, each=each)


def _base(side: Choice, sides: Sequence[Choice]) -> str:
    """The base as it will probably be loaded; ``candidates.choose`` decides with the files at hand."""
    if side.adapter is None:
        return side.text
    card = find_model(side.adapter.base_id)
    plain = next((other.text for other in sides if other.adapter is None), side.adapter.base_id)
    return card.id if card else plain


def _memory(bases: Sequence[str], shapes: dict[str, Any], adapters: Sequence[Adapter], words: Words) -> str:
    if any(shape is None for shape in shapes.values()):
        return words("compare.memory.unknown")
    tuned = sum(adapter.size for adapter in adapters)
    parts = footprint([(shapes[base], bases.count(base)) for base in shapes], tuned)
    key = "compare.memory" if tuned else "compare.memory.plain"
    sizes = {"total": size(parts.total), "weights": size(parts.weights), "cache": size(parts.cache)}
    return words(key, **sizes, **({"adapters": size(tuned)} if tuned else {}))
