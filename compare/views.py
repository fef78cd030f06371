"""What the comparison tab shows, as HTML text made from plain data.

Covers: the two panes, the line of what is loaded, loading, the reveal, a prompt's context and reference. Does not
cover: components and events (tab*.py). Everything that comes from a model or a person is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from assets.catalog import Prompt
from assets.errors import UserError
from assets.words import Words, duration, size
from compare import markup
from compare.desk import Loading, Pair
from compare.engine import PHASES, REMOTE, Done, PaneCheck
from compare.machine import Taken
from compare.provenance import provenance
from compare.rating import Message
from compare.session import Pane, Session

_KEPT = 160


def pane(shown: Pane, place: str, words: Words, waiting: int = 0) -> str:
    """One side: head, earlier turns, the answer that is being written, and how it ended."""
    body = "".join(_turn(turn) for turn in shown.turns)
    if shown.text or (shown.streaming and not waiting):
        body += _answer(shown)
    elif not shown.turns:
        body = f'<p class="n-pane-empty">{words("compare.pane.empty")}</p>'
    return f'<article class="n-pane">{_head(shown, place, words)}{body}{_ending(shown, words, waiting)}</article>'


def _head(shown: Pane, place: str, words: Words) -> str:
    letter = f'<b class="n-letter">{words("compare.side." + place)}</b>'
    name = f'<span class="n-who">{escape(shown.name)}</span>' if shown.name else ""
    badge = _kind(shown, words)
    won = f'<span class="n-badge finished">{words("compare.chosen")}</span>' if shown.chosen else ""
    figures = f'<span class="n-pane-figures">{_figures(shown.done, words)}</span>'
    return f"<header>{letter}{name}{badge}{won}{figures}</header>"


def _kind(shown: Pane, words: Words) -> str:
    if not shown.kind:
        return ""
    return f'<span class="n-badge n-kind-{shown.kind}">{words("compare.who." + shown.kind)}</span>'


def _figures(done: Done | None, words: Words) -> str:
    if done is None or not done.tokens:
        return ""
    first, speed = f"{done.seconds_to_first:.1f}", f"{done.tokens_per_second:.0f}"
    return words("compare.figures", first=first, speed=speed, tokens=done.tokens)


def _turn(turn: Message) -> str:
    if turn["role"] == "user":
        return f'<div class="n-you">{escape(turn["content"])}</div>'
    return f'<div class="n-it">{markup.html(turn["content"])}</div>'


def _answer(shown: Pane) -> str:
    text = markup.html(shown.text, growing=shown.ended != "stop")
    if shown.streaming:
        text = _with_caret(text)
    return f'<div class="n-it n-now">{text}</div>'


def _with_caret(text: str) -> str:
    """A caret right behind the last letter, inside whatever block that stands in."""
    caret = '<i class="n-caret"></i>'
    end = next((e for e in ("</span></p>", "</p>", "</code></pre>") if text.endswith(e)), "")
    return text.removesuffix(end) + caret + end


def _ending(shown: Pane, words: Words, waiting: int) -> str:
    if shown.streaming and waiting:
        return f'<p class="n-note">{words("compare.waiting", n=waiting)}</p>'
    if shown.error:
        return f'<p class="n-note bad">{words(shown.error)}</p>'
    notes = {"length": "compare.cut", "cancelled": "compare.stopped"}
    if shown.ended in notes:
        return f'<p class="n-pane-note">{words(notes[shown.ended])}</p>'
    if shown.ended and not shown.text.strip():
        return f'<p class="n-pane-note">{words("compare.silent")}</p>'
    if shown.leaked:
        return f'<p class="n-pane-note">{words("compare.leaked", names=escape(", ".join(shown.leaked)))}</p>'
    return ""


def context(prompt: Prompt | None, words: Words) -> str:
    """The turns before a prompt's last one, so that the rater knows what it is about."""
    if prompt is None or len(prompt.messages) < 2:
        return ""
    lines = "".join(_turn(turn) for turn in prompt.messages[:-1])
    return f'<div class="n-before"><p class="n-sub">{words("compare.before")}</p>{lines}</div>'


def reference(prompt: Prompt | None) -> str:
    """What a right answer holds, for the rater."""
    return f'<div class="n-reference">{escape(prompt.reference)}</div>' if prompt and prompt.reference else ""


def vote_head(chosen: bool, words: Words) -> str:
    """The line over the choices: the question, then where to say more."""
    text = f'<a href="#n-marks">{words("compare.more")}</a>' if chosen else words("compare.vote")
    return f'<p class="n-ask">{text}<span>{words("compare.vote.keys")}</span></p>'


def first_words(prompt: Prompt, number: int, rated: bool, letters: int = 34) -> str:
    """A prompt's line in the picker."""
    text = " ".join(prompt.messages[-1]["content"].split())
    cut = text if len(text) <= letters else text[:letters].rstrip() + "…"
    return f"{number}. {cut}" + (" ✓" if rated else "")


def loaded_line(pair: Pair | None, named: bool, words: Words, resting: bool = False, idle: float = 0) -> str:
    """One line about what is loaded. ``named`` False leaves both names out: raters must not see them yet.

    ``resting``: its memory is given back until the next question; ``idle``: after how many seconds that happens.
    """
    if pair is None:
        none = f'<i class="n-dot off"></i>{words("compare.none_loaded")}'
        return f'<div class="n-line"><span class="n-pair">{none}</span></div>'
    names = " · ".join(f"<b>{escape(c.name)}</b>" for c in pair.candidates) if named else words("compare.pair.hidden")
    device = words("compare.device.gpu" if pair.loaded.device.startswith("cuda") else "compare.device.cpu")
    if cards := pair.loaded.device.count(","):
        device = words("compare.device.gpus", count=cards + 1)
    held = words("compare.resting") if resting else f"{device} · {size(pair.loaded.memory_bytes)}"
    if pair.loaded.device == REMOTE:
        held, idle = words("remote.device"), 0
    until = words("compare.idle", time=duration(words, idle)) if idle else ""
    chips = f'<span class="n-chip" title="{escape(until)}">{held}</span>{check_badge(pair, words)}'
    return f'<div class="n-line"><span class="n-pair"><i class="n-dot"></i>{names}</span>{chips}</div>'


def check_badge(pair: Pair, words: Words) -> str:
    """Whether each side is known to answer with its own weights."""
    check = pair.loaded.check
    if any(known.told is not None for known in pair.loaded.arms.values()):
        return f'<span class="n-badge" title="{words("remote.unproven.text")}">{words("remote.unproven")}</span>'
    shown = "compare.check.same" if pair.same else "compare.check.good"
    return f'<span class="n-badge finished" title="{escape(_check_text(check, words))}">{words(shown)}</span>'


def _check_text(check: PaneCheck, words: Words) -> str:
    errors = [e for e in (check.base_error, check.adapter_error) if e is not None]
    error = f"{max(errors):.1e}" if errors else "–"
    difference = "–" if check.difference is None else f"{check.difference:.1e}"
    return words("compare.check.text", error=error, tolerance=f"{check.tolerance:.0e}", difference=difference)


def loading(now: Loading | None, words: Words) -> str:
    """Phases and bar while something loads, then nothing or what went wrong."""
    if now is None or (now.ended and now.error is None):
        return ""
    if now.error is not None:
        mine = isinstance(now.error, UserError) and now.error.key == "engine.load_cancelled"
        return f'<div class="n-note{"" if mine else " bad"}">{escape(sentence(now.error, words))}</div>'
    if now.taken is not None:
        return taken_note(now.taken, words)
    at = PHASES.index(now.phase.key)
    percent = f"{(at + (now.phase.done or 0.0)) / len(PHASES) * 100:.1f}"
    bar = f'<div class="n-bar" role="progressbar" aria-valuenow="{percent}"><i style="width:{percent}%"></i></div>'
    return f'{bar}<p class="n-sub">{words(now.phase.key)} ({at + 1}/{len(PHASES)})</p>'


def taken_note(taken: Taken, words: Words) -> str:
    """Which job holds the GPU and for how long; what is chosen will load by itself."""
    left = words("compare.measuring") if taken.left is None else words("compare.left", time=duration(words, taken.left))
    return f'<div class="n-note">{words("compare.taken", name=escape(taken.name), left=left)}</div>'


def bad(text: str) -> str:
    """A sentence as the note of something that went wrong."""
    return f'<div class="n-note bad">{escape(text)}</div>'


def sentence(error: Exception, words: Words) -> str:
    """Any exception as a person may read it."""
    if isinstance(error, UserError):
        return words.error(error)
    return words("app.unexpected", reason=f"{type(error).__name__}: {error}"[:_KEPT])


def revealed(session: Session, words: Words) -> str:
    """After the vote: the choice in words, who stood where, and the proof, folded."""
    talk = session.talk
    if talk is None or talk.reveal is None or talk.rating is None:
        return ""
    left, right = session.panes()
    result = words("compare.undone") if talk.undone else _result(left, right, talk.rating.winner, words)
    who = words("compare.who", left=escape(left.name or ""), right=escape(right.name or ""))
    return (
        f'<div class="n-reveal"><p class="n-h">{result}</p><p class="n-sub">{who}</p>'
        f"<details><summary>{words('compare.proof')}</summary>{_proof(talk.pair, words)}</details></div>"
    )


def _result(left: Pane, right: Pane, winner: str, words: Words) -> str:
    if winner in ("tie", "both_bad"):
        return words(f"compare.result.{winner}")
    won, lost = (left, right) if left.chosen else (right, left)
    if {won.kind, lost.kind} == {"tuned", "base"}:
        return words(f"compare.result.{won.kind}")
    return words("compare.result.named", name=escape(won.name or ""))


def _proof(pair: Pair, words: Words) -> str:
    rows: list[tuple[str, object]] = []
    record = provenance(pair)
    if pair.loaded.device == REMOTE:
        rows.append((words("compare.proof.check"), words("remote.unproven.text")))
    else:
        rows.append((words("compare.proof.check"), _check_text(pair.loaded.check, words)))
    for side in ("model_a", "model_b"):
        known = record[side]
        if "told" in known:
            told = known["told"]
            what = words("remote.proof.side", model=told.get("model", "–"), server=told.get("server", "–"))
            rows.append((words("remote.proof"), what))
            continue
        rows.append((words("compare.proof.base"), f"{known['base']} ({str(known.get('base_revision', '–'))[:24]})"))
        if known.get("adapter_sha256"):
            rows.append((words("compare.proof.adapter"), f"{known['name']} (sha256 {known['adapter_sha256'][:16]}…)"))
        rows.append((words("compare.proof.template"), known.get("template_hash", "–")))
    if pair.loaded.versions:
        rows.append((words("compare.proof.versions"), ", ".join(f"{k} {v}" for k, v in pair.loaded.versions.items())))
    return table(rows)


def table(rows: Sequence[tuple[str, object]]) -> str:
    """Two columns of plain text."""
    lines = "".join(f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in rows)
    return f'<table class="n-table n-proof">{lines}</table>'
