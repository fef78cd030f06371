"""Studies with made answers, and raters in front of them, for tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from assets.catalog import Prompt
from assets.files import Workspace
from assets.words import Words
from compare.desk import Candidate
from compare.ratings import RatingsFile
from compare.study import Study
from compare.study_items import Answer, needed
from compare.study_new import new_study
from compare.study_serve import StudyService
from compare.study_store import Studies
from compare.study_view import Seat, Served

CANDIDATES = (
    Candidate("google/gemma-2-2b-it", "Gemma 2 2B", "google/gemma-2-2b-it", names=("gemma-2-2b-it",)),
    Candidate("공감@a1b2c3d4", "공감 대화", "google/gemma-2-2b-it", adapter="/jobs/x/adapter", system="친구예요."),
    Candidate("KISTI-KONI/KONI-8B", "KONI 8B", "KISTI-KONI/KONI-8B", names=("KONI",)),
)
SECRETS = ("gemma", "공감 대화", "a1b2c3d4", "koni", "/jobs/x", "model_a", "model_b", "친구예요")


def prompts(count: int = 12) -> list[Prompt]:
    kinds = ("emotion", "science")
    return [
        Prompt(f"{kinds[n % 2]}-{n:03d}", kinds[n % 2], ({"role": "user", "content": f"질문 {n}"},), f"답 {n}")
        for n in range(count)
    ]


def study(arms: int = 2, count: int = 12, **changes: Any) -> Study:
    values: dict[str, Any] = {"list_length": 10, "overlap": 3, "repeat_gap": 3, "seed": 7}
    return new_study("KONI와 Gemma", CANDIDATES[:arms], prompts(count), Words("ko"), **(values | changes))


def answer(made: Study, task: Any) -> Answer:
    arm = made.arm(task.arm)
    return Answer(
        task.prompt_id,
        task.arm,
        f"{task.prompt_id} 에 대한 {[a.key for a in made.arms].index(task.arm)}번 답 ({task.sample})",
        task.sample,
        seed=task.seed(made),
        sampling={"temperature": 0.7},
        provenance={"arm": {"model": arm.model, "base": arm.base}, "versions": {"torch": "2.13.0"}},
        timing={"tokens_per_second": 20.0, "seconds": 2.0},
    )


def opened(root: Path, made: Study | None = None, **changes: Any) -> tuple[Studies, Study]:
    """A study with every answer, open for raters."""
    studies = Studies(Workspace(root))
    made = studies.create(made or study(**changes))
    for task in needed(made):
        studies.items(made.id).append(answer(made, task))
    return studies, studies.set_state(made.id, "open")


def service(root: Path, **changes: Any) -> tuple[StudyService, Study]:
    studies, made = opened(root, **changes)
    return StudyService(studies, ratings(root), "1"), made


def ratings(root: Path) -> RatingsFile:
    return RatingsFile(root / "ratings" / "ratings.csv", "1")


def again(found: StudyService) -> StudyService:
    """The same workspace in another process, as far as objects can tell."""
    root = found.studies.root.parent
    return StudyService(Studies(Workspace(root)), ratings(root), "1")


def seat(found: StudyService, made: Study, consent: bool = True) -> Seat:
    [link] = found.raters(made.id).add()
    sat = found.enter(link.code)
    if consent:
        found.consent(sat)
    return sat


def rate(found: StudyService, sat: Seat, choice: str = "left", most: int = 1000) -> list[Served]:
    """Vote on item after item; what was shown."""
    shown: list[Served] = []
    item = found.next_item(sat)
    while item is not None and len(shown) < most:
        shown.append(item)
        item = found.vote(sat, item.token, choice, seconds=9.0)
    return shown


def practised(found: StudyService, sat: Seat) -> None:
    rate(found, sat, most=2)


def renamed(made: Study, name: str) -> Study:
    return replace(made, name=name)
