"""Where to train: here, on Hugging Face Jobs, or on a cluster; the fields for each.

Covers: components. Does not cover: what a click does (tab_elsewhere_events.py) or what is said (elsewhere_view.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from assets.words import Words
from finetune import tab_form

PLACES = ("here", "hf", "cluster")
MINUTES = 120  # where nobody can say how long it will take


@dataclass(frozen=True)
class Hub:
    """``account`` holds the name of the account whose token was given on this page, ``flavors`` what can be rented."""

    group: Any
    token: Any
    check: Any
    who: Any
    flavor: Any
    minutes: Any
    cost: Any
    start: Any
    find: Any
    told: Any
    account: Any
    flavors: Any
    request: Any


@dataclass(frozen=True)
class Cluster:
    """``file`` is the hidden button that downloads what was made."""

    group: Any
    nodes: Any
    gpus: Any
    memory: Any
    hours: Any
    make: Any
    script: Any
    commands: Any
    file: Any
    zip: Any
    folder: Any
    take: Any
    told: Any
    request: Any


@dataclass(frozen=True)
class Panel:
    """The choice, what belongs to this machine, and the two other places."""

    where: Any
    hub: Hub
    cluster: Cluster


def choice(words: Words, closed: bool = False) -> Any:
    """Where to train, above everything that depends on it. ``closed``: not here."""
    offered = PLACES[1:] if closed else PLACES
    gr.HTML(tab_form.title(5, words("elsewhere.where")))
    return gr.Radio(
        [(words("elsewhere.where." + place), place) for place in offered],
        value=offered[0],
        show_label=False,
        label=words("elsewhere.where"),
        elem_classes="n-pick",
        elem_id="train-where",
        container=False,
    )


def build(words: Words, where: Any) -> Panel:
    """The two other places, hidden until one is chosen."""
    return Panel(where, _hub(words, where.value == "hf"), _cluster(words))


def _hub(words: Words, shown: bool) -> Hub:
    with gr.Column(visible=shown, elem_id="train-hf") as group:
        gr.HTML(f'<p class="n-sub">{words("elsewhere.hf.sub")}</p>')
        token = gr.Textbox(
            type="password",
            label=words("elsewhere.token"),
            info=words("elsewhere.token.info"),
            elem_id="train-hf-token",
        )
        with gr.Row(elem_classes="n-actions"):
            check = gr.Button(words("elsewhere.check"), elem_id="train-hf-check")
            find = gr.Button(words("elsewhere.find"), elem_id="train-hf-find")
        who = gr.HTML(elem_id="train-hf-who")
        with gr.Row():
            flavor = gr.Dropdown(
                [],
                label=words("elsewhere.flavor"),
                info=words("elsewhere.flavor.info"),
                min_width=240,
                scale=2,
                elem_id="train-hf-flavor",
            )
            minutes = gr.Number(
                MINUTES,
                label=words("elsewhere.minutes"),
                info=words("elsewhere.minutes.info"),
                precision=0,
                minimum=1,
                min_width=180,
                elem_id="train-hf-minutes",
            )
        cost = gr.HTML(elem_id="train-hf-cost")
        start = gr.Button(
            words("elsewhere.start"), variant="primary", size="lg", interactive=False, elem_id="train-hf-start"
        )
        told = gr.HTML(elem_id="train-hf-told")
    kept = (gr.State(""), gr.State([]), gr.State(""))
    return Hub(group, token, check, who, flavor, minutes, cost, start, find, told, *kept)


def _cluster(words: Words) -> Cluster:
    with gr.Column(visible=False, elem_id="train-cluster") as group:
        gr.HTML(f'<p class="n-sub">{words("elsewhere.cluster.sub")}</p>')
        with gr.Row():
            nodes, gpus, memory, hours = (
                gr.Number(value, label=words("elsewhere." + name), precision=0, minimum=1, min_width=130)
                for name, value in (("nodes", 1), ("gpus", 1), ("memory", 80), ("hours", 24))
            )
        make = gr.Button(words("elsewhere.make"), variant="primary", size="lg", elem_id="train-pack")
        told = gr.HTML(elem_id="train-pack-told")
        file = gr.DownloadButton("", elem_id="train-pack-file", elem_classes="n-away")
        script, commands = _code("script", words), _code("commands", words)
        gr.HTML(f'<h4 class="n-h" style="margin-top:10px">{words("elsewhere.take.title")}</h4>')
        zipped = gr.File(
            label=words("elsewhere.take.zip"),
            file_types=[".zip"],
            type="filepath",
            height=110,
            elem_id="train-take-zip",
        )
        folder = gr.Textbox(label=words("elsewhere.take.folder"), max_lines=1, elem_id="train-take-folder")
        with gr.Row(elem_classes="n-actions"):
            take = gr.Button(words("elsewhere.take"), elem_id="train-take")
    parts = (make, script, commands, file, zipped, folder, take, told)
    return Cluster(group, nodes, gpus, memory, hours, *parts, gr.State(""))


def _code(name: str, words: Words) -> Any:
    with gr.Accordion(words("elsewhere." + name), open=False, elem_classes="n-plain"):
        return gr.Code(
            language="shell",
            interactive=False,
            show_label=False,
            label=words("elsewhere." + name),
            wrap_lines=True,
            elem_id=f"train-pack-{name}",
        )
