from __future__ import annotations

import pytest

from assets.catalog import find_model
from compare.footprint import fit, sizes
from compare.spread import RESERVE, Part, Sizes, chain, per_card, spread

GIB = 2**30


def model(layers: int, each: float, first: float = 0.0, last: float = 0.0) -> Sizes:
    return Sizes(first * GIB, (each * GIB,) * layers, last * GIB)


def room(*gib: float) -> list[int]:
    return [int(each * GIB) + RESERVE for each in gib]


def test_one_card_is_enough_where_it_is() -> None:
    assert spread([model(10, 1)], room(9, 10, 12)) == ((Part(2, 10, 10 * GIB),),)


def test_layers_are_dealt_out_in_order_and_cards_filled_alike() -> None:
    found = spread([model(10, 1, first=2)], room(8, 8, 8))
    assert found is not None
    (parts,) = found
    assert [part.card for part in parts] == [0, 1] and [part.layers for part in parts] == [4, 6]
    assert sum(part.bytes for part in parts) == 12 * GIB


def test_unlike_cards_get_unlike_shares() -> None:
    found = spread([model(30, 1)], room(24, 12))
    assert found is not None and [part.layers for part in found[0]] in ([20, 10], [19, 11])


@pytest.mark.parametrize("free", [(8, 8), (3, 3, 3), (15,)])
def test_no_card_gets_more_than_it_has(free: tuple[float, ...]) -> None:
    found = spread([model(16, 0.9, 0.5, 0.5)], room(*free))
    if found is None:
        assert sum(free) < 16 * 0.9 + 1 or len(free) == 1
        return
    held = per_card(found)
    assert all(held[card] <= room(*free)[card] for card in held)
    assert sum(part.layers for part in found[0]) == 16


def test_two_models_stay_whole_where_they_can() -> None:
    assert spread([model(4, 1), model(8, 1)], room(9, 5)) == ((Part(1, 4, 4 * GIB),), (Part(0, 8, 8 * GIB),))
    shared = spread([model(8, 1), model(8, 1)], room(6, 6, 6))
    assert shared is not None and [part.card for part in shared[0]] + [part.card for part in shared[1]] == [0, 1, 1, 2]


def test_a_layer_that_fits_nowhere() -> None:
    assert spread([model(2, 5)], room(4, 4, 4)) is None and chain([model(2, 5)], room(4, 4), [0, 1]) is None
    assert spread([model(2, 1)], []) is None


def test_a_70b_in_four_bits_on_cards_of_24_gb() -> None:
    card = find_model("meta-llama/Meta-Llama-3-70B-Instruct")
    assert card is not None
    assert 36 * GIB < sizes(card.shape, 2, 0).total < 48 * GIB
    free = int(23.3 * GIB)
    one = fit([(card.shape, 2)], 200 * 2**20, free, [(0, free)])
    assert not one.fits and not one.in_turn
    some = fit([(card.shape, 2)], 200 * 2**20, free, [(0, free), (2, free), (3, free)])
    assert some.fits and {number for number, _ in some.cards} <= {0, 2, 3} and 2 <= len(some.cards) <= 3
    assert all(held <= free for _, held in some.cards) and some.split


def test_two_models_with_a_card_each_are_not_split() -> None:
    card = find_model("google/gemma-2-9b-it")
    assert card is not None
    free = 10 * GIB
    found = fit([(card.shape, 1), (card.shape, 1)], 0, free, [(0, free), (1, free)])
    assert found.fits and [number for number, _ in found.cards] == [0, 1] and not found.split


def test_two_bases_of_which_each_needs_both_cards_answer_in_turn() -> None:
    card = find_model("meta-llama/Meta-Llama-3-70B-Instruct")
    assert card is not None
    free = 26 * GIB
    found = fit([(card.shape, 1), (card.shape, 1)], 0, free, [(0, free), (1, free)])
    assert not found.fits and found.in_turn
