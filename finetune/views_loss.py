"""The loss of a run: its curve, where it turned, and what the run made the model forget, each in one plain sentence.

Covers: HTML from a run's progress. Does not cover: other curves (views.py), measuring (train_forget.py), several runs
(side.py).
"""

from __future__ import annotations

from html import escape

from assets.words import Words
from finetune.charts import Line, chart
from finetune.progress import Progress
from finetune.side import turned

WORSE, BETTER = 0.03, -0.01  # shares of the loss at the start; between them nothing worth a word has happened
KEPT = ("train.best", "train.early")


def show(progress: Progress, words: Words) -> str:
    """Curve and sentences; empty before the first number."""
    return loss_chart(progress, words) + overfitting(progress, words) + forgetting(progress, words)


def loss_chart(progress: Progress, words: Words) -> str:
    """Training and held-out loss by step, with a mark where the held-out one began to rise."""
    lines = [
        Line(
            words("train.n.loss"),
            "var(--n-indigo)",
            [(r["step"], r["loss"]) for r in progress.steps if r["loss"] is not None],
        ),
        Line(
            words("train.n.eval"),
            "var(--n-persimmon)",
            [(r["step"], r["loss"]) for r in progress.evals if r["loss"] is not None],
            dots=True,
        ),
    ]
    return chart(words("train.chart.loss"), lines, progress.total, mark=turned(progress))


def overfitting(progress: Progress, words: Words) -> str:
    """One sentence when the held-out loss has risen from its lowest; none when the run kept that moment, which a note
    says."""
    step = turned(progress)
    if step is None or any(note["key"] in KEPT for note in progress.notes):
        return ""
    losses = {row["step"]: row["loss"] for row in progress.evals if row["loss"] is not None}
    last = losses[max(losses)]
    text = words("train.overfit", step=step, best=f"{losses[step]:.3f}", last=f"{last:.3f}")
    return f'<div class="n-note warn">{escape(text)}</div>'


def forgetting(progress: Progress, words: Words) -> str:
    """One sentence per domain that was not trained, once it is measured at both ends."""
    return "".join(_said(domain, first, last, words) for domain, (first, last) in progress.ends.items())


def _said(domain: str, first: float, last: float, words: Words) -> str:
    change = last / first - 1
    key = "worse" if change > WORSE else "better" if change < BETTER else "kept"
    named = words(f"catalog.domain.{domain}")
    values = {"domain": named, "first": f"{first:.3f}", "last": f"{last:.3f}", "percent": round(change * 100)}
    return f'<p class="n-sub">{escape(words(f"train.forget.{key}", **values))}</p>'
