"""What goes on a rater's list, in which order, and who stands left.

Covers: the skeleton of a list (overlap, repeats, same-model pairs), drawing the open places from the least-rated items,
sides. Does not cover: votes (study_votes.py), keeping the lists (study_raters.py), pages (study_serve.py).

The skeleton follows from the study's secret and the rater alone. Open places are drawn BLOCK at a time when they are
needed, so that later raters fill what earlier ones left; what was drawn stays, whatever the device.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import cycle

from compare.study import Study
from compare.study_items import Answers, Item, count_same, overlap_ids, same_pool, servable
from compare.study_raters import Book, Rater, Slot

BLOCK = 5


@dataclass(frozen=True)
class Pool:
    """Items that may be served: on two models (``main``, and of them ``overlap`` for everyone), on one (``same``)."""

    main: tuple[Item, ...]
    overlap: tuple[Item, ...]
    same: tuple[Item, ...]


@dataclass(frozen=True)
class Place:
    """A place of a skeleton: an overlap or a same-model item, an open "main" place, or a repeat of place ``origin``."""

    kind: str
    item: Item | None = None
    origin: int = -1


def pool(study: Study, answers: Answers) -> Pool:
    """Pairs with both answers there and neither giving its model away."""
    pairs = dict(zip(overlap_ids(study), cycle(study.pairs), strict=False))
    shared = [Item(prompt, *pair) for prompt, pair in pairs.items()]
    every = [Item(prompt, *pair) for prompt in study.prompt_ids for pair in study.pairs]
    kept = [tuple(item for item in items if servable(item, answers)) for items in (every, shared, same_pool(study))]
    return Pool(*kept)


def skeleton(study: Study, items: Pool, book: Book, rater: str) -> tuple[Place, ...]:
    """A rater's list with the open places. Shorter than ``list_length`` when there are too few items."""
    chance = random.Random(book.sign("list", rater))
    same = chance.sample(items.same, min(count_same(study), len(items.same)))
    repeats = round(study.repeat_share * study.list_length)
    mains = min(max(1, study.list_length - len(same) - repeats), len(items.main))
    shared = list(items.overlap)[:mains]
    base = [Place("main", item) for item in shared] + [Place("main")] * (mains - len(shared))
    base += [Place("aa", item) for item in same]
    chance.shuffle(base)
    return _with_repeats(base, repeats, study.repeat_gap, chance)


def _with_repeats(base: list[Place], repeats: int, gap: int, chance: random.Random) -> tuple[Place, ...]:
    """Repeats put in at least ``gap`` places after their origins, as many as there is room for."""
    order: list[int] = list(range(len(base)))  # >= 0: that place of base; < 0: the repeat of place -1 - n
    for _ in range(repeats):
        free = [
            at for at, n in enumerate(order)
            if n >= 0 and base[n].kind == "main" and -1 - n not in order and at + gap <= len(order)
        ]  # fmt: skip
        if not free:
            break
        origin = chance.choice(free)
        order.insert(chance.randint(origin + gap, len(order)), -1 - order[origin])
    return tuple(base[n] if n >= 0 else Place("repeat", origin=order.index(-1 - n)) for n in order)


@dataclass(frozen=True)
class Counts:
    """How often things are on lists that are, or will be, rated."""

    items: Counter[str]
    prompts: Counter[str]
    pairs: Counter[tuple[str, str]]
    lefts: Counter[str]


def counts(items: Mapping[str, Item], slots: Iterable[Slot]) -> Counts:
    """``lefts``: by item, how much more often its model_a stood left than its model_b."""
    found = Counts(Counter(), Counter(), Counter(), Counter())
    for slot in slots:
        item = items.get(slot.item_id)
        if item is None:
            continue
        found.lefts[item.id] += 1 if slot.left_is == "model_a" else -1
        if slot.kind in ("main", "aa"):
            found.items[item.id] += 1
            found.prompts[item.prompt_id] += 1
            found.pairs[(item.a, item.b)] += 1
    return found


def draw(study: Study, answers: Answers, book: Book, rater: Rater, others: Iterable[Slot]) -> tuple[Slot, ...]:
    """The rater's list with BLOCK more places drawn; ``others`` are the slots of everyone else that count."""
    items = pool(study, answers)
    plan = skeleton(study, items, book, rater.rater)
    by_id = {item.id: item for item in (*items.main, *items.same)}
    slots = list(rater.slots)
    tally = counts(by_id, [*others, *slots])
    fixed = {place.item for place in plan if place.item is not None}
    for place in plan[len(slots) : len(slots) + BLOCK]:
        if place.kind == "repeat":
            first = slots[place.origin]
            slots.append(Slot("repeat", first.item_id, "model_b" if first.left_is == "model_a" else "model_a"))
            continue
        item = place.item or _least(items.main, tally, slots, fixed, book, rater.rater)
        if item is None:
            break
        slots.append(Slot(place.kind, item.id, _side(item, tally, slots, book, rater.rater)))
        tally.items[item.id] += 1
        tally.prompts[item.prompt_id] += 1
        tally.pairs[(item.a, item.b)] += 1
        tally.lefts[item.id] += 1 if slots[-1].left_is == "model_a" else -1
    return tuple(slots)


def _least(
    items: Sequence[Item], tally: Counts, slots: Sequence[Slot], fixed: Set[Item], book: Book, rater: str
) -> Item | None:
    """The least-rated item that is not on this rater's list, best one on a prompt that they do not see otherwise."""
    had = {slot.item_id for slot in slots} | {item.id for item in fixed}
    met = {Item.of(item_id).prompt_id for item_id in had}
    free = [item for item in items if item.id not in had]

    def order(item: Item) -> tuple[object, ...]:
        return (
            item.prompt_id in met,
            tally.items[item.id],
            tally.prompts[item.prompt_id],
            tally.pairs[(item.a, item.b)],
            book.sign("order", rater, item.id),
        )

    return min(free, key=order, default=None)


def _side(item: Item, tally: Counts, slots: Sequence[Slot], book: Book, rater: str) -> str:
    """Whoever stood left less often: on this item, then on this rater's list; else by lot."""
    mine = sum(1 if slot.left_is == "model_a" else -1 for slot in slots if slot.kind != "aa")
    ahead = tally.lefts[item.id] or mine
    if ahead:
        return "model_b" if ahead > 0 else "model_a"
    return "model_a" if int(book.sign("side", rater, item.id), 16) % 2 else "model_b"
