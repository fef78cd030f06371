"""The results tab's components.

Covers: what there is and in which order. Does not cover: what happens (results.py), what they show (results_view.py,
results_detail.py).
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from assets.words import Words
from compare import results_judge
from compare.criteria import DOMAINS
from compare.results_files import FORMATS
from compare.services import CompareServices

# A dot opens its prompt: a link into a closed <details> is not followed by every browser, nor by the page's own router.
_OPEN = """element.addEventListener('click', (event) => {
  const link = event.target.closest('.n-dots a');
  const goal = link && document.getElementById(link.getAttribute('href').slice(1));
  if (!goal) return;
  event.preventDefault();
  for (let fold = goal.closest('details'); fold; fold = fold.parentElement.closest('details')) fold.open = true;
  goal.closest('details').scrollIntoView({ block: 'center' });
});"""


def components(words: Words, services: CompareServices) -> dict[str, Any]:
    """By the names of ResultsTab's fields, in the Blocks that are open."""
    parts: dict[str, Any] = {
        "browser": gr.BrowserState("", storage_key="naranhi-rater", secret="naranhi"),
        "chosen": gr.State({}),
        "peeked": gr.State([]),
    }
    with gr.Column(elem_classes="n-card") as parts["empty"]:
        gr.HTML(f'<div class="n-empty"><b>{words("results.none")}</b><br>{words("results.none.sub")}</div>')
        parts["compare"] = gr.Button(words("results.to_compare"), variant="primary", elem_classes="n-middle")
    with gr.Column(elem_classes="n-results"):
        parts["verdict"] = gr.HTML()
        parts["peek"] = gr.Button(words("results.peek"), visible=False, elem_classes="n-middle")
        with gr.Row(visible=False, elem_classes="n-actions") as parts["actions"]:
            parts["report"] = gr.Button(words("results.report"), variant="primary")
            parts["retrain"] = gr.Button(words("results.retrain"))
        parts["told"] = gr.HTML()
        with gr.Row(visible=False, elem_classes="n-choose") as parts["choose"]:
            parts["domain"] = _domains(words)
            parts["study"] = _dropdown("n-results-study", words("results.which_study"))
            parts["pair"] = _dropdown("n-results-pair", words("results.which_pair"))
            parts["blind"] = gr.Checkbox(
                True, label=words("results.blind_only"), container=False, elem_classes="n-check"
            )
        with gr.Column(visible=False, elem_classes="n-results") as parts["full"]:
            parts |= _cards(words)
    parts["refused"] = gr.HTML()
    with gr.Accordion(words("results.files"), open=False, visible=False, elem_classes="n-card") as parts["files"]:
        gr.HTML(f'<p class="n-sub">{words("results.files.sub")}</p>')
        with gr.Row(elem_classes="n-actions"):
            parts["makers"] = tuple(gr.Button(words(f"results.file.{kind}")) for kind in FORMATS)
    parts["judge"] = results_judge.build(words, services)
    parts["file"] = gr.DownloadButton("", elem_id="n-file", elem_classes="n-away")
    return parts


def _cards(words: Words) -> dict[str, gr.HTML]:
    cards = {}
    for name in ("rates", "pictures", "examples", "folded"):
        with gr.Column(elem_classes="n-card"):
            cards[name] = gr.HTML(js_on_load=_OPEN if name == "pictures" else None)
    with gr.Column(elem_classes="n-card"):
        gr.HTML(f'<h3 class="n-h">{words("results.latest")}</h3>')
        cards["votes"] = gr.HTML()
    return cards


def _dropdown(name: str, label: str) -> gr.Dropdown:
    return gr.Dropdown(
        [], label=label, show_label=False, container=False, visible=False, elem_id=name, elem_classes="n-results-pick"
    )


def _domains(words: Words) -> gr.Radio:
    choices = [(words("results.all"), "")] + [(words(f"ratings.domain.{d}"), d) for d in DOMAINS]
    return gr.Radio(
        choices,
        value="",
        label=words("results.which_domain"),
        show_label=False,
        container=False,
        elem_classes="n-pills",
        elem_id="n-results-domain",
    )
