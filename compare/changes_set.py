"""What tuning changed over the prompts of a study: a record per prompt, and which prompts come first.

Covers: studies/<id>/changes.jsonl beside the answers (a line per prompt; older ones of the same prompt are passed over, as
are those of answers that are no longer there), which two models can be held against each other, two orders. Does not
cover: measuring (changes_measure.py), showing (views_changes_set.py).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assets.files import append_line, end_line, read_lines
from compare.csv_store import to_json
from compare.engine import Changes, ChangesAsked, TokenChange
from compare.rating import now
from compare.study import Study, StudyArm, StudyPrompt
from compare.study_items import WHOLE, Answers, Task

VERSION = 1
FILE = "changes.jsonl"
WORSE = 1.02  # so many times the base's perplexity of a reference answer, and tuning made it worse
CHANGED = 0.5  # nats: from here on a token counts as clearly changed (views_changes.STEPS)


@dataclass(frozen=True)
class Sides:
    """Two arms of one base, by their keys in the study."""

    base: str
    tuned: str


@dataclass(frozen=True)
class Measured:
    """One prompt. ``sign`` stands for the very texts that were measured."""

    prompt_id: str
    sides: Sides
    sign: str
    changes: Changes

    @property
    def nats(self) -> float:
        """KL(tuned ‖ base) per token of the tuned answer, on average."""
        tokens = self.changes.tokens
        return sum(token.nats for token in tokens) / len(tokens) if tokens else 0.0

    @property
    def share(self) -> float:
        """Share of the answer's tokens that are clearly changed."""
        tokens = self.changes.tokens
        return sum(token.nats >= CHANGED for token in tokens) / len(tokens) if tokens else 0.0

    @property
    def farther(self) -> float | None:
        """Perplexity of the reference answer under the tuned model, as a multiple of the base's; None without one."""
        if self.changes.perplexity is None:
            return None
        base, tuned = self.changes.perplexity
        return math.exp(min(math.log(tuned) - math.log(base), 700.0))


def sides_of(study: Study) -> tuple[Sides, ...]:
    """Every tuned model beside the untuned one of its base; where the study has none, beside the first of that base."""
    found = []
    for tuned in study.arms:
        alike = [arm for arm in study.arms if arm.base == tuned.base and arm.adapter != tuned.adapter]
        base = next((arm for arm in alike if arm.adapter is None), None) or _before(alike, tuned, study)
        if tuned.adapter is not None and base is not None:
            found.append(Sides(base.key, tuned.key))
    return () if study.packed else tuple(found)


def _before(alike: Iterable[StudyArm], tuned: StudyArm, study: Study) -> StudyArm | None:
    first = next(iter(alike), None)
    return first if first is not None and study.arms.index(first) < study.arms.index(tuned) else None


def ready(study: Study, answers: Answers, sides: Sides) -> tuple[StudyPrompt, ...]:
    """The prompts to which both models have a whole answer."""
    tasks = {prompt.id: [Task(prompt.id, key, 0) for key in (sides.base, sides.tuned)] for prompt in study.prompts}
    return tuple(
        prompt
        for prompt in study.prompts
        if all((answer := answers.get(task)) is not None and answer.reason in WHOLE for task in tasks[prompt.id])
    )


def ask(
    study: Study, answers: Answers, sides: Sides, prompt: StudyPrompt, keys: Mapping[str, str] | None = None
) -> ChangesAsked:
    """What to ask an engine that knows the arms by ``keys`` (the study's own by default)."""
    known = keys or {}
    base, tuned = known.get(sides.base, sides.base), known.get(sides.tuned, sides.tuned)
    texts = {name: answers[Task(prompt.id, arm, 0)].text for name, arm in ((base, sides.base), (tuned, sides.tuned))}
    return ChangesAsked(base, tuned, prompt.messages, study.system or None, texts, prompt.reference or "")


def sign(study: Study, answers: Answers, sides: Sides, prompt: StudyPrompt) -> str:
    asked = ask(study, answers, sides, prompt)
    models = [study.arm(key).model for key in (sides.base, sides.tuned)]
    told = [*models, asked.answers[sides.base], asked.answers[sides.tuned], asked.reference, asked.system or ""]
    return hashlib.sha256("\0".join(told).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def append(folder: Path, found: Measured) -> None:
    """Add a record; it is on disk when this returns."""
    path = folder / FILE
    end_line(path)
    tokens = [[t.text, round(t.nats, 4), _short(t.base), _short(t.tuned)] for t in found.changes.tokens]
    row = {
        "version": VERSION,
        "prompt_id": found.prompt_id,
        "base": found.sides.base,
        "tuned": found.sides.tuned,
        "sign": found.sign,
        "tokens": tokens,
        "parted": found.changes.parted,
        "perplexity": found.changes.perplexity,
        "created_at": now(),
    }
    append_line(path, to_json(row))


def read(folder: Path, study: Study, answers: Answers, sides: Sides) -> dict[str, Measured]:
    """By prompt: the records of these two models about the answers that are there now."""
    signs = {prompt.id: sign(study, answers, sides, prompt) for prompt in ready(study, answers, sides)}
    found = {}
    for row in read_lines(folder / FILE):
        measured = _parse(row)
        if measured and measured.sides == sides and signs.get(measured.prompt_id) == measured.sign:
            found[measured.prompt_id] = measured
    return found


def by_reference(found: Iterable[Measured]) -> list[Measured]:
    """Where tuning made the reference answer less likely, the worst first."""
    worse = [(one.farther, one) for one in found if one.farther is not None and one.farther > WORSE]
    return [one for _, one in sorted(worse, key=lambda pair: (-pair[0], pair[1].prompt_id))]


def by_change(found: Iterable[Measured]) -> list[Measured]:
    """Where the tuned answer departs most from what the base would have said."""
    return sorted((one for one in found if one.changes.tokens), key=lambda one: (-one.nats, one.prompt_id))


def _parse(row: Mapping[str, Any]) -> Measured | None:
    """None for a line that is no record, or one of a later version."""
    try:
        if int(row["version"]) > VERSION:
            return None
        tokens = tuple(TokenChange(str(t), float(n), float(b), float(u)) for t, n, b, u in row["tokens"])
        likely = row["perplexity"]
        perplexity = None if likely is None else (float(likely[0]), float(likely[1]))
        parted = None if row["parted"] is None else int(row["parted"])
        sides = Sides(str(row["base"]), str(row["tuned"]))
        return Measured(str(row["prompt_id"]), sides, str(row["sign"]), Changes(tokens, parted, perplexity))
    except (KeyError, TypeError, ValueError, IndexError):
        return None


def _short(chance: float) -> float:
    return float(f"{chance:.4g}")
