"""How fast a GPU that nothing has run on yet should train a model.

Covers: tokens a second from the card's arithmetic and what a training step costs to start. Does not cover: cards that are
not listed, and CPUs. Two measurements on one H100 (Llama-3-8B shape, NF4, rank 16, length 2048, checkpointing, 2026-11-23)
fix the two constants: 7,469 tokens a second at micro-batch 4, which the arithmetic bounds, and 4,591 at micro-batch 1, which
the starting of kernels bounds. On other cards it is a guess of the right size.
"""

from __future__ import annotations

from finetune.memory import Shape
from finetune.spec import TrainSpec

PEAK = {
    "B200": 2250,
    "H200": 989,
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "RTX 4090": 165,
    "RTX A6000": 155,
    "V100": 125,
    "L4": 121,
    "RTX 3090": 71,
    "A10G": 70,
    "T4": 65,
}
"""Part of the name -> dense 16-bit TFLOP/s of the maker's data sheet."""
SHARE = 0.48  # of that, in one H100's training step
STARTING = 0.014  # seconds a layer and micro-batch to start the kernels of both passes
PASSES = {"sft": 3, "dpo": 4, "kto": 6}


def rate(names: list[str], spec: TrainSpec, shape: Shape, passed: int, length: float) -> float | None:
    """Tokens a second of all the GPUs in ``names``, conversations being ``length`` tokens; None for an unknown card.
    ``passed``: weights that every token is multiplied with."""
    peaks = [next((tflops for part, tflops in PEAK.items() if part in name), None) for name in names]
    if not names or None in peaks or not length:
        return None
    slowest = min(peak for peak in peaks if peak is not None) * 1e12 * SHARE
    passes = PASSES[spec.objective] + (1 if spec.schedule.checkpointing else 0)
    tokens = spec.schedule.micro_batch * length
    each = max(tokens * 2 * passes * passed / slowest, STARTING * shape.layers)
    return tokens * len(names) / each
