"""Proof of the pane: does each row of the joint pass answer with the weights it claims?

Covers: one fixed prompt at load, the joint pass against plain forwards of the model alone. Does not cover: answers that
were stored (their provenance is in the rating).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from assets.errors import UserError
from compare.decode import Decoder
from compare.engine import PaneCheck
from compare.row_lora import Adapter, RowAdapters

PROMPT = [{"role": "user", "content": "오늘 하루가 참 길었어요. Why is the sky blue, and what should I eat tonight?"}]
# Relative to the largest logit. bfloat16 rounds each of some hundred sums to 8 bits: 0.002 to 0.012 measured.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.02}


def check_panes(decoder: Decoder, adapters: Sequence[Adapter | None], prompt: Sequence[int]) -> PaneCheck:
    """Compare every row with its model alone. UserError when a row is wrong or an adapter changes nothing at all."""
    tolerance = TOLERANCE[decoder.model.dtype]
    base, joint = _alone(decoder.model, None, prompt), decoder.last_logits(prompt)
    if not (torch.isfinite(base).all() and torch.isfinite(joint).all()):
        raise UserError("engine.not_finite")
    base_errors, adapter_errors, differences = [], [], []
    for row, adapter in enumerate(adapters):
        if adapter is None:
            base_errors.append(_apart(joint[row], base))
            continue
        alone = _alone(decoder.model, adapter, prompt)
        adapter_errors.append(_apart(joint[row], alone))
        differences.append(_apart(alone, base))
        if differences[-1] == 0:
            raise UserError("engine.adapter_changes_nothing", adapter=adapter.name)
    worst = max(base_errors + adapter_errors)
    if not worst <= tolerance:
        raise UserError("engine.check_failed", error=f"{worst:.3g}", tolerance=f"{tolerance:g}")
    return PaneCheck(
        max(base_errors, default=None), max(adapter_errors, default=None), min(differences, default=None), tolerance
    )


def _apart(logits: torch.Tensor, reference: torch.Tensor) -> float:
    return float((logits - reference).norm() / (reference - reference.mean()).norm())


def combine(checks: Sequence[PaneCheck]) -> PaneCheck:
    """One verdict over several bases: the largest errors, the smallest difference, the widest tolerance."""
    return PaneCheck(
        max((c.base_error for c in checks if c.base_error is not None), default=None),
        max((c.adapter_error for c in checks if c.adapter_error is not None), default=None),
        min((c.difference for c in checks if c.difference is not None), default=None),
        max(c.tolerance for c in checks),
    )


def _alone(model: Any, adapter: Adapter | None, prompt: Sequence[int]) -> torch.Tensor:
    """Last logits [vocabulary] of one plain forward of one row: no cache and no mask of ours, no other row."""
    device = model.get_input_embeddings().weight.device
    with torch.inference_mode(), RowAdapters(model, [adapter]).attached(0, 1):
        output = model(input_ids=torch.tensor([list(prompt)], device=device), use_cache=False, logits_to_keep=1)
    logits: torch.Tensor = output.logits[0, -1].float()
    return logits
