"""How many bytes a run takes, per GPU and on the host, before anything is loaded.

Covers: an estimate part by part from the model's shape, for one process, data parallel copies and FSDP2 shards, and how
far it may be off. Does not cover: counting activations (memory_activations.py), measured peaks (the run record has those;
tests/finetune/measured_peaks.json those this estimate is held against).
"""

from __future__ import annotations

from dataclasses import dataclass

from finetune.memory_activations import adapter_parameters, sequences, step
from finetune.memory_shape import Shape
from finetune.spec import TrainSpec

__all__ = ["EACH", "GIB", "Estimate", "Shape", "adapter_parameters", "estimate", "on_cpu", "sequences"]

GIB = 2**30
EACH = int(1.5 * GIB)  # host memory of a process with torch and CUDA in it
CONTEXT, RANK = int(0.75 * GIB), int(0.36 * GIB)  # CUDA with its libraries, NCCL's buffers: outside of PyTorch's count
PROGRAM, CAST, UNFOLDED, SLACK_CPU = int(0.6 * GIB), 1.25, 13, 0.4  # the same for a process without a GPU
SPREAD = 0.15
SLACK = 0.03  # of what is allocated: freed blocks that nothing fits into
BUCKET = 250 * 10**6  # of data parallel's first broadcast
CONSTANTS = 0.127 / 8  # bytes per weight: absmax per 64 in 8 bits, theirs per 256 in 32
WEIGHT = {"qlora": 0.5, "qlora8": 1.0, "lora": 2.0, "full": 4.0}
"""Method -> bytes of a weight of a linear layer. What is trained whole is trained in float32."""


@dataclass(frozen=True)
class Estimate:
    """Bytes per part for one GPU, and for the host. The peak should lie between ``low`` and ``high``. ``outside`` of it is
    what PyTorch does not count: contexts."""

    parts: dict[str, int]
    host_parts: dict[str, int]
    outside: int = 0

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    @property
    def reserved(self) -> int:
        """What PyTorch counts of it as reserved."""
        return self.total - self.outside

    @property
    def allocated(self) -> int:
        return self.reserved - self.parts["slack"]

    @property
    def low(self) -> int:
        return self.total - int(SPREAD * self.reserved)

    @property
    def high(self) -> int:
        return self.total + int(SPREAD * self.reserved)

    @property
    def host(self) -> int:
        return sum(self.host_parts.values())

    @property
    def mapped(self) -> int:
        """Bytes of the host's that are pages of a file, which the system can drop and read again."""
        return self.host_parts.get("mapped", 0)


@dataclass(frozen=True)
class Placed:
    """One of ``ranks`` processes, ``here`` of which are on this machine; ``sharded`` means FSDP2 full shard."""

    ranks: int
    sharded: bool
    offload: bool
    here: int

    @property
    def split(self) -> int:
        return self.ranks if self.sharded else 1


def estimate(shape: Shape, spec: TrainSpec, ranks: int = 1, sharded: bool = False, here: int | None = None) -> Estimate:
    """Bytes for one of ``ranks`` processes, ``here`` of which share this machine's memory (None: all); ``sharded`` means
    FSDP2 full shard, where embeddings and head stay whole and layers are gathered one ahead."""
    placed = Placed(ranks, sharded, sharded and spec.hardware.offload, ranks if here is None else here)
    parts = _model(shape, spec, placed) | _states(shape, spec, placed) | _step(shape, spec)
    parts["buffers"] += _gathered(shape, spec, placed)
    if spec.objective != "sft" and spec.start:  # the reference is a frozen copy of the adapter it began with
        parts["reference"] = 4 * adapter_parameters(shape, spec) // placed.split
    parts["slack"] = _slack(shape, spec, placed, parts)
    parts["overhead"] = CONTEXT + (RANK if ranks > 1 else 0)
    return Estimate(parts, _host(shape, spec, placed), parts["overhead"])


def _model(shape: Shape, spec: TrainSpec, placed: Placed) -> dict[str, int]:
    """Embeddings and head stay whole on every GPU unless they are trained."""
    whole = spec.method == "full"
    embeddings = 4 * shape.embedding // placed.split if whole else 2 * shape.embedding
    return {
        "weights": 0 if placed.offload else int(shape.linear * WEIGHT[spec.method] / placed.split),
        "constants": int(shape.linear * CONSTANTS) if spec.method == "qlora" else 0,
        "embeddings": embeddings,
    }


def _states(shape: Shape, spec: TrainSpec, placed: Placed) -> dict[str, int]:
    """Trained numbers, their gradients and AdamW's two moments, all in float32. Data parallel sends gradients in buckets of
    its own, as large as they are."""
    trained = shape.parameters if spec.method == "full" else adapter_parameters(shape, spec)
    share = 0 if placed.offload else trained // placed.split
    copies = 2 if placed.ranks > 1 and not placed.sharded else 1
    return {
        "lora": 4 * share if spec.method != "full" else 0,
        "gradients": 4 * share * copies,
        "optimizer": 8 * share,
    }


def _step(shape: Shape, spec: TrainSpec) -> dict[str, int]:
    """The loss is over before the first block goes back, so that only what the blocks need beyond it adds to the peak."""
    unpacked = _unpacked(shape, spec)
    steps = step(shape, spec, unpacked)
    beyond = max(0, steps.work - steps.loss)
    buffers = min(unpacked, beyond)
    return {"activations": steps.kept + beyond - buffers, "buffers": buffers, "loss": steps.loss}


def _unpacked(shape: Shape, spec: TrainSpec) -> int:
    """Bytes of the weight that a quantised layer unpacks for one product, in 16 bits; 8-bit products keep their parts beside
    it. DoRA builds the whole matrix with its update again in float32."""
    per_weight = {"qlora": 2, "qlora8": 3}.get(spec.method, 0)
    return (per_weight + (12 if spec.lora.dora and spec.method != "full" else 0)) * shape.widest


def _gathered(shape: Shape, spec: TrainSpec, placed: Placed) -> int:
    """FSDP2 gathers a layer into one buffer, copies it out into its parameters, and begins with the next one meanwhile. Under
    offload the shards of the next one are on their way to the GPU."""
    if not placed.sharded:
        return 0
    layer = shape.linear // shape.layers
    if spec.method == "full":  # and its gradients
        return 12 * layer + 4 * shape.embedding
    size = layer * WEIGHT[spec.method] + 4 * adapter_parameters(shape, spec) // shape.layers
    return int(size * (2.5 + (1 / placed.ranks if placed.offload else 0)))


def _slack(shape: Shape, spec: TrainSpec, placed: Placed, parts: dict[str, int]) -> int:
    """What PyTorch reserves and does not use at the peak.

    FSDP2 gathers on streams of its own, whose freed blocks serve no other: as measured, about two and a half layers, and four
    where whole layers were on the GPU before they were sharded. Before its first step data parallel sends every weight once,
    two buckets at a time, and a tensor larger than a bucket is one by itself.
    """
    allocated = sum(parts.values())
    slack = int(SLACK * allocated)
    if placed.sharded:
        return slack + int(shape.linear // shape.layers * WEIGHT[spec.method] * (2.5 if placed.offload else 4))
    if placed.ranks > 1:
        table = max(BUCKET, (4 if spec.method == "full" else 2) * shape.vocab * shape.hidden)
        ready = sum(parts[name] for name in ("weights", "constants", "embeddings", "lora")) + parts["gradients"] // 2
        slack = max(slack, ready + table + (BUCKET if shape.tied else table) - allocated)
    return slack


def _host(shape: Shape, spec: TrainSpec, placed: Placed) -> dict[str, int]:
    """Ranks that shard map one file in 4 bits, so its pages are there once; 16-bit weights are read by each rank. Where
    weights are offloaded, each rank's pinned share takes the place of those pages, and what is trained is there too."""
    quantised = spec.method == "qlora"
    whole = int(shape.linear * (0.516 if quantised else 2)) + 2 * shape.embedding
    read = 0 if quantised or not placed.sharded else whole * placed.here * (2 if spec.method == "full" else 1)
    parts = {"mapped": 0 if read else whole, "read": read, "processes": placed.here * EACH}
    if placed.offload:
        pinned = int(shape.linear * (0.5 if quantised else 2)) * placed.here // placed.ranks
        trained = 16 * adapter_parameters(shape, spec) * placed.here // placed.ranks
        parts |= {key: max(0, parts[key] - pinned) for key in ("mapped", "read")} | {
            "pinned": pinned,
            "trained": trained,
        }
    return parts


def on_cpu(shape: Shape, spec: TrainSpec) -> Estimate:
    """The same when there is no GPU: everything is host memory, the checkpoint's mapped pages too. Adapters keep casts of their
    inputs, without Triton the loss unfolds each tile in float32 several times, and the C library's allocator gives little
    back. Rougher than on a GPU: held against two runs only."""
    parts = dict(estimate(shape, spec).parts)
    parts["activations"] = int(CAST * parts["activations"])
    parts["loss"] *= UNFOLDED
    parts["slack"] = int(SLACK_CPU * (sum(parts.values()) - parts["slack"] - parts["overhead"]))
    parts["overhead"] = PROGRAM + 2 * shape.parameters
    return Estimate(parts, dict(parts))
