"""What a step keeps alive for its gradients, and the most that one block needs on top, in bytes.

Covers: one micro-batch through a Llama- or Gemma-like decoder with LoRA under 16-bit autocast, with or without
checkpointing, up to TRL's fused loss. Does not cover: weights and states (memory.py). The counts are those of tensors that
autograd saves or that live at the same time in transformers 5.23, peft 0.21, bitsandbytes 0.50 and trl 1.16;
tests/finetune/test_memory_counted.py counts them again in the installed libraries.
"""

from __future__ import annotations

from dataclasses import dataclass

from finetune.memory_shape import PROJECTIONS, Shape
from finetune.spec import TrainSpec

TILE_TOKENS, TILE_VOCAB = 4096, 32768  # of TRL's chunked log-probabilities


def sequences(spec: TrainSpec) -> int:
    """Texts that pass through the model together for one row: a preference pair is two."""
    return 2 if spec.objective == "dpo" else 1


def targets(spec: TrainSpec) -> tuple[str, ...]:
    """The linear layers of a block that have an adapter."""
    if spec.method == "full":
        return ()
    if spec.lora.targets == "all-linear":
        return PROJECTIONS
    wanted = {name.strip() for name in spec.lora.targets.split(",")}
    return tuple(name for name in PROJECTIONS if name in wanted)


def adapter_parameters(shape: Shape, spec: TrainSpec) -> int:
    """Numbers that an adapter trains. Named targets count the matrices of that name."""
    sizes = dict(zip(PROJECTIONS, shape.matrices, strict=True))
    wanted = targets(spec) if spec.method != "full" else PROJECTIONS
    return shape.layers * sum(spec.lora.rank * sum(sizes[name]) for name in wanted)


@dataclass(frozen=True)
class Block:
    """Bytes of one decoder block for all tokens of a micro-batch.

    ``attention`` and ``mlp`` are what autograd saves of each half; the ``_back`` ones what its backward pass holds beside
    that. ``plain`` is the most that a pass without gradients needs.
    """

    attention: int
    mlp: int
    attention_back: int
    mlp_back: int
    plain: int

    @property
    def saved(self) -> int:
        return self.attention + self.mlp

    @property
    def work(self) -> int:
        """To compute a block again and go back through it, the MLP first: what that saved is gone when attention's turn
        comes."""
        return max(self.saved + self.mlp_back, self.attention + self.attention_back)


def block(shape: Shape, spec: TrainSpec, dequantised: int) -> Block:
    """``dequantised`` bytes are the weight that a 4-bit layer unpacks for one product. 16-bit activations: 2 bytes."""
    h, i, q, kv = shape.hidden, shape.intermediate, shape.query, shape.key
    length = spec.schedule.max_length
    texts = spec.schedule.micro_batch * sequences(spec)
    tokens = texts * length
    norm = 4 * h  # RMSNorm computes in float32 and saves that copy
    behind = norm if shape.norms > 2 else 0
    adapted = _adapted(shape, spec)
    scores = shape.heads * length
    if (
        shape.eager
    ):  # k and v for every head, capped scores and probabilities in 16 bits, softmax in float32; going back,
        # its gradient, theirs, and CUDA's product of gradient and softmax, less what the probabilities gave back
        attention, attention_back = 8 * q + 8 * scores, 10 * scores
    elif texts > 1 and not spec.schedule.packing:  # texts of unequal length: a mask, and k and v for every head
        attention, attention_back = 8 * q + 2 * length + 4 * shape.heads, 4 * q
    else:
        attention, attention_back = 4 * q + 4 * kv + 4 * shape.heads, 4 * q
    mlp_back = max(2 * i * tokens + dequantised, 4 * i * tokens)
    return Block(
        attention=tokens * (norm + behind + 2 * h + attention + adapted),
        mlp=tokens * (norm + behind + 2 * h + 8 * i),
        attention_back=tokens * (attention_back + 4 * h),
        mlp_back=mlp_back + tokens * 4 * h,
        plain=tokens * 4 * h
        + max(tokens * (10 * scores if shape.eager else 0), tokens * 8 * i, tokens * 4 * i + dequantised),
    )


def _adapted(shape: Shape, spec: TrainSpec) -> int:
    """Bytes per token that adapters save: A's output, and under dropout the input again with its mask."""
    sizes = dict(zip(PROJECTIONS, shape.matrices, strict=True))
    names = targets(spec)
    dropped = 3 * sum(sizes[name][0] for name in names) if spec.lora.dropout else 0
    return 2 * spec.lora.rank * len(names) + dropped


@dataclass(frozen=True)
class Step:
    """Bytes that one micro-batch needs at most. ``kept`` waits for its layer's turn to go back; ``loss`` is needed before the
    first of them and ``work`` after it, in the same memory."""

    kept: int
    work: int
    loss: int


def step(shape: Shape, spec: TrainSpec, dequantised: int) -> Step:
    """With checkpointing each block keeps its input alone and is computed again; without, all that it saves.

    Autocast keeps a 16-bit copy of every trained matrix until the forward pass, loss included, is over, and those that
    were saved until their gradient is there.
    """
    one = block(shape, spec, dequantised)
    tokens = spec.schedule.micro_batch * sequences(spec) * spec.schedule.max_length
    cast = 2 * (shape.linear if spec.method == "full" else adapter_parameters(shape, spec))
    mask = 4 * tokens * spec.schedule.max_length if shape.eager else 0  # full and sliding, 16 bits, once per pass
    ends = 6 * shape.hidden * tokens  # what the last norm saves, and its result
    loss = _loss(shape, tokens)
    if spec.schedule.checkpointing:
        kept = 2 * shape.layers * shape.hidden * tokens + mask + ends
        work = max(one.work, loss + cast)
        if spec.objective == "dpo":  # the reference answers while the policy's activations wait
            work = max(work, one.plain)
        return Step(kept, work, loss)
    kept = shape.layers * one.saved + cast + mask + ends
    work = max(one.mlp_back, one.attention_back - one.mlp, loss)
    return Step(kept, max(work, one.plain) if spec.objective == "dpo" else work, loss)


def _loss(shape: Shape, tokens: int) -> int:
    """A tile of logits in 16 bits, the hidden states it is made from, and their gradient in float32 and 16 bits."""
    return 2 * min(tokens, TILE_TOKENS) * min(shape.vocab, TILE_VOCAB) + 8 * shape.hidden * tokens
