"""Proof of the pane: does each row of the joint pass answer with the weights it claims?

Covers: one fixed prompt at load. Each row is compared with the same row of a pass in which nothing else takes part: no
adapter anywhere for the base, one adapter everywhere for a tuned model. Shapes and kernels are the same, so the error
is zero to the bit unless weights leak between rows. Against a plain forward of transformers, in other shapes, half
precision alone makes a difference of some hundredths; that comparison guards the cache and the masks and is allowed
more. Does not cover: answers that were stored (their provenance is in the rating).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from assets.errors import UserError
from compare.decode import Decoder
from compare.decode_lora import Adapter
from compare.decode_stages import first_device
from compare.engine import PaneCheck

PROMPT = [{"role": "user", "content": "오늘 하루가 참 길었어요. Why is the sky blue, and what should I eat tonight?"}]
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.01, torch.float16: 0.01}
# transformers with its own cache differs from itself without one by 0.05 to 0.11 in bfloat16 (30 layers, NF4).
PLAIN_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.4, torch.float16: 0.2}


def check_panes(decoder: Decoder, adapters: Sequence[Adapter | None], prompt: Sequence[int]) -> PaneCheck:
    """Compare every row with its model alone. UserError when a row is wrong or an adapter changes nothing at all."""
    model, rows = decoder.model, len(adapters)
    joint, base = decoder.last_logits(prompt), Decoder(model, [None] * rows).last_logits(prompt)
    if not (torch.isfinite(joint).all() and torch.isfinite(base).all()):
        raise UserError("engine.not_finite")
    _require(_apart(base[0], _plain(model, prompt)), PLAIN_TOLERANCE[model.dtype])
    base_errors, adapter_errors, differences = [], [], []
    for row, adapter in enumerate(adapters):
        if adapter is None:
            base_errors.append(_apart(joint[row], base[row]))
            continue
        alone = Decoder(model, [adapter] * rows).last_logits(prompt)
        adapter_errors.append(_apart(joint[row], alone[row]))
        differences.append(_apart(alone[row], base[row]))
        if differences[-1] == 0:
            raise UserError("engine.adapter_changes_nothing", adapter=adapter.name)
    tolerance = min([TOLERANCE[model.dtype], *(difference / 2 for difference in differences)])
    _require(max(base_errors + adapter_errors), tolerance)
    return PaneCheck(
        max(base_errors, default=None), max(adapter_errors, default=None), min(differences, default=None), tolerance
    )


def combine(checks: Sequence[PaneCheck]) -> PaneCheck:
    """One verdict over several bases: the largest errors, the smallest difference, the widest tolerance."""
    return PaneCheck(
        max((c.base_error for c in checks if c.base_error is not None), default=None),
        max((c.adapter_error for c in checks if c.adapter_error is not None), default=None),
        min((c.difference for c in checks if c.difference is not None), default=None),
        max(c.tolerance for c in checks),
    )


def _require(error: float, tolerance: float) -> None:
    if not error <= tolerance:
        raise UserError("engine.check_failed", error=f"{error:.3g}", tolerance=f"{tolerance:.3g}")


def _apart(logits: torch.Tensor, reference: torch.Tensor) -> float:
    """Root mean square of the difference, relative to the spread of the reference over the vocabulary."""
    return float((logits - reference).norm() / (reference - reference.mean()).norm())


def _plain(model: Any, prompt: Sequence[int]) -> torch.Tensor:
    """Last logits [vocabulary] of transformers' own forward of one row, without a cache or a mask of ours."""
    device = first_device(model)
    with torch.inference_mode():
        output = model(input_ids=torch.tensor([list(prompt)], device=device), use_cache=False, logits_to_keep=1)
    logits: torch.Tensor = output.logits[0, -1].float().to(device)
    return logits
