"""What votes say of one adapter."""

from __future__ import annotations

from pathlib import Path

import pytest

from assets.words import LANGUAGES, Words
from compare.ratings import RatingsFile
from compare.verdict import verdict
from tests.compare.rating_files import vote

SHA = "5f2c9d11" + "0" * 56


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_sentences_of_an_adapter(tmp_path: Path, language: str) -> None:
    file = RatingsFile(tmp_path / "ratings.csv")
    words = Words(language)
    assert verdict(file, SHA, words) == []
    record = {"model_a": {}, "model_b": {"adapter_sha256": SHA}}
    file.append(
        *(
            vote(
                f"r{n}", winner="model_a" if n % 5 == 0 else "model_b", model_a="base", model_b="run@5f2c9d11",
                blind=True, rater=f"p{n % 7}", prompt_id=f"q{n % 20}", domain="emotion", provenance=record,
                left_is="model_a" if n % 2 else "model_b", created_at="2026-11-25T12:00:00.000Z",
            )
            for n in range(100)
        )
    )  # fmt: skip
    said = verdict(file, SHA, words)
    assert said[0] == "base · run" and "80%" in said[1] and "run" in said[1]
    assert "80" in said[2] and words("ratings.who.tuned") in said[2] and "100" in said[3]
    assert all("{" not in one for one in said)
    assert verdict(file, "0" * 64, words) == []
