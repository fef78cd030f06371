"""One model over several devices, on CPUs: the same tokens as whole, and nothing that mixes two devices."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from compare.decode import Decoder
from compare.decode_check import check_panes
from compare.decode_force import forced_logprobs
from compare.decode_lora import Adapter, read_adapter
from compare.decode_stages import Stage, device_map, first_device, lay_out, layer_devices, layers_of
from compare.engine import Sampling
from tests.compare.cards import Cards
from tests.compare.test_decode import GREEDY, LONG, NEVER, SHORT, VARIED, run
from tests.models import ARCHITECTURES, make_adapter, make_model

SIX = {"num_hidden_layers": 6}
KINDS = {"gemma3": SIX | {"layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2}}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Adapter]:
    return six_layers(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Adapter]:
    return six_layers(tmp_path_factory.mktemp("only"), "llama_untied")


def six_layers(root: Path, architecture: str) -> tuple[Any, Adapter]:
    from transformers import AutoModelForCausalLM

    base = make_model(root / "base", architecture, **KINDS.get(architecture, SIX))
    attention = "eager" if architecture == "gemma2" else "sdpa"
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation=attention).eval()
    return model, read_adapter(make_adapter(base, root / "adapter"), model, torch.float32)


def stages(counts: Sequence[int]) -> list[Stage]:
    return [Stage(torch.device("cpu", card), count) for card, count in enumerate(counts)]


def split(model: Any, counts: Sequence[int], adapter: Adapter, cards: Cards) -> Any:
    """A copy of ``model`` laid out over as many cards, its weights and the adapter's where they belong."""
    spread = copy.deepcopy(model)
    places = device_map(spread, stages(counts))
    for name, tensor in [*spread.named_parameters(), *spread.named_buffers()]:
        cards.put(tensor.data, card_of(name, places))
    for name, part in adapter.parts.items():
        for tensor in (part.down, part.up):
            cards.put(tensor, card_of(name, places))
    lay_out(spread, stages(counts))
    return spread


def card_of(name: str, places: Mapping[str, torch.device]) -> int:
    longest = max((place for place in places if f"{name}.".startswith(f"{place}.")), key=len)
    return int(places[longest].index)


@pytest.mark.parametrize(("counts", "sampling"), [((3, 3), VARIED), ((1, 2, 3), GREEDY), ((5, 1), VARIED)], ids=str)
def test_a_split_model_gives_the_tokens_of_the_whole_one(
    whole: tuple[Any, Adapter], counts: tuple[int, ...], sampling: Sampling
) -> None:
    model, adapter = whole
    arms = [None, adapter, None, adapter]
    prompts = {0: SHORT, 1: LONG, 2: LONG, 3: SHORT}
    cards = Cards()
    spread = split(model, counts, adapter, cards)
    with cards:
        answers = run(Decoder(spread, arms), prompts, sampling)
    assert answers == run(Decoder(model, arms), prompts, sampling)
    assert answers[0] != answers[3]
    assert cards.met == set(range(len(counts))) and cards.crossings > 0


def test_later_turns_stops_and_one_arm_alone(whole: tuple[Any, Adapter]) -> None:
    model, adapter = whole

    def talk(decoder: Decoder) -> list[dict[int, list[int]]]:
        first = run(decoder, {0: LONG, 1: LONG}, replace(VARIED, max_new_tokens=7))
        more = {row: [*LONG, *answer, 4, 3, 80, 81] for row, answer in first.items()}
        second = run(decoder, more)
        stop = second[0][4]
        third = run(decoder, more, stops={0: frozenset({stop}), 1: NEVER})
        assert len(third[0]) <= 4 and len(third[1]) == 40
        return [first, second, third, run(decoder, {1: [*more[1], *third[1], 9, 9]})]

    cards = Cards()
    spread = split(model, (2, 2, 2), adapter, cards)
    with cards:
        said = talk(Decoder(spread, [None, adapter], chunk=8))
    assert said == talk(Decoder(model, [None, adapter], chunk=8))


def test_stopping_and_an_error_on_a_later_card_leave_nothing_behind(llama: tuple[Any, Adapter]) -> None:
    model, adapter = llama
    cards = Cards()
    spread = split(model, (3, 3), adapter, cards)
    decoder = Decoder(spread, [None, adapter], chunk=8)
    prompts = {0: [*LONG, 70], 1: [*SHORT, 70]}
    with cards:
        steps = decoder.answer({0: LONG, 1: SHORT}, GREEDY, {0: NEVER, 1: NEVER})
        next(steps), next(steps)
        steps.close()
        assert run(decoder, prompts) == run(Decoder(spread, [None, adapter]), prompts)
        fault = layers_of(spread)[1][4].register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="planned"):
            run(decoder, prompts)
        fault.remove()
        assert decoder.held == [0, 0]
        again = run(decoder, prompts)
    assert again == run(Decoder(model, [None, adapter]), prompts)


def fail(*_: Any) -> None:
    raise RuntimeError("planned")


def test_proof_and_changes_are_those_of_the_whole_model(whole: tuple[Any, Adapter]) -> None:
    model, adapter = whole
    cards = Cards()
    spread = split(model, (1, 5), adapter, cards)
    with cards:
        check = check_panes(Decoder(spread, [None, adapter]), [None, adapter], LONG)
        forced = torch.cat(list(forced_logprobs(spread, [None, adapter], LONG, SHORT)), 1)
    assert check == check_panes(Decoder(model, [None, adapter]), [None, adapter], LONG)
    assert torch.equal(forced, torch.cat(list(forced_logprobs(model, [None, adapter], LONG, SHORT)), 1))


def test_cards_that_are_mixed_are_noticed(llama: tuple[Any, Adapter]) -> None:
    model, adapter = llama
    cards = Cards()
    spread = split(model, (3, 3), adapter, cards)
    layers_of(spread)[1][3]._forward_pre_hooks.clear()
    with cards, pytest.raises(RuntimeError, match="same device"):
        run(Decoder(spread, [None, adapter]), {0: SHORT, 1: SHORT})


def test_every_part_of_a_model_has_a_place(whole: tuple[Any, Adapter]) -> None:
    model, _ = whole
    places = device_map(model, stages((2, 4)))
    parts = {name for name, _ in [*model.named_parameters(), *model.named_buffers()]}
    assert all(any(f"{name}.".startswith(f"{place}.") for place in places) for name in parts)
    tied = model.config.tie_word_embeddings
    assert places["model.embed_tokens"].index == 0 and places["model.norm"].index == 1
    assert places["lm_head"].index == (0 if tied else 1)
    assert [places[f"model.layers.{n}"].index for n in range(6)] == [0, 0, 1, 1, 1, 1]
    assert layer_devices(model) == () and first_device(model) == torch.device("cpu")
    with pytest.raises(ValueError, match="6"):
        device_map(model, stages((2, 2)))
