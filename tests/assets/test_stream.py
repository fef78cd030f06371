"""Streaming ids to text: equal to decoding at once, and never half a character."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from assets.stream import TextStream, pieces
from tests.assets.templates import make

KINDS = ("llama3", "gemma")
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(make(tmp_path_factory.mktemp("stream"), request.param))


def streamed(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> list[str]:
    stream = TextStream(tokenizer)
    return [*(stream.push(token) for token in ids), stream.flush()]


@QUICK
@given(st.lists(st.integers(0, 2**31), max_size=40))
def test_any_ids_stream_to_what_decoding_gives(tokenizer: PreTrainedTokenizerFast, numbers: list[int]) -> None:
    ids = [number % len(tokenizer) for number in numbers]
    assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids, skip_special_tokens=True)


@QUICK
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_text_streams_in_whole_characters(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    parts = streamed(tokenizer, ids)
    assert "".join(parts) == tokenizer.decode(ids, skip_special_tokens=True)
    shown = pieces(tokenizer, ids)
    assert len(shown) == len(ids) and "".join(shown) == tokenizer.decode(ids)
    if "\ufffd" not in text:
        assert not any("\ufffd" in part for part in (*parts, *shown))


@QUICK
@given(st.lists(st.sampled_from("괜찮아요뷁뛟😀👍🏽 é.\n"), max_size=20))
def test_korean_and_emoji_come_back_as_written(tokenizer: PreTrainedTokenizerFast, characters: list[str]) -> None:
    text = "".join(characters)
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert "".join(streamed(tokenizer, ids)) == text == "".join(pieces(tokenizer, ids))


def test_a_syllable_is_shown_with_its_last_token(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer.encode("뷁뛟 힘", add_special_tokens=False)
    shown = pieces(tokenizer, ids)
    assert shown[:6] == ["", "", "뷁", "", "", "뛟"]


def test_byte_level_syllables_stream_one_by_one(tmp_path: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(make(tmp_path, "llama3"))
    ids = tokenizer.encode("뷁뛟", add_special_tokens=False)
    assert streamed(tokenizer, ids) == ["", "", "뷁", "", "", "뛟", ""]


def test_control_tokens_are_hidden_from_the_reader(tokenizer: PreTrainedTokenizerFast) -> None:
    special = tokenizer.convert_tokens_to_ids(tokenizer.eos_token)
    ids = tokenizer.encode("뷁", add_special_tokens=False)
    mixed = [special, ids[0], special, *ids[1:], special]
    assert "".join(streamed(tokenizer, mixed)) == "뷁"


def test_an_answer_cut_in_the_middle_ends_as_the_tokenizer_says(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer.encode("힘뷁", add_special_tokens=False)[:-1]
    parts = streamed(tokenizer, ids)
    assert "".join(parts[:-1]) == "힘"
    assert parts[-1] and set(parts[-1]) == {"\ufffd"}
