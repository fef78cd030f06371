"""What is said about a run's learning rate, as HTML text: the advised one with its reason and origin, and doubts.

Covers: one line and its warnings. Does not cover: the rule (rates.py) or filling it in (tab_rates.py).
"""

from __future__ import annotations

from assets.words import Words
from finetune import rates
from finetune.memory import Shape
from finetune.spec import TrainSpec


def show(spec: TrainSpec, shape: Shape, words: Words) -> str:
    """The line below the plan, with a warning before it where the rate is a poor one."""
    advice = rates.advise(spec, shape)
    parts = [_doubt(found, spec, words)] if (found := rates.doubt(spec, shape)) else []
    why = "full" if spec.method == "full" else "preference" if spec.objective != "sft" else "adapter"
    told = [
        words("rates.advice", rate=number(advice.rate)),
        words(f"rates.why.{why}", rank=spec.lora.rank),
        *([words("rates.halved")] if advice.halved else []),
        words(f"rates.basis.{advice.basis}"),
    ]
    parts.append(f'<p class="n-sub" id="train-rate">{" ".join(told)}</p>')
    share = rates.narrow(spec)
    if share is not None:
        parts.append(f'<p class="n-sub">{words("rates.narrow", percent=round(share * 100))}</p>')
    return "".join(parts)


def _doubt(found: rates.Doubt, spec: TrainSpec, words: Words) -> str:
    values = {"rate": number(spec.schedule.learning_rate), "advised": number(found.advised)}
    if found.kind == "high":
        text = words("rates.high", times=round(found.times), **values)
    elif found.point is not None and found.better is not None:
        best = found.better
        seen = {"loss": f"{found.point.loss:g}", "best": f"{best.loss:g}", "at": number(best.rate)}
        text = words("rates.low.seen", **values, **seen)
    else:
        text = words("rates.low", times=round(found.times), percent=round(_cost() * 100), **values)
    return f'<div class="n-note warn" id="train-rate-doubt" style="margin:8px 0">{text}</div>'


def _cost() -> float:
    """What a fifth of the best rate cost QLoRA at rank 64, as a share of the loss."""
    points = {p.rate: p.loss for p in rates.MEASURED if p.method == "qlora" and p.rank == 64}
    return points[2e-4] / points[1e-3] - 1


def number(rate: float) -> str:
    """As the form writes it."""
    return f"{rate:g}"
