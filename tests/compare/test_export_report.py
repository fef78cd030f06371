from __future__ import annotations

import json
import re
import zipfile
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from assets.errors import UserError
from assets.files import Workspace
from assets.words import LANGUAGES, Words
from compare import results_data as data
from compare.export_dataset import export_dataset
from compare.export_notebook import export_notebook
from compare.export_report import export_html, export_markdown
from compare.ratings import RatingsFile
from compare.stats_rates import wilson
from compare.stats_votes import Filter
from compare.study_store import Studies
from tests.simulated_votes import A, B, rows

EVIL = '<img src="https://evil.example/x.png" onerror=alert(1)> ![x](https://evil.example) [y](javascript:1) | `'


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("home")).prepare()
    given = list(rows(120))
    given[0] = replace(
        given[0], conversation=[{"role": "user", "content": EVIL}], response_a=EVIL, response_b=EVIL + "\ud800"
    )
    given[0] = replace(given[0], comment="secret comment", winner="model_a")
    RatingsFile(workspace.ratings / "ratings.csv").append(*given)
    return workspace


def ratings(home: Workspace) -> RatingsFile:
    return RatingsFile(home.ratings / "ratings.csv")


def picture(home: Workspace, **changes: Any) -> data.Picture:
    file = ratings(home)
    return data.look(file, Studies(home), data.votes_of(file), Filter((A, B), **changes), home.jobs)


class Loads(HTMLParser):
    """Everything in a page that could fetch or run something."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "img", "link", "iframe", "object", "embed", "video", "audio", "source", "base"):
            self.found.append(tag)
        for name, value in attrs:
            if name in ("src", "srcset", "action", "data") or name.startswith("on"):
                self.found.append(f"{tag} {name}")
            if name in ("href", "xlink:href") and not str(value).startswith("#"):
                self.found.append(f"{tag} {value}")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_html_report_loads_and_runs_nothing(home: Workspace, tmp_path: Path, language: str) -> None:
    found = export_html(picture(home), tmp_path / "r.html", Words(language), "0.1")
    text = found.path.read_text(encoding="utf-8")
    page = Loads()
    page.feed(text)
    assert page.found == [] and "url(" not in text and "@import" not in text
    assert "&lt;img" in text and "secret comment" not in text and "default-src 'none'" in text
    assert (
        text.count("<svg") > 10
        and f'lang="{language}"' in text
        and "{" not in re.sub(r"<style>.*</style>", "", text, flags=re.DOTALL)
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_markdown_holds_the_same_and_no_html(home: Workspace, tmp_path: Path, language: str) -> None:
    words = Words(language)
    text = export_markdown(picture(home), tmp_path / "r.md", words, "0.1").path.read_text(encoding="utf-8")
    assert "<img" not in text and "![x]" not in text and "](" not in text and "secret comment" not in text
    assert f"## {words('results.part.method')}" in text and "| --- |" in text


def test_the_notebook_runs_with_pandas_and_agrees(
    home: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = picture(home)
    notebook = json.loads(export_notebook(found, tmp_path / "r.ipynb", Words("ko")).path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert all(set(cell) >= {"cell_type", "metadata", "source", "id"} for cell in notebook["cells"])
    (tmp_path / "ratings-1.csv").write_bytes(ratings(home).path.read_bytes())
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(
        set(re.findall(r"^(?:import|from) (\w+)", cell, re.M)) <= {"json", "math", "pathlib", "pandas"} for cell in code
    )
    for cell in code:
        exec(compile(cell, "cell", "exec"), names)
    counts = found.report.overall.tally
    counted = names["table"]["all"]
    assert (counted["wins_b"], counted["wins_a"]) == (counts.wins_b, counts.wins_a)
    assert (counted["tie"], counted["both_bad"]) == (counts.ties, counts.both_bad)
    assert (counted["low"], counted["high"]) == pytest.approx(wilson(counts.wins_b, counts.decided))
    assert set(names["table"]) == {"all", "emotion", "science"} and len(names["prompts"]) == len(found.report.prompts)


def test_a_notebook_follows_the_filters_and_what_was_taken_back(
    home: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = RatingsFile(tmp_path / "ratings.csv")
    given = list(rows(60))
    file.append(*given)
    main = next(row for row in given if row.kind == "main" and row.domain == "emotion")
    file.undo(main.rating_id, main.rater)
    found = data.look(file, Studies(home), data.votes_of(file), Filter((B, A), domain="emotion"), home.jobs)
    notebook = json.loads(export_notebook(found, tmp_path / "r.ipynb", Words("en")).path.read_text(encoding="utf-8"))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "cell", "exec"), names)
    assert names["table"]["all"]["wins_b"] == found.report.overall.tally.wins_b
    assert len(names["votes"]) == found.report.overall.tally.n


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_data_set_holds_a_card_and_every_format(home: Workspace, tmp_path: Path, language: str) -> None:
    found = export_dataset(ratings(home), tmp_path / "d.zip", Words(language))
    with zipfile.ZipFile(found.path) as archive:
        assert sorted(archive.namelist()) == [
            "README.md",
            "arena.jsonl",
            "judged.jsonl",
            "preferences.jsonl",
            "ratings.csv",
        ]
        card = archive.read("README.md").decode()
        assert archive.read("ratings.csv") == ratings(home).path.read_bytes()
        assert len(archive.read("arena.jsonl").splitlines()) == len(picture(home).report.selection.votes)
    assert card.startswith("---\nlanguage:\n- ko\n") and "n<1K" in card and A in card and "{" not in card
    with pytest.raises(UserError, match=r"ratings\.nothing_to_export"):
        export_dataset(RatingsFile(tmp_path / "none.csv"), tmp_path / "x.zip", Words(language))
