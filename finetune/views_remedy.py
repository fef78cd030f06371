"""Why memory ran out, what can be done about it and what was done, as HTML text.

Covers: job.json's ``memory`` and ``tries``. Does not cover: finding out (shortfall.py, remedy.py).
"""

from __future__ import annotations

from html import escape
from typing import Any

from assets.words import Words, size
from finetune.jobs import Job
from finetune.shortfall import GROUPS


def ended(job: Job, words: Words) -> str:
    """The note of a run that ended so: when, which part, and what to change."""
    assert job.memory is not None
    found, remedy = job.memory["shortfall"], job.memory["remedy"]
    sentences = [words("remedy.ran_out"), *_when(found, words), why(found, words)]
    note = f'<div class="n-note bad">{" ".join(sentences)}</div>'
    return note + _table(found, words) + _proposal(remedy, words)


def _when(found: dict[str, Any], words: Words) -> list[str]:
    if not found["phase"]:
        return []
    said = [words("remedy.when." + found["phase"], step=found["step"] + 1)]
    ranks = [words("remedy.rank", rank=found["rank"], count=found["processes"])] if found["processes"] > 1 else []
    return said + ranks


def why(found: dict[str, Any], words: Words) -> str:
    part = found["part"]
    if not part:
        return words("remedy.unknown")
    estimated, measured = size(found["estimated"]), size(found["measured"])
    if part == "pieces":
        return words("remedy.pieces", measured=measured)
    if part == "other":
        return words("remedy.other", estimated=estimated, measured=measured)
    return words("remedy.under", part=words("remedy.part." + part), estimated=estimated, measured=measured)


def _table(found: dict[str, Any], words: Words) -> str:
    """Every part that something is known of, the estimate beside what was measured."""
    if not found["parts"]:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{words("remedy.part." + group)}</th><td>{size(found["parts"][group][0])}</td>'
        f"<td>{_measured(found, group)}</td></tr>"
        for group in GROUPS
        if group in found["parts"]
    )
    head = "".join(
        f'<th scope="col">{words("remedy.table." + name)}</th>' for name in ("part", "estimated", "measured")
    )
    sums = ""
    if found["need"] and found["allowed"]:
        text = words("remedy.need", need=size(found["need"]), allowed=size(found["allowed"]))
        sums = f'<p class="n-sub">{text}</p>'
    table = f'<table class="n-table"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return f'<div class="n-wide n-parts">{table}</div>{sums}'


def _measured(found: dict[str, Any], group: str) -> str:
    text = size(found["parts"][group][1])
    return f"<b>{text}</b>" if group == found["part"] else text


def _proposal(remedy: dict[str, Any] | None, words: Words) -> str:
    if remedy is None:
        return f'<p class="n-sub">{words("remedy.no_more")}</p>'
    where = words("remedy.how.step", step=remedy["step"]) if remedy["step"] else words("remedy.how.begin")
    total, available = size(remedy["total"]), size(remedy["available"])
    text = words("remedy.how", where=where, changes=changes(remedy, words), total=total, available=available)
    return f'<div class="n-note" id="train-remedy">{text}</div>'


def changes(remedy: dict[str, Any], words: Words) -> str:
    """Each setting with its value before and after."""
    before = remedy["before"]
    return ", ".join(
        f"{words('train.f.' + name)} {_value(before[name], words)} → {_value(value, words)}"
        for name, value in remedy["changed"].items()
    )


def _value(value: Any, words: Words) -> str:
    if isinstance(value, bool):
        return words("remedy.on" if value else "remedy.off")
    return escape(str(value))


def tried(job: Job, words: Words) -> str:
    """What earlier attempts changed, oldest first; "" when memory never ran out."""
    if not job.tries:
        return ""
    rows = []
    for entry in job.tries:
        part = words("remedy.part." + (entry["shortfall"]["part"] or "unknown"))
        by = words("remedy.by." + entry["by"])
        said = {"number": entry["attempt"], "part": part, "changes": changes(entry["remedy"], words), "by": by}
        rows.append(f"<li>{words('remedy.try', **said)}</li>")
    return f'<div class="n-tried"><b>{words("remedy.tried")}</b><ul>{"".join(rows)}</ul></div>'
