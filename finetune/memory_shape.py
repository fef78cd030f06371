"""The numbers of a model that memory depends on.

Covers: reading them from a config or from the catalogue's entry, counting parameters. Does not cover: bytes (memory.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SANDWICHED = ("gemma2", "gemma3", "gemma3_text")  # a norm behind attention and MLP, too


@dataclass(frozen=True)
class Shape:
    """A decoder-only transformer. ``norms`` per block; ``eager``: attention scores are kept whole (assets/attention.py)."""

    hidden: int
    layers: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool
    norms: int = 2
    eager: bool = False

    @classmethod
    def of(cls, numbers: Mapping[str, Any], model_type: str) -> Shape:
        """From the first eight fields and the architecture's name in transformers."""
        eager = model_type == "gemma2" or numbers["kv_heads"] == 1
        return cls(**numbers, norms=4 if model_type in SANDWICHED else 2, eager=eager)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Shape:
        """From a config.json; the text part of a multimodal one. KeyError if it is not a decoder of the usual kind."""
        config = config.get("text_config", config)
        heads = config["num_attention_heads"]
        numbers = {
            "hidden": config["hidden_size"],
            "layers": config["num_hidden_layers"],
            "intermediate": config["intermediate_size"],
            "heads": heads,
            "kv_heads": config.get("num_key_value_heads") or heads,
            "head_dim": config.get("head_dim") or config["hidden_size"] // heads,
            "vocab": config["vocab_size"],
            "tied": config.get("tie_word_embeddings", True),
        }
        return cls.of(numbers, config.get("model_type", ""))

    @property
    def query(self) -> int:
        """Width of all heads' queries."""
        return self.heads * self.head_dim

    @property
    def key(self) -> int:
        """Width of all heads' keys, and of their values."""
        return self.kv_heads * self.head_dim

    @property
    def matrices(self) -> tuple[tuple[int, int], ...]:
        """(in, out) of the linear layers of one block, in the order of PROJECTIONS."""
        q, kv, h, i = self.query, self.key, self.hidden, self.intermediate
        return ((h, q), (h, kv), (h, kv), (q, h), (h, i), (h, i), (i, h))

    @property
    def widest(self) -> int:
        """Parameters of the largest linear layer."""
        return max(a * b for a, b in self.matrices)

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
