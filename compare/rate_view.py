"""What a rater sees, as HTML text made from what may be shown.

Covers: welcome, an item with its vote bar and questions, the end, the reveal, sentences for links that do not open. Does
not cover: who may see what (study_serve.py), events (tab_rate.py), the choice before it is sent and whether both answers
were on screen (rate.js). Everything that comes from a study or a model is escaped.

The page speaks the study's language, so all of its words are in here and none in a component.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape

from assets.words import Words
from compare import markup
from compare.rating import Message
from compare.study import StudyQuestion
from compare.study_view import Finished, Revealed, Served, Welcome
from compare.trial import CHOICES

PLACES = ("left", "right")


def page(screen: str, body: str, words: Words, **data: str) -> str:
    """The root that rate.js looks for. ``data`` are its data attributes. Lone surrogates cannot be sent and become "?"."""
    told = {"screen": screen, "slow": words("rate.slow"), **data}
    attributes = "".join(f' data-{name}="{escape(value)}"' for name, value in told.items())
    html = f'<main class="n-rating" lang="{words.language}"{attributes}>{body}</main>'
    return html.encode("utf-8", "replace").decode("utf-8")


def welcome(shown: Welcome, words: Words) -> str:
    """What this is about, how long it takes, what one agrees to."""
    minutes = words("rate.minutes", n=max(1, round(shown.minutes)))
    facts = "".join(
        f"<li>{escape(text)}</li>" for text in (words("rate.count", n=shown.total), minutes, words("rate.anytime"))
    )
    body = (
        f"{_brand(words)}<h1>{escape(shown.title)}</h1>"
        f'<p class="n-rating-lead">{words("rate.purpose")}</p><ul class="n-rating-facts">{facts}</ul>'
        f"{_rubric(shown.rubric, words, opened=True)}"
        f'<section class="n-card n-rating-consent"><h2>{words("rate.consent")}</h2>{paragraphs(shown.consent)}</section>'
        f"{_button('consent', words('rate.agree'), primary=True)}"
        f'<p class="n-sub n-rating-after">{words("rate.agree.sub", n=shown.practice)}</p>'
    )
    return page("welcome", f'<div class="n-rating-page">{body}</div>', words)


def item(served: Served, words: Words, rubric: str = "") -> str:
    """One prompt with both answers. Nothing in it tells who wrote which."""
    body = (
        _top(served, words)
        + _first_words(served, words)
        + f'<section class="n-rating-prompt">{_turns(served.turns)}</section>'
        + _reference(served.reference, words)
        + f'<div class="n-rating-panes">{"".join(_answer(served, place, words) for place in PLACES)}</div>'
        + _marks(served.questions, words)
        + _rubric(rubric, words)
        + _bar(words)
    )
    return page("item", body, words, token=served.token)


def _top(served: Served, words: Words) -> str:
    share = (served.number - 1) / max(1, served.total) * 100
    count = words("rate.practice.number" if served.practice else "rate.number", n=served.number, total=served.total)
    undo = _button("undo", words("rate.undo"), quiet=True) if served.can_undo else ""
    pause = f'<button type="button" class="n-quiet" data-toggle="n-rating-pause">{words("rate.pause")}</button>'
    note = (
        f'<div class="n-note good" id="n-rating-pause" hidden>{words("rate.pause.text")} '
        f'<button type="button" class="n-quiet" data-copy-address data-copied="{words("rate.copied")}">'
        f"{words('rate.pause.copy')}</button>{_withdraw(words)}</div>"
    )
    return (
        f'<header class="n-rating-top"><span class="n-rating-count">{count}</span>'
        f'<div class="n-bar" role="progressbar" aria-valuenow="{share:.0f}" aria-label="{escape(count)}">'
        f'<i style="width:{share:.1f}%"></i></div><nav>{undo}{pause}</nav></header>{note}'
    )


def _first_words(served: Served, words: Words) -> str:
    if served.practice:
        return f'<p class="n-note">{words("rate.practice")}</p>'
    if served.number == 1:
        return f'<p class="n-note good">{words("rate.begin")}</p>'
    return ""


def _turns(turns: Sequence[Message]) -> str:
    shown = []
    for turn in turns:
        if turn["role"] == "user":
            shown.append(f'<div class="n-you">{escape(turn["content"])}</div>')
        elif turn["role"] == "assistant":
            shown.append(f'<div class="n-it">{markup.html(turn["content"])}</div>')
    return "".join(shown)


def _reference(text: str | None, words: Words) -> str:
    if not text:
        return ""
    return (
        f'<details class="n-rating-fold"><summary>{words("rate.reference")}</summary>'
        f'<div class="n-reference">{escape(text)}</div></details>'
    )


def _answer(served: Served, place: str, words: Words) -> str:
    text = getattr(served, place)
    shown = markup.html(text) if text.strip() else f'<p class="n-pane-note">{words("compare.silent")}</p>'
    letter = words(f"compare.side.{place}")
    return (
        f'<article class="n-card n-rating-answer n-{place}" aria-label="{letter}"><b class="n-letter">{letter}</b>'
        f'<div class="n-it">{shown}</div><i class="n-rating-end" data-end="{place}"></i></article>'
    )


def _marks(questions: Sequence[StudyQuestion], words: Words) -> str:
    """The scales of both sides and the comment: shown by rate.js once a choice is made."""
    asked = "".join(_question(question, words) for question in questions)
    head = f"<h2>{words('rate.marks')}</h2>" if questions else ""
    comment = (
        f'<label class="n-rating-comment"><span>{words("compare.comment")}</span>'
        f'<textarea rows="1" maxlength="4000" placeholder="{words("compare.comment.placeholder")}"></textarea></label>'
    )
    return f'<section id="n-marks" class="n-card n-rating-marks" hidden>{head}{asked}{comment}</section>'


def _question(question: StudyQuestion, words: Words) -> str:
    head = f"<b>{escape(question.label)}</b> {escape(question.question)}"
    scales = "".join(_scale(question, place, words) for place in PLACES)
    return f'<fieldset class="n-rating-question"><legend>{head}</legend><div class="n-rating-scales">{scales}</div></fieldset>'


def _scale(question: StudyQuestion, place: str, words: Words) -> str:
    letter, key = words(f"compare.side.{place}"), escape(question.key)
    options = "".join(
        f'<label><input type="radio" name="m-{place}-{key}" data-place="{place}" data-key="{key}" value="{value}">'
        f"<span>{escape(anchor)}</span></label>"
        for value, anchor in zip(question.values, question.anchors, strict=True)
    )
    label = escape(f"{letter} · {question.label}")
    return (
        f'<div class="n-rating-scale n-scale-of-{place}" role="radiogroup" aria-label="{label}">'
        f'<b class="n-letter">{letter}</b><div class="n-rating-steps">{options}</div></div>'
    )


def _bar(words: Words) -> str:
    """The ids are those that keys.js votes with."""
    options = "".join(
        f'<label><input type="radio" name="choice" value="{choice}"><span>{words(f"compare.vote.{choice}")}</span></label>'
        for choice in CHOICES
    )
    return (
        '<div id="n-votebar" class="n-sticky n-votebar n-rating-bar">'
        f'<p class="n-ask"><b class="n-when-unseen">{words("rate.read_both")}</b>'
        f'<b class="n-when-seen">{words("compare.vote")}</b><span>{words("compare.vote.keys")}</span></p>'
        f'<div class="n-rating-vote"><fieldset id="n-choice" disabled>{options}</fieldset>'
        f'<button type="button" id="n-confirm" class="n-go" data-do="vote" disabled>{words("compare.confirm")}</button>'
        "</div></div>"
    )


def done(shown: Finished, words: Words, revealed: Sequence[Revealed] = ()) -> str:
    """Thanks, the code to hand in, the reveal where the study allows it, and the way out."""
    code = (
        f'<div class="n-rating-code"><span>{words("rate.code")}</span><b>{escape(shown.code)}</b>'
        f'<button type="button" class="n-quiet" data-copy="{escape(shown.code)}" '
        f'data-copied="{words("rate.copied")}">{words("rate.copy")}</button></div>'
    )
    more = _reveal(revealed, words) if revealed else ""
    if not revealed and shown.may_reveal:
        more = (
            f'<section class="n-rating-more"><p class="n-sub">{words("rate.reveal.sub")}</p>'
            f"{_button('reveal', words('rate.reveal'))}</section>"
        )
    undo = "" if revealed else f"<p>{_button('undo', words('rate.undo'), quiet=True)}</p>"
    body = (
        f"{_brand(words)}<h1>{words('rate.thanks')}</h1>"
        f'<p class="n-rating-lead">{words("rate.thanks.sub")}</p>{code}{undo}{more}{_withdraw(words)}'
    )
    return page("done", f'<div class="n-rating-page">{body}</div>', words)


def _withdraw(words: Words) -> str:
    return (
        f'<section class="n-rating-leave"><button type="button" class="n-quiet" data-toggle="n-rating-sure">'
        f'{words("rate.withdraw")}</button><div id="n-rating-sure" class="n-note warn" hidden>'
        f"<p>{words('rate.withdraw.sure')}</p>{_button('withdraw', words('rate.withdraw.yes'), danger=True)}"
        f'<button type="button" class="n-quiet" data-toggle="n-rating-sure">{words("rate.withdraw.no")}</button>'
        "</div></section>"
    )


def _reveal(revealed: Sequence[Revealed], words: Words) -> str:
    rows = "".join(
        f"<tr><td>{one.number}</td><td{_won(one, 'left')}>{escape(one.left)}</td>"
        f"<td{_won(one, 'right')}>{escape(one.right)}</td><td>{_chosen(one, words)}</td></tr>"
        for one in revealed
    )
    names = "".join(f"<th>{words(f'compare.side.{place}')}</th>" for place in PLACES)
    return (
        f'<section class="n-rating-more"><h2>{words("rate.revealed")}</h2><div class="n-scroll">'
        f'<table class="n-table"><thead><tr><th>#</th>{names}<th>{words("rate.my_choice")}</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _chosen(one: Revealed, words: Words) -> str:
    return words(f"compare.side.{one.choice}" if one.choice in PLACES else f"compare.vote.{one.choice}")


def _won(one: Revealed, place: str) -> str:
    return ' class="n-won"' if one.choice == place else ""


def message(title: str, text: str, words: Words) -> str:
    """One sentence where there is nothing to rate."""
    body = f'{_brand(words)}<h1>{escape(title)}</h1><p class="n-rating-lead">{escape(text)}</p>'
    return page("message", f'<div class="n-rating-page">{body}</div>', words)


def note(text: str) -> str:
    """What went wrong with the last click; the item stays as it is."""
    return f'<div class="n-note bad" role="alert">{escape(text)}</div>' if text else ""


def paragraphs(text: str) -> str:
    """Plain text with its line breaks."""
    parts = [part.strip() for part in text.replace("\r\n", "\n").split("\n\n") if part.strip()]
    return "".join(f"<p>{escape(part).replace(chr(10), '<br>')}</p>" for part in parts)


def _rubric(text: str, words: Words, opened: bool = False) -> str:
    if not text.strip():
        return ""
    return (
        f'<details class="n-rating-fold"{" data-open open" if opened else ""}><summary>{words("rate.rubric")}</summary>'
        f'<div class="n-rating-rubric">{paragraphs(text)}</div></details>'
    )


def _brand(words: Words) -> str:
    mark = '<span class="n-mark" aria-hidden="true"><i></i><i></i></span>'
    return f'<p class="n-rating-brand">{mark}{words("app.name")}</p>'


def _button(do: str, text: str, primary: bool = False, quiet: bool = False, danger: bool = False) -> str:
    look = "n-go" if primary else "n-quiet" if quiet else "n-danger" if danger else "n-plain-button"
    return f'<button type="button" class="{look}" data-do="{do}">{escape(text)}</button>'


def read_act(text: object) -> Mapping[str, object]:
    """What rate.js sends: {"c": code, "do": …}. Anything else counts as opening the page."""
    try:
        found = json.loads(str(text)[:200_000])
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
