"""Asking a model on another server for its opinion, in the results tab.

Covers: the folded card, progress, who may ask. Does not cover: what is asked (judge.py), where the opinion shows
(results_detail.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from assets.errors import UserError
from assets.words import Words
from compare import judge
from compare.rating import Rating
from compare.remote_engine_address import parse
from compare.services import CompareServices

MOST = 200
Rows = Callable[[str | None, str | None, str | None, bool | None, int], list[Rating]]


@dataclass(frozen=True)
class JudgeCard:
    """``box`` is shown to the owner only."""

    words: Words
    services: CompareServices
    box: gr.Accordion
    address: gr.Textbox
    key: gr.Textbox
    count: gr.Slider
    ask: gr.Button
    told: gr.HTML

    def asker(self, rows: Rows) -> Callable[..., Iterator[dict[Any, Any]]]:
        """A handler that asks about the votes on screen; ``rows`` gives them, at most so many."""

        def run(
            address: str, key: str, count: float, study: str | None, pair: str | None, domain: str | None,
            blind: bool | None, request: gr.Request,
        ) -> Iterator[dict[Any, Any]]:  # fmt: skip
            try:
                if not self.services.owner(request):
                    raise UserError("app.owner_only")
                place = parse(address or "")
                self.services.keys.put(place.url, key or "")
                yield from self._ask(str(place), rows(study, pair, domain, blind, int(count)))
            except UserError as error:
                yield {self.told: "", self.key: ""}
                raise gr.Error(self.words.error(error), title=self.words("app.name"), print_exception=False) from error

        return run

    def _ask(self, address: str, rows: list[Rating]) -> Iterator[dict[Any, Any]]:
        from compare.remote_engine import RemoteEngine

        engine = RemoteEngine(self.services.keys)
        for done, total in judge.judge(engine, address, rows, opinions_file(self.services)):
            key = "results.judge.going" if done < total else "results.judge.done"
            yield {self.told: f'<p class="n-sub">{self.words(key, n=done, total=total)}</p>', self.key: ""}


def opinions_file(services: CompareServices) -> Path:
    """Beside the votes, never among them."""
    return services.ratings.path.with_name("judge.jsonl")


def build(words: Words, services: CompareServices) -> JudgeCard:
    """The card, in the Blocks that are open."""
    with gr.Accordion(words("results.judge"), open=False, visible=False, elem_classes="n-card") as box:
        gr.HTML(f'<p class="n-sub">{words("results.judge.sub")}</p>')
        address = gr.Textbox(label=words("results.judge.address"), placeholder="https://server/v1#model")
        key = gr.Textbox(label=words("results.judge.key"), type="password")
        count = gr.Slider(10, MOST, value=50, step=10, label=words("results.judge.count"))
        ask = gr.Button(words("results.judge.ask"))
        told = gr.HTML()
    return JudgeCard(words, services, box, address, key, count, ask, told)
