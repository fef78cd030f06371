"""The memory of a plan as HTML: one stacked bar for each GPU and one for the host, with range and verdict.

Covers: bars, their key, what is free. Does not cover: the line above them (views.py) or the figures (memory.py).
"""

from __future__ import annotations

from collections.abc import Mapping

from assets.words import Words, size
from finetune.plan import LaunchPlan

COLORS = {
    "weights": "#2f4b8f",
    "constants": "#5b78c4",
    "embeddings": "#b8501f",
    "lora": "#e0905f",
    "gradients": "#2c7a4b",
    "optimizer": "#7cb894",
    "activations": "#8a5a00",
    "buffers": "#d0a548",
    "loss": "#76508a",
    "reference": "#5c4033",
    "slack": "#b9bdc6",
    "overhead": "#8b929e",
    "mapped": "#9db1de",
    "read": "#5b78c4",
    "pinned": "#2f4b8f",
    "trained": "#7cb894",
    "processes": "#8b929e",
}
OTHER = "#9aa1ad"


def bars(plan: LaunchPlan, words: Words) -> str:
    """What one GPU must have, or the host where there is none; then what the host must have beside it."""
    note = f'<p class="n-sub n-memory">{words("memory.range")}</p>'
    if plan.placement == "cpu":
        return _bar(words("memory.host"), plan.parts, plan.available, (plan.low, plan.high), plan.fit, words) + note
    count = len(plan.gpus)
    title = words("memory.gpu") if count < 2 else words("memory.gpus", count=count)
    gpu = _bar(title, plan.parts, plan.available, (plan.low, plan.high), plan.gpu_fit or plan.fit, words)
    if not plan.host_parts:  # made by an older version
        return gpu + note
    host = (plan.host, plan.host)
    return gpu + _bar(words("memory.host"), plan.host_parts, plan.host_available, host, plan.host_fit, words) + note


def _bar(title: str, parts: Mapping[str, int], available: int, span: tuple[int, int], fit: str, words: Words) -> str:
    """``span`` is the range in which the peak should lie; a line marks what is free."""
    total = sum(parts.values())
    whole = max(total, available, span[1], 1)
    shown = {part: value for part, value in parts.items() if value > 0}
    cells = "".join(
        f'<i style="width:{value / whole * 100:.2f}%;background:{_color(part)}" title="{_named(part, value, words)}"></i>'
        for part, value in shown.items()
    )
    keys = "".join(
        f'<span><i style="background:{_color(part)}"></i>{_named(part, value, words)}</span>'
        for part, value in shown.items()
    )
    marks = _mark("n-span", span[0], span[1] - span[0], whole) if span[1] > span[0] else ""
    marks += _mark("n-limit", available, 0, whole) if 0 < available < whole else ""
    need = size(total) if span[0] >= span[1] else f"{size(span[0])}–{size(span[1])}"
    line = words("memory.line", title=title, fit=words("train.plan." + fit), need=need, have=size(available))
    return (
        f'<p class="n-sub n-memory">{line}</p><div class="n-meter"><div class="n-stack">{cells}</div>{marks}</div>'
        f'<div class="n-keys">{keys}</div>'
    )


def _mark(kind: str, start: int, wide: int, whole: int) -> str:
    return f'<b class="{kind}" style="left:{start / whole * 100:.2f}%;width:{wide / whole * 100:.2f}%"></b>'


def _color(part: str) -> str:
    return COLORS.get(part, OTHER)


def _named(part: str, value: int, words: Words) -> str:
    return f"{words('train.part.' + part)} {size(value)}"
