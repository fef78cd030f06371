"""Before votes become training data: which of them, how much agreement, and what that leaves.

Covers: the fields, a count that follows them, a file from them. Does not cover: the rules (pairs.py), the file
(pairs_file.py), the button that leads on (the results tab; app.py connects the two).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from assets.errors import UserError
from assets.preferences import PreferenceFile
from assets.words import Words
from compare import pairs_file, views
from compare.pairs import PairFilter, from_votes
from compare.services import CompareServices

OBJECTIVES = ("auto", "dpo", "kto")


@dataclass(frozen=True)
class PairsPanel:
    """``fields`` are the values of ``make`` after the results tab's own choice."""

    words: Words
    services: CompareServices
    votes: gr.Number
    agreement: gr.Slider
    margin: gr.Number
    objective: gr.Radio
    told: gr.HTML

    @property
    def fields(self) -> list[Any]:
        return [self.votes, self.agreement, self.margin, self.objective]

    def make(
        self, chosen: Mapping[str, Any], votes: float, agreement: float, margin: float, objective: str
    ) -> PreferenceFile:
        """The preference file for what is on screen. UserErrors of ``pairs.from_votes``."""
        asked = filter_of(chosen, votes, agreement, margin)
        found = self.services.ratings.read().votes
        return pairs_file.make(self.services.workspace, found, asked, _objective(objective))

    def count(self, chosen: Mapping[str, Any], votes: float, agreement: float, margin: float, objective: str) -> str:
        """What these conditions leave, as HTML."""
        try:
            asked = filter_of(chosen, votes, agreement, margin)
            pairs = from_votes(self.services.ratings.read().votes, asked, _objective(objective))
        except UserError as error:
            return views.bad(self.words.error(error))
        text = self.sentence(len(pairs.used), len(pairs.rows), pairs.objective, pairs_file.told(pairs))
        return f'<p class="n-sub">{text}</p>'

    def sentence(self, votes: int, rows: int, objective: str, left: list[tuple[str, int]]) -> str:
        text = self.words("pairs.made", votes=votes, rows=rows, objective=objective.upper())
        if left:
            what = ", ".join(f"{self.words('ratings.left_out.' + why)} {n}" for why, n in left)
            text += " " + self.words("pairs.made.left_out", what=what)
        return text

    def watch(self, chosen: gr.State) -> None:
        """Count again whenever the results tab or one of the fields changes."""
        triggers = [chosen.change, *(field.change for field in self.fields)]
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "trigger_mode": "always_last"}
        gr.on(triggers, self.count, [chosen, *self.fields], self.told, **quiet)


def filter_of(chosen: Mapping[str, Any], votes: float, agreement: float, margin: float) -> PairFilter:
    """What the results tab shows ("study", "pair", "domain", "blind_only") with the conditions of this panel."""
    return PairFilter(
        study=chosen.get("study") or "",
        domain=chosen.get("domain") or "",
        models=tuple(chosen.get("pair") or ()),
        blind_only=chosen.get("blind_only", True) is not False,
        votes=max(1, int(votes or 1)),
        agreement=min(1.0, max(0.0, float(agreement or 0))),
        margin=max(0.0, float(margin or 0)),
    )


def _objective(text: str) -> Any:
    return text if text in ("dpo", "kto") else None


def build(words: Words, services: CompareServices) -> PairsPanel:
    """The folded card, in the Blocks that are open."""
    with gr.Accordion(words("pairs.title"), open=False, elem_classes="n-card", elem_id="n-pairs"):
        gr.HTML(f'<p class="n-sub">{words("pairs.sub")}</p>')
        with gr.Row():
            votes = gr.Number(1, label=words("pairs.votes"), precision=0, minimum=1, min_width=140)
            agreement = gr.Slider(0.5, 1.0, value=0.6, step=0.05, label=words("pairs.agreement"), min_width=200)
            margin = gr.Number(0, label=words("pairs.margin"), minimum=0, min_width=140)
        objective = gr.Radio(
            [(words("pairs.objective." + name), name) for name in OBJECTIVES],
            value="auto",
            label=words("pairs.objective"),
        )
        told = gr.HTML(elem_id="n-pairs-told")
    return PairsPanel(words, services, votes, agreement, margin, objective, told)
