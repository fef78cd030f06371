"""The catalogue: facts that hang together, ids that are found, sentences for everything shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from assets.catalog import ROOT, STARTER, ModelCard, datasets, find_model, models, prompts, read_dialogues
from assets.words import LANGUAGES, Words
from tests.assets.templates import KINDS

IDS = [card.id for card in models()]


def size(card: ModelCard) -> int:
    """Parameters from the shape: embedding, head, projections, feed-forward and norms of each layer."""
    shape = card.shape
    queries, keys = shape["heads"] * shape["head_dim"], shape["kv_heads"] * shape["head_dim"]
    norms = {"llama": 2, "gemma2": 4, "gemma3": 4}[card.model_type] * shape["hidden"]
    layer = shape["hidden"] * (2 * queries + 2 * keys + 3 * shape["intermediate"]) + norms
    layer += 2 * shape["head_dim"] if card.model_type == "gemma3" else 0
    tables = 1 if shape["tied"] else 2
    return tables * shape["vocab"] * shape["hidden"] + shape["layers"] * layer + shape["hidden"]


@pytest.mark.parametrize("card", models(), ids=IDS)
def test_parameters_follow_from_the_shape(card: ModelCard) -> None:
    assert card.parameters == size(card)


@pytest.mark.parametrize("card", models(), ids=IDS)
def test_template_facts_agree_with_the_template(card: ModelCard) -> None:
    special, _, eos, end = KINDS[card.template]
    assert {eos, end} <= set(card.stop_tokens) <= set(special)
    assert card.system_role is (card.template != "gemma")
    assert (card.date is not None) is (card.template == "llama3_1")


def test_the_models_asked_for_are_there() -> None:
    assert IDS[0] == STARTER
    assert len(IDS) == len(set(IDS)) == 12


def test_no_name_means_two_models() -> None:
    names = [name.lower() for card in models() for name in (card.id, *card.mirrors, *card.suggested_for)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (STARTER, STARTER),
        ("google/Gemma-2-9B-it", "google/gemma-2-9b-it"),
        (" unsloth/gemma-2-2b-it-bnb-4bit", "google/gemma-2-2b-it"),
        ("unsloth/meta-llama-3.1-8b-instruct-bnb-4bit", "meta-llama/Llama-3.1-8B-Instruct"),
        ("hugging-quants/Meta-Llama-3.1-8B-Instruct-BNB-NF4", "meta-llama/Llama-3.1-8B-Instruct"),
        ("KISTI-KONI/KONI-Llama3.1-70B-Instruct", "KISTI-KONI/KONI-Llama3.1-70B-Instruct-20241115"),
    ],
)
def test_a_model_is_found_by_every_name(asked: str, found: str) -> None:
    card = find_model(asked)
    assert card is not None and card.id == found


def test_an_unknown_model_is_none() -> None:
    assert find_model("someone/else") is None
    assert find_model("hugging-quants/Meta-Llama-3.1-8B-BNB-NF4-BF16") is None  # a base model, not the instruct one


def test_known_traps_are_written_down() -> None:
    for card in models():
        if card.model_type == "gemma2":
            assert "sdpa" not in card.attention and card.dtypes == ("bfloat16",) and not card.system_role
    koni = find_model("KISTI-KONI/KONI-4B-instruct-20250901")
    assert koni is not None and koni.model_type == "gemma3"
    assert (koni.family, koni.load_class) == ("Gemma3ForConditionalGeneration", "Gemma3ForCausalLM")
    llama = find_model("meta-llama/Llama-3.1-8B-Instruct")
    assert llama is not None and llama.date == "26 Jul 2024" and llama.load_class == llama.family


@pytest.mark.parametrize("language", LANGUAGES)
def test_everything_shown_has_words(language: str) -> None:
    words = Words(language)
    for card in models():
        assert all(key in words for key in (card.about, *card.notes, f"catalog.licence.{card.licence}"))
    for data in datasets():
        keys = (data.title, data.about, f"catalog.domain.{data.domain}", f"catalog.licence.{data.licence}")
        assert all(key in words for key in keys)


@pytest.mark.parametrize("area", ["chat", "catalog"])
def test_both_languages_say_the_same(area: str) -> None:
    korean, english = (Words(language) for language in LANGUAGES)
    keys = [{key for key in words.keys() if key.startswith(f"{area}.")} for words in (korean, english)]  # noqa: SIM118
    assert keys[0] == keys[1]
    values = {name: name.upper() for name in ("folder", "reason", "role", "turn")}
    for key in keys[0]:
        used = [{name for name, mark in values.items() if mark in words(key, **values)} for words in (korean, english)]
        assert used[0] == used[1], key


def test_datasets() -> None:
    cards = {card.id: card for card in datasets()}
    assert list(cards) == ["naranhi/emotion-ko", "naranhi/science-ko", "HuggingFaceH4/no_robots"]
    for card in cards.values():
        if card.kind == "builtin":
            assert card.file and card.heldout and card.file.parent == ROOT / "data"
    hub = cards["HuggingFaceH4/no_robots"]
    assert hub.splits == ("train", "test") and hub.mapping and hub.mapping["shape"] == "messages" and hub.file is None


@pytest.mark.parametrize("domain", ["emotion", "science"])
def test_prompts_end_with_a_question(domain: str) -> None:
    found = prompts(domain)
    assert found and len({prompt.id for prompt in found}) == len(found)
    for prompt in found:
        assert prompt.domain == domain and prompt.tags
        roles = [message["role"] for message in prompt.messages]
        assert roles == ["user", *["assistant", "user"] * (len(roles) // 2)]
        assert (prompt.reference is not None) is (domain == "science")


def test_dialogues_are_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": "a", "messages": []}\n\n{"id": "b", "messages": []}', encoding="utf-8")
    assert [row["id"] for row in read_dialogues(path)] == ["a", "b"]
