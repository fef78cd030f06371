"""The results tab: what the votes say so far, and the votes as files.

Covers: components, filters, early looks at a study that still collects, downloads for the owner. Does not cover: the
texts (results_view.py, results_detail.py), the figures (stats_*.py), the formats (export*.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gradio as gr

from assets.errors import UserError
from assets.words import Words
from compare import results_data as data
from compare import results_detail as detail
from compare import results_view as view
from compare import sync_view
from compare.export import Exported
from compare.rating import Rating
from compare.results_files import FORMATS, make_file
from compare.results_judge import JudgeCard
from compare.results_parts import components
from compare.services import CompareServices
from compare.stats_votes import Filter, Votes, from_frame, select
from compare.study import Study
from compare.study_store import Studies
from compare.views import sentence

log = logging.getLogger(__name__)
_SEPARATOR = "\t"
_EVERY = "*"  # all votes, of studies and outside of them


@dataclass(frozen=True)
class ResultsTab:
    """For app.py. ``compare`` is the button of the empty state that leads to the comparison tab.

    ``retrain`` has no handler here; ``chosen`` holds what is on screen: {"study": id or None, "pair": [model_a, model_b],
    "domain": "" or one, "blind_only": bool}. ``peeked`` are the studies that this visitor looked into early.
    """

    words: Words
    services: CompareServices
    browser: gr.BrowserState
    chosen: gr.State
    peeked: gr.State
    empty: gr.Column
    compare: gr.Button
    choose: gr.Row
    study: gr.Dropdown
    pair: gr.Dropdown
    domain: gr.Radio
    blind: gr.Checkbox
    verdict: gr.HTML
    peek: gr.Button
    full: gr.Column
    actions: gr.Row
    report: gr.Button
    retrain: gr.Button
    rates: gr.HTML
    pictures: gr.HTML
    examples: gr.HTML
    folded: gr.HTML
    votes: gr.HTML
    refused: gr.HTML
    files: gr.Accordion
    makers: tuple[gr.Button, ...]
    judge: JudgeCard
    file: gr.DownloadButton
    told: gr.HTML

    @property
    def inputs(self) -> list[Any]:
        return [self.browser, self.peeked, self.study, self.pair, self.domain, self.blind]

    @property
    def outputs(self) -> list[Any]:
        texts = [
            self.verdict,
            self.rates,
            self.pictures,
            self.examples,
            self.folded,
            self.votes,
            self.refused,
            self.told,
        ]
        boxes = [self.empty, self.choose, self.full, self.actions, self.peek, self.files, self.judge.box]
        return [*boxes, self.study, self.pair, self.domain, self.blind, self.chosen, *texts]

    @property
    def studies(self) -> Studies:
        return self.services.studies

    def show_on(self, triggers: Sequence[Any]) -> None:
        """Bring the tab up to date at these events: the tab's select, and the page's load if it comes first."""
        gr.on(list(triggers), self.show, self.inputs, self.outputs, **_QUIET)

    def show(
        self,
        rater: str | None,
        peeked: Sequence[str] | None,
        study: str | None,
        pair: str | None,
        domain: str | None,
        blind: bool | None,
        request: gr.Request,
    ) -> dict[Any, Any]:
        """The whole tab for the filters as they stand."""
        with self._telling():
            table = self.services.ratings.table()
            votes = from_frame(table.frame())
            owner = self.services.owner(request)
            shown: dict[Any, Any] = {
                self.refused: view.refused(table, self.words) + self._synced() if owner else "",
                self.files: gr.update(visible=owner and table.rows > 0),
                self.judge.box: gr.update(visible=owner and table.rows > 0),
                self.told: "",
            }
            return shown | self._paint(
                votes, rater or "", peeked or (), (study, pair, domain or "", blind is not False), owner
            )
        return {self.told: ""}

    def _synced(self) -> str:
        sync = self.services.sync
        return sync_view.line(sync.status, self.words) if sync is not None else ""

    def _paint(
        self,
        votes: Votes,
        rater: str,
        peeked: Sequence[str],
        asked: tuple[str | None, str | None, str, bool],
        owner: bool,
    ) -> dict[Any, Any]:
        if not votes.pairs():
            return {self.empty: gr.update(visible=True)} | self._hidden(self.choose, self.full, self.actions, self.peek)
        filter_, choosers = self._chosen(votes, *asked)
        study = data.study_of(filter_.study_id, self.studies)
        counted = len(select(votes, Filter(filter_.pair, filter_.study_id)).votes) if study else 0
        early = study is not None and counted < study.target and study.id not in peeked
        shown = choosers | {
            self.empty: gr.update(visible=False),
            self.choose: gr.update(visible=True),
            self.full: gr.update(visible=not early),
            self.actions: gr.update(visible=not early),
            self.peek: gr.update(visible=early),
            self.chosen: {
                "study": filter_.study_id, "pair": list(filter_.pair), "domain": filter_.domain,
                "blind_only": filter_.blind_only,
            },
        }  # fmt: skip
        if early and study is not None:
            return shown | {self.verdict: view.collecting(counted, study.target, self.words)}
        picture = self._look(votes, filter_)
        return shown | {
            self.verdict: view.verdict(picture, self.words),
            self.rates: view.rates(picture, self.words),
            self.pictures: view.pictures(picture, self.words) + view.prompts(picture, self.words),
            self.examples: view.examples(picture, self.words),
            self.folded: detail.html(picture, self.words),
            self.votes: view.latest(picture, owner, rater, self.words),
        }

    def _look(self, votes: Votes, filter_: Filter) -> data.Picture:
        services = self.services
        return data.look(services.ratings, self.studies, votes, filter_, services.workspace.jobs)

    def _chosen(
        self, votes: Votes, study: str | None, pair: str | None, domain: str, blind: bool
    ) -> tuple[Filter, dict[Any, Any]]:
        """The filters as far as they still make sense, and the choosers for them."""
        known = data.studies_of(votes, self.studies)
        options = [(self._study(*one), one[0]) for one in known]
        if len(options) > 1:
            options.append((self.words("results.study.every", n=len(votes)), _EVERY))
        value = study if study in [name for _, name in options] else options[0][1]
        mine = votes if value == _EVERY else votes.where(votes.is_("study_id", str(value)))
        pairs = mine.pairs() or votes.pairs()
        names = data.study_of(None if value == _EVERY else value, self.studies)
        choices = [(self._pair(a, b, n, names), _SEPARATOR.join((a, b))) for a, b, n in pairs]
        kept = pair if pair in [one for _, one in choices] else choices[0][1]
        first, second = str(kept).split(_SEPARATOR)
        filter_ = Filter((first, second), None if value == _EVERY else value, domain, blind)
        return filter_, {
            self.study: gr.update(choices=options, value=value, visible=len(options) > 1),
            self.pair: gr.update(choices=choices, value=kept, visible=len(choices) > 1),
        }

    def _study(self, study_id: str, name: str, n: int) -> str:
        return self.words("results.study.named", name=name, n=n) if study_id else self.words("results.study.none", n=n)

    def _pair(self, a: str, b: str, n: int, study: Study | None) -> str:
        first, second = data.names_of((a, b), study)
        return self.words("results.pair", a=first, b=second, n=n)

    @staticmethod
    def _hidden(*parts: Any) -> dict[Any, Any]:
        return {part: gr.update(visible=False) for part in parts}

    def look_early(
        self, peeked: Sequence[str] | None, study: str | None, pair: str | None, request: gr.Request
    ) -> dict[Any, Any]:
        """Record that somebody looks before the target is reached, and let this visitor see."""
        with self._telling():
            found = data.study_of(study, self.studies)
            if not self.services.owner(request):
                raise UserError("app.owner_only")
            if found is not None and pair:
                first, second = pair.split(_SEPARATOR)
                votes = select(data.votes_of(self.services.ratings), Filter((first, second), found.id)).votes
                self.studies.look(found.id, len(votes))
                return {self.peeked: [*(peeked or ()), found.id]}
        return {self.peeked: list(peeked or ())}

    def maker(self, kind: str) -> Callable[..., dict[Any, Any]]:
        """A handler that writes one file and hands it to the download button."""

        def make(
            study: str | None, pair: str | None, domain: str | None, blind: bool | None, request: gr.Request
        ) -> dict[Any, Any]:
            with self._telling():
                if not self.services.owner(request):
                    raise UserError("app.owner_only")
                made = make_file(kind, self.services, self.words, lambda: self._picture(study, pair, domain, blind))
                return {self.file: gr.update(value=str(made.path)), self.told: self._told(made)}
            return {self.file: gr.update(value=None), self.told: ""}

        return make

    def _picture(self, study: str | None, pair: str | None, domain: str | None, blind: bool | None) -> data.Picture:
        votes = data.votes_of(self.services.ratings)
        if not votes.pairs():
            raise UserError("ratings.nothing_to_export")
        return self._look(votes, self._chosen(votes, study, pair, domain or "", blind is not False)[0])

    def to_judge(
        self, study: str | None, pair: str | None, domain: str | None, blind: bool | None, most: int
    ) -> list[Rating]:
        """The votes on screen, for a machine's opinion."""
        votes = data.votes_of(self.services.ratings)
        if not votes.pairs():
            raise UserError("ratings.nothing_to_export")
        filter_ = self._chosen(votes, study, pair, domain or "", blind is not False)[0]
        return data.to_judge(self.services.ratings, votes, filter_, most)

    def _told(self, made: Exported) -> str:
        key = "results.made" if made.rows else "results.made.report"
        text = self.words(key, file=made.path.name, n=made.rows)
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
    tab = ResultsTab(words=words, services=services, **components(words, services))
    tab.show_on([tab.study.input, tab.pair.input, tab.domain.input, tab.blind.input])
    looked = tab.peek.click(tab.look_early, [tab.peeked, tab.study, tab.pair], [tab.peeked], **_QUIET)
    looked.success(tab.show, tab.inputs, tab.outputs, **_QUIET)
    filters = [tab.study, tab.pair, tab.domain, tab.blind]
    asked = [tab.judge.address, tab.judge.key, tab.judge.count, *filters]
    judged = tab.judge.ask.click(tab.judge.asker(tab.to_judge), asked, [tab.judge.told, tab.judge.key], **_QUIET)
    judged.success(tab.show, tab.inputs, tab.outputs, **_QUIET)
    for kind, maker in zip(("report", *FORMATS), (tab.report, *tab.makers), strict=True):
        made = maker.click(tab.maker(kind), filters, [tab.file, tab.told], **_QUIET)
        made.success(None, None, None, js=_FETCH, api_visibility="private")
    return tab
