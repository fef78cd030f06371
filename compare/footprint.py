"""How much memory a pair will take, before anything is loaded, and on how many cards.

Covers: an estimate from the shapes in the catalogue or in a config.json on this disk. Does not cover: measured memory
(Loaded has it), models whose config is not here yet and which the catalogue does not know, layers by card (spread.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from compare.spread import RESERVE, Sizes, per_card, spread

NF4 = 0.53
WIDE_NF4 = 0.565  # with the scales in float32 that our kernels read: what is planned with where cards are full
TOKENS = 4096


@dataclass(frozen=True)
class Footprint:
    """Bytes. ``weights`` are all bases in 4-bit with their embeddings in 16-bit, ``adapters`` what was tuned."""

    weights: int
    adapters: int
    cache: int

    @property
    def total(self) -> int:
        return self.weights + self.adapters + self.cache + RESERVE


@dataclass(frozen=True)
class Fit:
    """Bytes: what all bases take together, what the largest of them takes alone, what is free on the emptiest card.

    ``cards``: bytes by number of card where all bases go on several; ``each``: every base fits on several when alone;
    ``split``: a base's layers lie on more than one of them; ``later``: how many cards will do once the jobs that hold
    some are over.
    """

    together: int
    alone: int
    free: int
    bases: int = 1
    cards: tuple[tuple[int, int], ...] = ()
    each: bool = False
    later: int = 0
    split: bool = False

    @property
    def wanted(self) -> int:
        """How many cards to wait for."""
        return max(1, len(self.cards), self.later)

    @property
    def fits(self) -> bool:
        return self.together <= self.free or bool(self.cards)

    @property
    def in_turn(self) -> bool:
        """Whether answering one after the other is the way: both are too large together, and each fits alone."""
        return not self.fits and self.bases > 1 and (self.alone <= self.free or self.each)


def shape_from(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Sizes of a text decoder from its config.json; None when some are missing."""
    sizes = config.get("text_config") or config
    if any(name not in sizes for name in ("num_attention_heads", "hidden_size", "num_hidden_layers", "vocab_size")):
        return None
    heads, hidden = sizes["num_attention_heads"], sizes["hidden_size"]
    return {
        "hidden": hidden,
        "layers": sizes["num_hidden_layers"],
        "intermediate": sizes.get("intermediate_size") or 4 * hidden,
        "heads": heads,
        "kv_heads": sizes.get("num_key_value_heads") or heads,
        "head_dim": sizes.get("head_dim") or hidden // heads,
        "vocab": sizes["vocab_size"],
        "tied": sizes.get("tie_word_embeddings", True),
    }


def _block(shape: Mapping[str, Any]) -> int:
    """Weights of one layer's matrices."""
    q, kv = shape["heads"] * shape["head_dim"], shape["kv_heads"] * shape["head_dim"]
    return int(shape["hidden"] * (2 * q + 2 * kv + 3 * shape["intermediate"]))


def _embedding(shape: Mapping[str, Any]) -> int:
    return int(shape["vocab"] * shape["hidden"] * 2)


def weights(shape: Mapping[str, Any]) -> int:
    """Bytes of one base: matrices of the blocks in NF4, embedding and head at two bytes each."""
    return int(shape["layers"] * _block(shape) * NF4 + _embedding(shape) * (1 if shape["tied"] else 2))


def cache_per_layer(shape: Mapping[str, Any], rows: int) -> int:
    """Bytes of keys and values of one layer for ``rows`` conversations of TOKENS tokens."""
    return int(rows * TOKENS * shape["kv_heads"] * shape["head_dim"] * 2 * 2)


def cache(shape: Mapping[str, Any], rows: int) -> int:
    return int(shape["layers"]) * cache_per_layer(shape, rows)


def sizes(shape: Mapping[str, Any], rows: int, adapters: int) -> Sizes:
    """Layer by layer, for a model that may be spread over cards; ``adapters`` bytes are dealt out over the layers."""
    layer = _block(shape) * WIDE_NF4 + cache_per_layer(shape, rows) + adapters / shape["layers"]
    return Sizes(_embedding(shape), (layer,) * shape["layers"], 0.0 if shape["tied"] else _embedding(shape))


def footprint(shapes: Iterable[tuple[Mapping[str, Any], int]], adapters: int) -> Footprint:
    """``shapes`` are the distinct bases with the number of sides each answers for; ``adapters`` bytes on disk."""
    known = list(shapes)
    return Footprint(sum(weights(s) for s, _ in known), adapters, sum(cache(s, rows) for s, rows in known))


def fit(
    shapes: Iterable[tuple[Mapping[str, Any], int]], adapters: int, free: int, cards: Sequence[tuple[int, int]] = ()
) -> Fit:
    """Whether the bases fit into ``free`` bytes, together or one at a time, else over several ``cards``.

    ``cards``: number and free bytes of every card that may be taken.
    """
    known = list(shapes)
    each = [footprint([base], adapters).total for base in known]
    found = Fit(footprint(known, adapters).total, max(each, default=0), free, len(known))
    if found.fits or len(cards) < 2:
        return found
    models = [sizes(shape, rows, adapters) for shape, rows in known]
    room = [left for _, left in cards]
    layouts = spread(models, room)
    if layouts is None:
        return replace(found, each=all(spread([model], room) for model in models))
    held = tuple((cards[place][0], size) for place, size in per_card(layouts).items())
    return replace(found, cards=held, split=any(len(layout) > 1 for layout in layouts))
