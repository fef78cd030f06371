"""The verdict as a document to send to a colleague: one HTML file, or Markdown.

Covers: the sentence, how it was computed, plots, examples won and lost, everything that the page folds away. Does not
cover: raw votes (export.py). The HTML file loads nothing from anywhere and runs no script; every text in it that comes
from a model or a person is escaped. Comments of raters and their names are not in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from html import escape
from pathlib import Path

from assets.words import Words
from compare import results_detail as detail
from compare import results_view as view
from compare import stats_report
from compare.export import Exported, written
from compare.rating import Rating
from compare.results_data import EXAMPLES, Picture
from compare.stats_rates import Outcome
from compare.stats_report import percent

STYLE = Path(__file__).parents[1] / "assets" / "report.css"


def export_html(picture: Picture, target: Path, words: Words, version: str) -> Exported:
    """One self-contained file, about 100 kB."""
    return _write(target, html(picture, words, version))


def export_markdown(picture: Picture, target: Path, words: Words, version: str) -> Exported:
    """The same as Markdown, for a blog; plots become the table of intervals."""
    return _write(target, markdown(picture, words, version))


def _write(target: Path, text: str) -> Exported:
    with written(target) as out:
        out.write(text.encode("utf-8", "replace"))
    return Exported(target, 0)


def html(picture: Picture, words: Words, version: str) -> str:
    title = escape(_title(picture, words))
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        f'<!doctype html>\n<html lang="{words.language}"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><style>{STYLE.read_text("utf-8")}</style></head>'
        f"<body><main><h1>{title}</h1><p class='n-sub'>{_made(words, version)}</p>{view.verdict(picture, words)}"
        f'<section class="n-card">{view.rates(picture, words)}</section>'
        f'<section class="n-card">{view.pictures(picture, words)}{view.prompts(picture, words)}</section>'
        f'<section class="n-card">{view.examples(picture, words)}</section>{detail.html(picture, words, open_=True)}'
        f"</main></body></html>\n"
    )


def markdown(picture: Picture, words: Words, version: str) -> str:
    return "\n".join(_markdown(picture, words, version)) + "\n"


def _title(picture: Picture, words: Words) -> str:
    return words("report.title", a=picture.names[0], b=picture.names[1])


def _made(words: Words, version: str) -> str:
    return words("report.made", version=version, date=datetime.now().strftime("%Y-%m-%d"))


def verdict_lines(picture: Picture, words: Words) -> list[str]:
    """The sentences on top, what they count, the notes of caution."""
    found = picture.report
    said = " ".join(one.say(words) for one in stats_report.sentences(found, picture.names))
    notes = [note.say(words) for note in stats_report.notes(found)]
    return [said, *([stats_report.counted(found).say(words)] if found.overall.tally.n else []), *notes]


def rate_table(picture: Picture, words: Words) -> list[tuple[str, ...]]:
    """Head and rows: what, model_b's share, its interval, decided votes, ties and both-bad."""
    found = picture.report
    lines: list[tuple[str, Outcome]] = [(words("results.all"), found.overall)]
    lines += [(view.domain_name(name, words), one) for name, one in found.domains.items() if len(found.domains) > 1]
    lines += [(view.criterion_name(picture, name, words), one) for name, one in found.criteria.items()]
    head = tuple(words(f"report.table.{name}") for name in ("what", "rate", "interval", "decided", "even"))
    return [head, *(_cells(name, one) for name, one in lines)]


def _cells(name: str, one: Outcome) -> tuple[str, ...]:
    share = f"{percent(one.rate.rate)} %" if one.rate.rate is not None else "–"
    ends = f"{percent(one.rate.interval[0])}–{percent(one.rate.interval[1])} %" if one.rate.interval else "–"
    return name, share, ends, str(one.tally.decided), f"{one.tally.ties} / {one.tally.both_bad}"


def _markdown(picture: Picture, words: Words, version: str) -> Iterator[str]:
    first, *rest = verdict_lines(picture, words)
    yield from (f"# {_text(_title(picture, words))}", "", f"**{_text(first)}**", "")
    for line in rest:
        yield from (_text(line), "")
    yield from (f"## {words('report.rates')}: {_text(picture.names[1])}", "", *_table(rate_table(picture, words)), "")
    for title, rows in _examples(picture, words):
        yield from (f"## {_text(title)}", "")
        for row in rows:
            yield from _example(row, picture, words)
    for part in detail.parts(picture, words):
        yield from (f"## {words(part.key)}", "", *(f"- {_text(line)}" for line in part.lines), "")
        if part.table:
            yield from (*_table(list(part.table)), "")
    yield f"*{_made(words, version)}*"


def _examples(picture: Picture, words: Words) -> Iterator[tuple[str, list[Rating]]]:
    lines = picture.report.prompts
    worse = [line for line in lines if line.balance < 0][:EXAMPLES]
    better = [line for line in reversed(lines) if line.balance > 0][:EXAMPLES]
    name = picture.names[1]
    for key, found, lost in (("results.won_by", better, False), ("results.lost", worse, True)):
        yield words(key, name=name), [row for _, row in picture.shown(found, lost)]


def _example(row: Rating, picture: Picture, words: Words) -> Iterator[str]:
    yield from (f"**{words('report.question')}**", "", *_quoted(view.question(row)), "")
    for side, name in zip(("model_a", "model_b"), picture.names, strict=True):
        chosen = f" ({words('results.chosen')})" if row.winner == side else ""
        yield from (
            f"**{_text(name)}**{chosen}",
            "",
            *_quoted(row.response_a if side == "model_a" else row.response_b),
            "",
        )


def _quoted(text: str) -> list[str]:
    return [f"> {_text(line)}" if line.strip() else ">" for line in text.split("\n")]


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    head, *body = rows
    lines = [head, tuple("---" for _ in head), *body]
    return ["| " + " | ".join(_text(cell).replace("|", "\\|") for cell in cells) + " |" for cells in lines]


def _text(text: str) -> str:
    """Nothing in it can become HTML or a link that loads something."""
    return escape(text, quote=False).replace("](", "]\\(").replace("![", "!\\[")
