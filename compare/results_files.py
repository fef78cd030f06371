"""The files that the results tab hands out, by name.

Covers: which writer makes which file, names with the time. Does not cover: the formats (export*.py).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from assets.files import for_download
from assets.words import Words
from compare.export import Exported, export_csv, export_spreadsheet
from compare.export_dataset import export_dataset
from compare.export_notebook import export_notebook
from compare.export_pairs import export_arena, export_judged, export_preferences
from compare.export_report import export_html, export_markdown
from compare.results_data import Picture
from compare.services import CompareServices

FORMATS = ("csv", "excel", "pairs", "kto", "arena", "markdown", "notebook", "dataset")
_NAMES = {
    "report": "report-{}.html",
    "csv": "ratings-{}.csv",
    "excel": "ratings-{}-excel.csv",
    "pairs": "preferences-{}.jsonl",
    "kto": "judged-{}.jsonl",
    "arena": "arena-{}.jsonl",
    "markdown": "report-{}.md",
    "notebook": "report-{}.ipynb",
    "dataset": "dataset-{}.zip",
}


def make_file(kind: str, services: CompareServices, words: Words, picture: Callable[[], Picture]) -> Exported:
    """One file in a folder of its own. ``picture`` is asked only by those that show figures."""
    target = for_download(_NAMES[kind].format(datetime.now().strftime("%Y%m%d-%H%M")))
    store, version = services.ratings, services.app_version
    makers: dict[str, Callable[[], Exported]] = {
        "report": lambda: export_html(picture(), target, words, version),
        "csv": lambda: export_csv(store.path, target),
        "excel": lambda: export_spreadsheet(store.path, target),
        "pairs": lambda: export_preferences(store.read().votes, target),
        "kto": lambda: export_judged(store.read().votes, target),
        "arena": lambda: export_arena(store.read().votes, target),
        "markdown": lambda: export_markdown(picture(), target, words, version),
        "notebook": lambda: export_notebook(picture(), target, words),
        "dataset": lambda: export_dataset(store, target, words),
    }
    return makers[kind]()
