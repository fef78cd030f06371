"""The defaults of a new study.

Covers: a draft from candidates and prompts, the questions of a domain, consent text and practice in the raters'
language. Does not cover: the value itself (study.py), keeping it (study_store.py).
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from assets.catalog import Prompt
from assets.words import Words
from compare.criteria import Criterion, criteria_for
from compare.desk import Candidate
from compare.rating import now
from compare.study import Practice, Study, StudyArm, StudyPrompt, StudyQuestion

LIST_LENGTH = 40
OVERLAP = 10


def new_study(
    name: str, candidates: Sequence[Candidate], prompts: Sequence[Prompt], words: Words, **changes: Any
) -> Study:
    """A draft with an id of its own. ``words`` is the raters' language; ``changes`` are fields of Study. UserErrors."""
    taken = tuple(StudyPrompt.of(prompt) for prompt in prompts)
    sets = sorted({prompt.set for prompt in taken})
    keys = new_keys(len(candidates))
    arms = tuple(StudyArm.of(candidate, key) for candidate, key in zip(candidates, keys, strict=True))
    items = len(taken) * max(1, len(arms) * (len(arms) - 1) // 2)
    length = int(changes.get("list_length", min(LIST_LENGTH, max(1, items))))
    values: dict[str, Any] = {
        "id": f"{datetime.now(UTC):%Y%m%d}-{secrets.token_hex(4)}",
        "name": name,
        "title": words("study.default.title"),
        "arms": arms,
        "prompts": taken,
        "prompt_set": ", ".join(sets),
        "questions": default_questions(words, tuple(dict.fromkeys(prompt.domain for prompt in taken))),
        "rubric": words("study.default.rubric"),
        "overlap": min(OVERLAP, length // 4, len(taken)),
        "list_length": length,
        "practice": practice(words),
        "consent": words("study.default.consent"),
        "language": words.language,
        "seed": secrets.randbelow(2**31),
        "system": next((c.system for c in reversed(candidates) if c.system), ""),
        "created_at": now(),
    }
    return Study(**(values | changes))


def new_keys(count: int) -> list[str]:
    """Different keys that tell nothing about a model."""
    keys: dict[str, None] = {}
    while len(keys) < count:
        keys.setdefault("x" + secrets.token_hex(3))
    return list(keys)


def default_questions(
    words: Words, domains: Sequence[str], keys: Sequence[str] | None = None
) -> tuple[StudyQuestion, ...]:
    """One question for each domain, or those criteria of the domains that ``keys`` names."""
    wanted: dict[str, tuple[Criterion, list[str]]] = {}
    for domain in domains:
        known = criteria_for(domain)
        for criterion in known[:1] if keys is None else [c for c in known if c.key in keys]:
            wanted.setdefault(criterion.key, (criterion, []))[1].append(domain)
    return tuple(_question(words, criterion, where) for criterion, where in wanted.values())


def _question(words: Words, criterion: Criterion, domains: Sequence[str]) -> StudyQuestion:
    return StudyQuestion(
        key=criterion.key,
        label=words(criterion.label),
        question=words(criterion.question),
        low=criterion.low,
        high=criterion.high,
        best=criterion.best,
        anchors=tuple(words(criterion.anchor(value)) for value in criterion.values),
        domains=tuple(domains),
    )


def practice(words: Words) -> tuple[Practice, ...]:
    """Two items with written answers: one about a feeling, one about a fact."""
    made = []
    for number, domain in ((1, "emotion"), (2, "science")):
        asked = ({"role": "user", "content": words(f"study.practice.{number}.prompt")},)
        sides = words(f"study.practice.{number}.left"), words(f"study.practice.{number}.right")
        made.append(Practice(domain, asked, *sides))
    return tuple(made)
