"""Which layers of which model go to which card, planned before anything is loaded.

Covers: one card if it holds everything, else as few cards as hold all models whole, else a chain of layers over them;
bytes per card. Sizes come from shapes (footprint.py) or from a checkpoint's headers (local_engine_sizes.py). Does not
cover: moving anything (decode_stages.py), who holds a card (assets/leases.py). Not measured on several cards: the bytes
are an estimate, and so is the share that is kept free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

RESERVE = 600 * 2**20  # of every card that is used: libraries, work space, what a step computes
_ROUNDS = 40


@dataclass(frozen=True)
class Sizes:
    """Bytes of one model: ``first`` goes before the layers (embedding, a head tied to it), ``layers`` each with its share
    of adapters and conversations, ``last`` after them (norm, head)."""

    first: float
    layers: tuple[float, ...]
    last: float

    @property
    def total(self) -> float:
        return self.first + sum(self.layers) + self.last


@dataclass(frozen=True)
class Part:
    """``layers`` consecutive layers of a model on ``card``, an index into the cards given; all that is there of it."""

    card: int
    layers: int
    bytes: int


Layout = tuple[Part, ...]


def spread(models: Sequence[Sizes], free: Sequence[int]) -> tuple[Layout, ...] | None:
    """A layout per model, its parts in the order of the layers; None when all cards together are too small.

    ``free``: bytes per card. The emptiest cards are taken, as few as will do. A model stays whole where it can, since
    a step is faster on one card.
    """
    by_room = sorted(range(len(free)), key=lambda card: -free[card])
    for count in range(1, len(free) + 1):
        chosen = sorted(by_room[:count])
        found = _whole(models, free, chosen) or (chain(models, free, chosen) if count > 1 else None)
        if found is not None:
            return found
    return None


def per_card(layouts: Sequence[Layout]) -> dict[int, int]:
    """Bytes by card, with what is kept free there."""
    held: dict[int, int] = {}
    for part in (part for layout in layouts for part in layout):
        held[part.card] = held.get(part.card, RESERVE) + part.bytes
    return dict(sorted(held.items()))


def _whole(models: Sequence[Sizes], free: Sequence[int], cards: Sequence[int]) -> tuple[Layout, ...] | None:
    """Every model on one card, the largest first, each to the card with the most room left."""
    room = {card: free[card] - RESERVE for card in cards}
    found: dict[int, Layout] = {}
    for number in sorted(range(len(models)), key=lambda n: -models[n].total):
        card = max(cards, key=lambda c: room[c])
        needed = models[number].total
        if needed > room[card]:
            return None
        room[card] -= int(needed)
        found[number] = (Part(card, len(models[number].layers), int(needed)),)
    return tuple(found[number] for number in range(len(models)))


def chain(models: Sequence[Sizes], free: Sequence[int], cards: Sequence[int]) -> tuple[Layout, ...] | None:
    """One model after the other over ``cards``, filled to the same share of their room, as small as it can be."""
    low, high = 0.0, 1.0
    best = _filled(models, [free[card] * high - RESERVE for card in cards], cards)
    for _ in range(_ROUNDS if best else 0):
        share = (low + high) / 2
        found = _filled(models, [free[card] * share - RESERVE for card in cards], cards)
        low, high = (share, high) if found is None else (low, share)
        best = found or best
    return best


def _filled(models: Sequence[Sizes], room: Sequence[float], cards: Sequence[int]) -> tuple[Layout, ...] | None:
    left, place = list(room), 0
    layouts = []
    for model in models:
        parts: list[Part] = []
        count, held = 0, 0.0
        for number, layer in enumerate(model.layers):
            ends = (model.first if number == 0 else 0) + (model.last if number + 1 == len(model.layers) else 0)
            needed = layer + ends
            while place < len(left) and needed > left[place]:
                if count:
                    parts.append(Part(cards[place], count, int(held)))
                    count, held = 0, 0.0
                place += 1
            if place == len(left):
                return None
            left[place] -= needed
            count, held = count + 1, held + needed
        layouts.append((*parts, Part(cards[place], count, int(held))))
    return tuple(layouts)
