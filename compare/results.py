"""The results tab: what the votes say so far, and the votes as files.

Covers: components, filters, downloads for the owner. Does not cover: the texts (results_view.py), the statistics
(stats.py), the formats (export.py).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import gradio as gr

from assets.errors import UserError
from assets.words import Words
from compare import results_view as view
from compare import stats
from compare.criteria import DOMAINS
from compare.export import Exported, export_csv, export_preferences, export_spreadsheet
from compare.ratings import Ratings
from compare.results_view import Filter
from compare.services import CompareServices
from compare.views import sentence

log = logging.getLogger(__name__)
FORMATS = ("csv", "excel", "pairs")
_SEPARATOR = "\t"


@dataclass(frozen=True)
class ResultsTab:
    """For app.py. ``compare`` is the button of the empty state that leads to the comparison tab."""

    words: Words
    services: CompareServices
    browser: gr.BrowserState
    empty: gr.Column
    compare: gr.Button
    full: gr.Column
    verdict: gr.HTML
    pair: gr.Dropdown
    domain: gr.Radio
    blind: gr.Checkbox
    rates: gr.HTML
    votes: gr.HTML
    refused: gr.HTML
    files: gr.Column
    makers: tuple[gr.Button, ...]
    file: gr.DownloadButton
    told: gr.HTML

    @property
    def outputs(self) -> list[Any]:
        texts = [self.verdict, self.rates, self.votes, self.refused, self.told]
        return [self.empty, self.full, self.files, self.pair, self.domain, self.blind, *texts]

    def show_on(self, triggers: Sequence[Any]) -> None:
        """Bring the tab up to date at these events: the tab's select, and the page's load if it comes first."""
        inputs = [self.browser, self.pair, self.domain, self.blind]
        gr.on(list(triggers), self.show, inputs, self.outputs, **_QUIET)

    def show(
        self, rater: str | None, pair: str | None, domain: str | None, blind: bool | None, request: gr.Request
    ) -> dict[Any, Any]:
        """The whole tab for the filters as they stand."""
        with self._telling():
            ratings = self.services.ratings.read()
            return self._paint(ratings, rater or "", pair, domain or "", blind is not False, request)
        return {self.told: ""}

    def _paint(
        self, ratings: Ratings, rater: str, pair: str | None, domain: str, blind: bool, request: gr.Request
    ) -> dict[Any, Any]:
        owner = self.services.owner(request)
        pairs = stats.pairs(ratings.votes)
        broken = view.refused(ratings, self.words) if owner else ""
        shown = {
            self.empty: gr.update(visible=not pairs),
            self.full: gr.update(visible=bool(pairs)),
            self.files: gr.update(visible=owner and (bool(pairs) or ratings.rows > 0)),
            self.refused: broken,
            self.told: "",
        }
        if not pairs:
            return shown
        choices = [(self._pair(a, b, n), _SEPARATOR.join((a, b))) for a, b, n in pairs]
        known = pair if pair in [value for _, value in choices] else choices[0][1]
        first, second = str(known).split(_SEPARATOR)
        picture = view.look(ratings, Filter((first, second), domain, blind))
        return shown | {
            self.pair: gr.update(choices=choices, value=known, visible=len(pairs) > 1),
            self.verdict: view.verdict(picture, self.words),
            self.rates: view.rates(picture, self.words)
            + view.places(picture, self.words)
            + view.left_out(picture, self.words),
            self.votes: view.latest(picture.votes, owner, rater, self.words),
        }

    def _pair(self, a: str, b: str, n: int) -> str:
        return self.words("results.pair", a=view._short(a), b=view._short(b), n=n)

    def maker(self, kind: str) -> Callable[[gr.Request], dict[Any, Any]]:
        """A handler that writes one file and hands it to the download button."""

        def make(request: gr.Request) -> dict[Any, Any]:
            with self._telling():
                if not self.services.owner(request):
                    raise UserError("app.owner_only")
                made = self._export(kind)
                return {self.file: gr.update(value=str(made.path)), self.told: self._told(made)}
            return {self.file: gr.update(value=None), self.told: ""}

        return make

    def _export(self, kind: str) -> Exported:
        store = self.services.ratings
        folder = Path(tempfile.mkdtemp(prefix="naranhi-"))
        stamp = datetime.now().strftime("%Y%m%d-%H%M")
        if kind == "csv":
            return export_csv(store.path, folder / f"ratings-{stamp}.csv")
        if kind == "excel":
            return export_spreadsheet(store.path, folder / f"ratings-{stamp}-excel.csv")
        return export_preferences(store.read().votes, folder / f"preferences-{stamp}.jsonl")

    def _told(self, made: Exported) -> str:
        text = self.words("results.made", file=made.path.name, n=made.rows)
        if made.left_out:
            reasons = (f"{self.words('ratings.left_out.' + why)} {n}" for why, n in made.left_out.items())
            text += " " + self.words("results.made.left_out", what=", ".join(reasons))
        return f'<p class="n-sub">{text}</p>'

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            gr.Warning(self.words.error(error), title=self.words("app.name"))
        except Exception as error:
            log.exception("a handler of the results failed")
            gr.Warning(sentence(error, self.words), title=self.words("app.failed"), duration=None)


_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
_FETCH = "() => setTimeout(() => document.getElementById('n-file')?.click(), 150)"


def build(words: Words, services: CompareServices) -> ResultsTab:
    """The tab's components and events, in the Blocks that are open."""
    browser = gr.BrowserState("", storage_key="naranhi-rater", secret="naranhi")
    with gr.Column(elem_classes="n-card") as empty:
        gr.HTML(f'<div class="n-empty"><b>{words("results.none")}</b><br>{words("results.none.sub")}</div>')
        compare = gr.Button(words("results.to_compare"), variant="primary", elem_classes="n-middle")
    with gr.Column(visible=False, elem_classes="n-results") as full:
        verdict = gr.HTML()
        with gr.Row(elem_classes="n-choose"):
            domain = _domains(words)
            pair = gr.Dropdown([], show_label=False, container=False, visible=False, elem_id="n-results-pair")
            blind = gr.Checkbox(True, label=words("results.blind_only"), container=False, elem_classes="n-check")
        with gr.Column(elem_classes="n-card"):
            rates = gr.HTML()
        with gr.Column(elem_classes="n-card"):
            gr.HTML(f'<h3 class="n-h">{words("results.latest")}</h3>')
            votes = gr.HTML()
    refused = gr.HTML()
    with gr.Column(visible=False, elem_classes="n-card") as files:
        gr.HTML(f'<h3 class="n-h">{words("results.files")}</h3><p class="n-sub">{words("results.files.sub")}</p>')
        with gr.Row(elem_classes="n-actions"):
            makers = tuple(gr.Button(words(f"results.file.{kind}")) for kind in FORMATS)
        told = gr.HTML()
        file = gr.DownloadButton("", elem_id="n-file", elem_classes="n-away")
    tab = ResultsTab(
        words, services, browser, empty, compare, full, verdict, pair, domain, blind, rates, votes, refused, files,
        makers, file, told,
    )  # fmt: skip
    tab.show_on([pair.input, domain.input, blind.input])
    for kind, maker in zip(FORMATS, makers, strict=True):
        made = maker.click(tab.maker(kind), None, [file, told], **_QUIET)
        made.success(None, None, None, js=_FETCH, api_visibility="private")
    return tab


def _domains(words: Words) -> gr.Radio:
    choices = [(words("results.all"), "")] + [(words(f"ratings.domain.{d}"), d) for d in DOMAINS]
    return gr.Radio(
        choices, value="", show_label=False, container=False, elem_classes="n-pills", elem_id="n-results-domain"
    )
