"""What the training tab shows, as HTML text made from plain data.

Covers: a run's head, phases, figures, curves, samples, the plan's line and bars. Does not cover: components and events
(tab*.py). Everything that comes from a model or a person is escaped.
"""

from __future__ import annotations

import time
from html import escape
from typing import Any

from assets.words import Words, duration, size
from finetune import views_remedy
from finetune.charts import Line, chart
from finetune.jobs import Job
from finetune.plan import LaunchPlan
from finetune.progress import PHASES, Progress


def label(job: Job, words: Words) -> str:
    """Two lines for the list of runs."""
    when = time.strftime("%m.%d %H:%M", time.localtime(job.created))
    return f"{job.name}\n{words('train.state.' + job.state)} · {when}"


def head(job: Job, progress: Progress, stopping: bool, words: Words) -> str:
    """Name, state, one sentence, and while it runs the phases and the bar."""
    badge = f'<span class="n-badge {job.state}">{words("train.state." + job.state)}</span>'
    facts = _facts(job, words) if job.facts else ""
    parts = [f'<h3 class="n-h">{escape(job.name)} {badge}</h3><p class="n-sub">{facts}</p>']
    if job.state in ("starting", "running"):
        parts += [_phases(progress, words), _bar(progress, words)]
        parts.append(f'<p class="n-sub">{words("train.stopping" if stopping else "train.running.sub")}</p>')
    else:
        parts.append(_ended(job, progress, words))
    said = [n for n in progress.notes if not job.error or n["key"] != job.error["key"]]
    notes = "".join(f'<p class="n-sub">{escape(words(n["key"], **n["values"]))}</p>' for n in said)
    return "".join(parts) + views_remedy.tried(job, words) + notes + figures(job, progress, words)


def _facts(job: Job, words: Words) -> str:
    """Model, data, method and, where there is one, the adapter's rank."""
    known = {k: escape(str(v)) for k, v in job.facts.items()}
    name = f"train.method.{job.facts.get('method')}"
    method = words(name) if name in words else known.get("method", "")
    return words(
        "train.facts.full" if job.facts.get("method") == "full" else "train.facts", **known | {"method": method}
    )


def _phases(progress: Progress, words: Words) -> str:
    shown = [p for p in PHASES if p != "quantise" or p in progress.phases]
    now = shown.index(progress.phase) if progress.phase in shown else 0
    kinds = ["past" if i < now else "now" if i == now else "" for i in range(len(shown))]
    cells = (f'<span class="{k}">{words("train.phase." + p)}</span>' for p, k in zip(shown, kinds, strict=True))
    return f'<div class="n-phases">{"".join(cells)}</div>'


def _bar(progress: Progress, words: Words) -> str:
    left = words("train.eta.unknown")
    if progress.eta is not None:
        clock = time.strftime("%H:%M", time.localtime(time.time() + progress.eta))
        left = f"{duration(words, progress.eta)} · {words('train.eta.done', clock=clock)}"
    making = progress.facts.get("quantised") if progress.phase == "quantise" else None
    percent = f"{(progress.share if making is None else float(making)) * 100:.1f}"
    bar = f'<div class="n-bar" role="progressbar" aria-valuenow="{percent}"><i style="width:{percent}%"></i></div>'
    steps = f"{progress.step} / {progress.total or '–'}"
    return f'{bar}<p class="n-sub">{words("train.n.step")} {steps} · {words("train.eta")} {left}</p>'


def _ended(job: Job, progress: Progress, words: Words) -> str:
    if job.state == "queued":
        return f'<div class="n-note warn">{words("train.queued.sub")}</div>'
    if job.memory is not None:
        return views_remedy.ended(job, words)
    if job.state == "failed" or job.error:  # a stopped run has an error when it went back to its last good checkpoint
        error = job.error or {"key": "train.crashed", "values": {"reason": job.exit_code}}
        return f'<div class="n-note bad">{escape(words(error["key"], **error["values"]) + _slower(error, words))}</div>'
    if job.state == "stopped":
        key = "train.ended.stopped" if progress.step else "train.ended.stopped.early"
        return f'<div class="n-note warn">{words(key, step=progress.step)}</div>'
    if len(progress.evals) > 1:
        first, last = progress.evals[0]["loss"], progress.evals[-1]["loss"]
        text = words("train.ended.finished", first=f"{first:.3f}", last=f"{last:.3f}")
    else:
        text = words("train.ended.finished.plain")
    return f'<div class="n-note good">{text}</div>'


def _slower(error: dict[str, Any], words: Words) -> str:
    """The learning rate that a run goes on with whose loss ran away; a run that went back to a checkpoint says it itself."""
    rate = error["values"].get("rate")
    if rate is None or error["key"].startswith("train.back."):
        return ""
    return " " + words("rates.slower", rate=f"{rate:g}")


def figures(job: Job, progress: Progress, words: Words) -> str:
    """The newest numbers in a row."""
    if not progress.steps and not progress.evals:
        return ""
    rows = [("train.n.loss", _number(progress.latest("loss"), ".3f"))]
    if progress.evals:
        rows.append(("train.n.eval", _number(progress.evals[-1]["loss"], ".3f")))
    rows += [
        ("train.n.tps", _number(progress.latest("tokens_per_second"), ",.0f")),
        ("train.n.rate", _number(progress.latest("learning_rate"), ".2e")),
        ("train.n.norm", _number(progress.latest("grad_norm"), ".2f")),
        ("train.n.memory", _size(progress.latest("host_memory"))),
        ("train.n.gpu", _size(progress.latest("gpu_memory"))),
    ]
    cells = "".join(f"<div><b>{value}</b><span>{words(key)}</span></div>" for key, value in rows if value)
    return f'<div class="n-figures" style="margin-top:14px">{cells}</div>'


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _size(value: float | None) -> str:
    return size(value) if value else ""


def more_charts(progress: Progress, words: Words) -> str:
    """What preferences taught, learning rate, gradient norm, speed and memory, one small picture each."""
    pairs = (("train.n.margin", "margin", 1.0), ("train.n.accuracy", "accuracy", 1.0))
    wanted = (
        *(entry for entry in pairs if progress.latest(entry[1]) is not None),
        ("train.n.rate", "learning_rate", 1.0),
        ("train.n.norm", "grad_norm", 1.0),
        ("train.n.tps", "tokens_per_second", 1.0),
        ("train.n.memory", "host_memory", 2.0**30),
        ("train.n.gpu", "gpu_memory", 2.0**30),
    )
    drawn = []
    for key, field, unit in wanted:
        points = [(r["step"], r[field] / unit) for r in progress.steps if r.get(field) is not None]
        name = words(key) + (" (GB)" if unit > 1 else "")
        drawn.append(chart(name, [Line(name, "var(--n-indigo)", points)], progress.total))
    return f'<div class="n-grid">{"".join(drawn)}</div>'


def samples(progress: Progress, words: Words) -> str:
    """The newest answers first, grouped by step."""
    if not progress.samples:
        return f'<p class="n-empty">{words("train.samples.none")}</p>'
    parts, shown = [], None
    for row in reversed(progress.samples[-24:]):
        if row["step"] != shown:
            shown = row["step"]
            parts.append(f'<span class="n-badge">{words("train.samples.step", step=shown)}</span>')
        answer = row["answer"].rstrip("\ufffd")  # the token limit may have cut a syllable
        parts.append(f'<div class="n-sample"><q>{escape(row["prompt"])}</q>{escape(answer) or "–"}</div>')
    return "".join(parts)


def log(text: str, words: Words) -> str:
    return f'<div class="n-log">{escape(text) or words("train.log.none")}</div>'


def plan_line(plan: LaunchPlan, seconds: tuple[float, float] | None, words: Words) -> str:
    """Fits or not, where, how much of how much, how long."""
    where = {"cpu": "cpu", "single": "single"}.get(plan.placement, plan.placement)
    time_text = words("train.time.unknown")
    if seconds:
        span = [duration(words, s) for s in seconds]
        time_text = words("train.time.about", time=span[0] if span[0] == span[1] else "–".join(span))
    kind = {"fits": "good", "tight": "warn", "too_big": "bad"}[plan.fit]
    text = words(
        "train.plan.line",
        fit=words("train.plan." + plan.fit),
        where=words("train.plan.where." + where, count=plan.processes),
        need=size(plan.total),
        have=size(plan.available),
        time=time_text,
    )
    return f'<div class="n-note {kind}">{text}</div>{_foreign(plan, words)}'


def _foreign(plan: LaunchPlan, words: Words) -> str:
    """What other programs hold on the GPUs in question: it is counted as not there."""
    held = ", ".join(f"GPU {index} {size(held)}" for index, held in plan.foreign.items())
    return f'<p class="n-sub">{words("plan.foreign", held=held)}</p>' if held else ""


def error(text: str) -> str:
    return f'<div class="n-note bad">{escape(text)}</div>'


def waiting(text: str) -> str:
    return f'<div class="n-note" role="status">{escape(text)}</div>'
