"""The results as a Jupyter notebook that computes them again from the exported CSV, with pandas only.

Covers: nbformat 4.5 JSON, the verdict as text, cells that count, rate and list prompts. Does not cover: the report's
clustered intervals, which need more than pandas; the notebook says so.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from assets.words import Words
from compare.export import Exported, written
from compare.export_report import rate_table, verdict_lines
from compare.results_data import Picture

_READ = """import json
import math
from pathlib import Path

import pandas as pd

CSV = sorted(Path(".").glob("*ratings*.csv"))[-1]
MODEL_A, MODEL_B = {a}, {b}
STUDY, DOMAIN, BLIND_ONLY = {study}, {domain}, {blind}

rows = pd.read_csv(CSV, dtype=str, keep_default_na=False)
votes = rows[rows["action"] == "vote"].drop_duplicates("rating_id")
back = rows[rows["action"] != "vote"]
own = set(zip(back["target_rating_id"], back["rater"]))
votes = votes[[(i, r) not in own for i, r in zip(votes["rating_id"], votes["rater"])]]
votes = votes[~votes["kind"].isin(["practice", "aa", "repeat"])]
if STUDY is not None:
    votes = votes[votes["study_id"] == STUDY]
if DOMAIN:
    votes = votes[votes["domain"] == DOMAIN]
if BLIND_ONLY:
    votes = votes[votes["blind"].str.lower().isin(["true", "1"])]
turned = (votes["model_a"] == MODEL_B) & (votes["model_b"] == MODEL_A)
votes = votes[turned | ((votes["model_a"] == MODEL_A) & (votes["model_b"] == MODEL_B))].copy()
swap = {{"model_a": "model_b", "model_b": "model_a"}}
winner = votes["winner"]
votes["won"] = winner.where(~turned[votes.index], winner.map(lambda side: swap.get(side, side)))
len(votes)"""

_COUNT = """def wilson(wins, n, z=1.959963984540054):
    if n == 0:
        return float("nan"), float("nan")
    rate = wins / n
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return middle - half, middle + half


def line(group):
    counts = group["won"].value_counts()
    b, a = int(counts.get("model_b", 0)), int(counts.get("model_a", 0))
    low, high = wilson(b, a + b)
    return {"wins_b": b, "wins_a": a, "tie": int(counts.get("tie", 0)), "both_bad": int(counts.get("both_bad", 0)),
            "rate_b": b / (a + b) if a + b else float("nan"), "low": low, "high": high}


table = {"all": line(votes)} | {name: line(group) for name, group in votes.groupby("domain")}
pd.DataFrame(table).T"""

_PROMPTS = """prompts = pd.crosstab(votes["prompt_id"], votes["won"]).reindex(
    columns=["model_a", "model_b", "tie", "both_bad"], fill_value=0
)
prompts["lead_b"] = prompts["model_b"] - prompts["model_a"]
prompts.sort_values("lead_b")"""


def export_notebook(picture: Picture, target: Path, words: Words) -> Exported:
    """A notebook to lie beside the exported CSV."""
    with written(target) as out:
        out.write(json.dumps(notebook(picture, words), ensure_ascii=False, indent=1).encode("utf-8", "replace"))
    return Exported(target, 0)


def notebook(picture: Picture, words: Words) -> dict[str, Any]:
    """nbformat 4.5."""
    wanted = picture.report.filter
    read = _READ.format(
        a=_literal(wanted.pair[0]),
        b=_literal(wanted.pair[1]),
        study=_literal(wanted.study_id),
        domain=_literal(wanted.domain),
        blind=wanted.blind_only,
    )
    title, *rest = verdict_lines(picture, words)
    head, *rows = rate_table(picture, words)
    table = [f"| {' | '.join(cells)} |" for cells in (head, tuple("---" for _ in head), *rows)]
    top = [f"# {words('report.title', a=picture.names[0], b=picture.names[1])}", "", f"**{title}**", ""]
    cells = [
        _markdown("\n".join([*top, *(f"{line}\n" for line in rest), *table])),
        _markdown(words("report.notebook.read")),
        _code(read),
        _markdown(words("report.notebook.counts")),
        _code(_COUNT),
        _markdown(words("report.notebook.prompts")),
        _code(_PROMPTS),
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "cells": [cell | {"id": f"cell-{place}"} for place, cell in enumerate(cells)],
    }


def _literal(value: str | None) -> str:
    """A Python literal that cannot end early, whatever a model is called."""
    return repr(value) if value is None else json.dumps(value)


def _markdown(text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": text.splitlines(keepends=True)}


def _code(text: str) -> dict[str, Any]:
    lines = text.splitlines(keepends=True)
    return {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": [], "source": lines}
