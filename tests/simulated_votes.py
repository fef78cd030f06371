"""Votes of simulated raters with known tastes, as columns or as full rows of a ratings file.

Covers: prompt and rater effects in logits, ties, a left bias, repeats, same-model pairs, criteria, answers that differ in
length and form. Does not cover: anything about real people; every text here is made from a handful of phrases.

    python -m tests.simulated_votes FOLDER [--votes 400] [--seed 1]     writes FOLDER/ratings/ratings.csv
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from compare.rating import Rating
from compare.stats_votes import COLUMNS, Votes

A, B = "google/gemma-2-2b-it@299a8560", "jobs/emotion-01@5f2c9d11"


@dataclass(frozen=True)
class Truth:
    """What is true of a simulated study. ``taste`` is B's log-odds by domain; effects are standard deviations."""

    prompts: int = 40
    raters: int = 8
    per_rater: int = 40
    taste: float = 0.0
    prompt_sd: float = 0.7
    rater_sd: float = 0.5
    ties: float = 0.15
    both_bad: float = 0.05
    left: float = 0.0

    @property
    def rate(self) -> float:
        """B's share of the decided votes over all prompts and raters there might be, by quadrature."""
        from scipy.special import expit

        nodes, weights = np.polynomial.hermite_e.hermegauss(80)
        sd = float(np.hypot(self.prompt_sd, self.rater_sd))
        return float((weights * expit(self.taste + sd * nodes)).sum() / weights.sum())


def places(truth: Truth) -> tuple[Any, Any]:
    """Who sees what: each rater a run of prompts, the next one starting where the last one ended."""
    seen = np.arange(truth.raters * truth.per_rater)
    return seen % truth.prompts, seen // truth.per_rater


def simulate(truth: Truth, rng: np.random.Generator, domain: str = "emotion", study: str = "s") -> Votes:
    """One study as columns."""
    prompt, rater = places(truth)
    n = len(prompt)
    on_left = rng.random(n) < 0.5  # B stands left
    logit = (
        truth.taste
        + truth.prompt_sd * rng.standard_normal(truth.prompts)[prompt]
        + truth.rater_sd * rng.standard_normal(truth.raters)[rater]
        + truth.left * np.where(on_left, 1, -1)
    )
    winner = np.where(rng.random(n) < 1 / (1 + np.exp(-logit)), "model_b", "model_a").astype(object)
    kind = rng.random(n)
    winner[kind < truth.ties + truth.both_bad] = "tie"
    winner[kind < truth.both_bad] = "both_bad"
    length = rng.integers(80, 400, (2, n))
    return Votes(
        pd.DataFrame(
            {
                "rating_id": [f"{domain}-{i}" for i in range(n)],
                "study_id": study,
                "item_id": [f"{domain}-{p}:a-b" for p in prompt],
                "kind": "main",
                "rater": [f"r{r}" for r in rater],
                "domain": domain,
                "prompt_id": [f"{domain}-{p}" for p in prompt],
                "model_a": A,
                "model_b": B,
                "left_is": np.where(on_left, "model_b", "model_a"),
                "winner": winner,
                "blind": True,
                "criteria": "",
                "length_a": length[0],
                "length_b": length[1],
                "created_at": "2026-03-01T09:00:00.000Z",
            },
            columns=list(COLUMNS),
        )
    )


_FEELINGS = ("서운했어요", "마음이 무거워요", "조금 설레요", "자꾸 불안해요", "속상해요", "외로워요", "뿌듯해요")
_ABOUT = ("친구와 다퉈서", "면접을 앞두고", "시험 결과를 보고", "이사를 하고 나서", "강아지가 아파서", "팀을 옮기고")
_TOPICS = ("하늘이 왜 파란지", "백신이 어떻게 듣는지", "별이 왜 반짝이는지", "얼음이 왜 물에 뜨는지", "DNA가 무엇인지")
_PLAIN = (
    "그런 일이 있었군요.", "충분히 쉬는 것이 좋습니다.", "다음과 같은 방법이 있습니다.", "규칙적인 생활을 해 보십시오.",
    "전문가와 상의하십시오.", "자세한 내용은 아래와 같습니다.",
)  # fmt: skip
_WARM = (
    "많이 속상하셨겠어요.", "그 마음이 어땠을지 조금은 알 것 같아요.", "오늘은 스스로를 다독여 주세요.",
    "어떤 점이 가장 힘들었어요?", "천천히 이야기해 주셔도 괜찮아요.",
)  # fmt: skip


def rows(
    votes: int = 400, seed: int = 1, study: str = "", emotion: float = 0.9, science: float = 0.05
) -> Iterator[Rating]:
    """Full rows: half emotion, half science, with repeats, same-model pairs, criteria, comments and written answers."""
    rng = np.random.default_rng(seed)
    for domain, taste in (("emotion", emotion), ("science", science)):
        raters = max(4, votes // 80)
        truth = Truth(40, raters, votes // 2 // raters, taste, 0.8, 0.3)
        for number, row in enumerate(simulate(truth, rng, domain, study).frame.to_dict("records")):
            yield _full(row, domain, number, rng)
            if number % 12 == 0:
                yield _full(_again(row, rng), domain, number, rng)
            if number % 25 == 0:
                same = {"rating_id": f"{row['rating_id']}-same", "kind": "aa", "model_b": row["model_a"]}
                yield _full(row | same | {"item_id": row["item_id"] + "-same"}, domain, number, rng)


def _again(row: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """A repeat with the sides swapped; three in four choose as before."""
    winner = row["winner"] if rng.random() < 0.75 else rng.choice(["model_a", "model_b", "tie"])
    left = "model_a" if row["left_is"] == "model_b" else "model_b"
    return row | {"rating_id": f"{row['rating_id']}-again", "kind": "repeat", "winner": str(winner), "left_is": left}


def _full(row: dict[str, Any], domain: str, number: int, rng: np.random.Generator) -> Rating:
    place = int(row["prompt_id"].rsplit("-", 1)[1])
    if domain == "emotion":
        question = f"{_ABOUT[place % 6]} {_FEELINGS[place % 7]}. 어떻게 하면 좋을까요? ({place + 1})"
        marks = {
            side: {"empathy": int(np.clip(round(rng.normal(at, 1)), -2, 2)), "naturalness": int(rng.integers(2, 6))}
            for side, at in (("model_a", -0.9), ("model_b", 0.2))
        }
    else:
        question = f"{_TOPICS[place % 5]} 초등학생에게 설명해 주세요. ({place + 1})"
        marks = {side: {"correctness": int(rng.integers(3, 6))} for side in ("model_a", "model_b")}
    answers = np.random.default_rng(place)
    given = {
        name: value for name, value in row.items() if name not in ("criteria", "length_a", "length_b", "created_at")
    }
    return Rating(
        **given,
        created_at=f"2026-03-{1 + number * 14 // 220:02d}T{9 + number % 11:02d}:{number % 60:02d}:00.000Z",
        conversation=[{"role": "user", "content": question}],
        response_a=_answer(_PLAIN, answers, "\n\n1. **첫째**: 깊이 숨을 쉽니다.\n2. **둘째**: 가볍게 걷습니다."),
        response_b=_answer(_WARM if domain == "emotion" else _PLAIN, answers, ""),
        criteria=marks if number % 3 else {},
        comment="" if number % 40 else "말투가 <b>편안</b>했어요 & 좋았어요",
        provenance={"model_a": {"model": A}, "model_b": {"model": B, "adapter_sha256": "5f2c9d11"}},
        timing={"model_a": {"reason": "stop"}, "model_b": {"reason": "length" if place % 9 == 0 else "stop"}},
    )


def _answer(phrases: tuple[str, ...], rng: np.random.Generator, end: str) -> str:
    picked = rng.permutation(len(phrases))[: rng.integers(2, 5)]
    return " ".join(phrases[i] for i in picked) + (end if rng.random() < 0.6 else "")


def main() -> None:
    from compare.ratings import RatingsFile

    parser = argparse.ArgumentParser(description="Write a ratings file of simulated votes.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--votes", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--study", default="")
    options = parser.parse_args()
    file = RatingsFile(options.folder / "ratings" / "ratings.csv", "0.1.0")
    for rating in rows(options.votes, options.seed, options.study):
        file.append(rating)


if __name__ == "__main__":
    main()
