"""Ratings and files of them for tests."""

from __future__ import annotations

from dataclasses import replace

from compare.ratings import Rating, RatingsFile


def vote(rating_id: str = "r1", **values: object) -> Rating:
    base = Rating(
        rating_id=rating_id, rater="kim", model_a="base", model_b="tuned", left_is="model_b", winner="model_a"
    )
    return replace(base, **values)  # type: ignore[arg-type]


def write(file: RatingsFile, text: str | bytes) -> None:
    file.path.parent.mkdir(parents=True, exist_ok=True)
    file.path.write_bytes(text if isinstance(text, bytes) else text.encode())


def reasons(file: RatingsFile) -> list[tuple[int, str]]:
    return [(row.line, row.reason_key) for row in file.read().refused]
