"""How many bytes a run takes, per GPU and on the host, before anything is loaded.

Covers: an estimate part by part from the model's shape. Does not cover: measured peaks (the run record has those). The
formulas count what transformers, peft, bitsandbytes and TRL's fused head keep alive; expect about ±25 %. Learning from
preferences adds the second text of a pair and the pass of the reference, with a frozen copy of the adapter it began with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from finetune.spec import TrainSpec

GIB = 2**30
BLOCK = 64  # NF4 block; its second-level block is 256
EACH = 2 * GIB  # host memory of a process with torch and CUDA in it


@dataclass(frozen=True)
class Shape:
    """The numbers of a decoder-only transformer that memory depends on."""

    hidden: int
    layers: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Shape:
        """From a config.json; the text part of a multimodal one. KeyError if it is not a decoder of the usual kind."""
        config = config.get("text_config", config)
        heads = config["num_attention_heads"]
        return cls(
            hidden=config["hidden_size"],
            layers=config["num_hidden_layers"],
            intermediate=config["intermediate_size"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            vocab=config["vocab_size"],
            tied=config.get("tie_word_embeddings", True),
        )

    @property
    def matrices(self) -> tuple[tuple[int, int], ...]:
        """(in, out) of the linear layers of one block: q, k, v, o, gate, up, down."""
        q, kv, h, i = self.heads * self.head_dim, self.kv_heads * self.head_dim, self.hidden, self.intermediate
        return ((h, q), (h, kv), (h, kv), (q, h), (h, i), (h, i), (i, h))

    @property
    def linear(self) -> int:
        """Parameters in the blocks' linear layers, the ones that are quantised."""
        return self.layers * sum(a * b for a, b in self.matrices)

    @property
    def embedding(self) -> int:
        return self.vocab * self.hidden * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        return self.linear + self.embedding + self.hidden * (2 * self.layers + 1)


@dataclass(frozen=True)
class Estimate:
    """Bytes per part for one GPU, and for the host while loading. The peak should lie between ``low`` and ``high``."""

    parts: dict[str, int]
    host: int

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    @property
    def low(self) -> int:
        return int(self.total * 0.85)

    @property
    def high(self) -> int:
        return int(self.total * 1.25)


def adapter_parameters(shape: Shape, spec: TrainSpec) -> int:
    """Numbers that are trained. Named targets count the matrices of that name."""
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    wanted = names if spec.lora.targets == "all-linear" else tuple(t.strip() for t in spec.lora.targets.split(","))
    return shape.layers * sum(
        spec.lora.rank * (a + b) for n, (a, b) in zip(names, shape.matrices, strict=True) if n in wanted
    )


def sequences(spec: TrainSpec) -> int:
    """Texts that pass through the model together for one row: a preference pair is two."""
    return 2 if spec.objective == "dpo" else 1


def estimate(shape: Shape, spec: TrainSpec, ranks: int = 1, sharded: bool = False, here: int | None = None) -> Estimate:
    """Bytes for one of ``ranks`` processes, ``here`` of which share this machine's memory (None: all); ``sharded`` means
    FSDP2 full shard, where embeddings and head stay whole and layers are gathered one ahead."""
    split = ranks if sharded else 1
    tokens = spec.schedule.micro_batch * spec.schedule.max_length * sequences(spec)
    quantised = spec.method == "qlora"
    trained = adapter_parameters(shape, spec)
    widest = max(a * b for a, b in shape.matrices)
    layer = shape.linear // shape.layers
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    working = tokens * (8 * shape.hidden + 4 * shape.intermediate + 2 * (q + 2 * kv)) * 2
    kept = 2 * shape.layers * tokens * shape.hidden if spec.schedule.checkpointing else working * shape.layers
    offloaded = sharded and spec.hardware.offload
    logits = min(tokens, 4096) * min(shape.vocab, 32768) * 4 * 2
    parts = {
        "weights": 0 if offloaded else int(shape.linear * (0.5 if quantised else 2) / split),
        "constants": int(shape.linear * 0.127 / 8) if quantised else 0,
        "embeddings": 2 * shape.embedding,
        "lora": 0 if offloaded else 4 * trained // split,
        "gradients": 0 if offloaded else 4 * trained // split,
        "optimizer": 0 if offloaded else 8 * trained // split,
        "activations": kept + working,
        "buffers": (3 * int(layer * (0.5 if quantised else 2)) if sharded else 0) + (2 * widest if quantised else 0),
        "loss": logits,
        "overhead": int((1.2 if ranks > 1 else 0.7) * GIB),
    }
    if spec.objective != "sft":  # its pass runs while what the policy's keeps for its gradients is still there
        parts["reference"] = working + logits + (4 * trained // split if spec.start else 0)
    return Estimate(parts, host=_host(shape, spec, ranks, sharded, ranks if here is None else here))


def _host(shape: Shape, spec: TrainSpec, ranks: int, sharded: bool, here: int) -> int:
    """Ranks that shard map one file in 4 bits, so its pages are there once; 16-bit weights are read by each rank. Where
    weights are offloaded, each rank's pinned share takes the place of those pages, and what is trained is there too."""
    quantised = spec.method == "qlora"
    copy = int(shape.linear * (0.516 if quantised else 2)) + 2 * shape.embedding
    copies = here if sharded and not quantised else 1
    if not (sharded and spec.hardware.offload):
        return copy * copies + here * EACH
    pinned = int(shape.linear * (0.5 if quantised else 2)) * here // ranks
    return max(copy * copies, pinned) + 16 * adapter_parameters(shape, spec) * here // ranks + here * EACH


def on_cpu(shape: Shape, spec: TrainSpec) -> Estimate:
    """The same when there is no GPU: everything is host memory, full attention logits included."""
    parts = dict(estimate(shape, spec).parts)
    parts["overhead"] = GIB
    total = sum(parts.values())
    return Estimate(parts, host=total)
