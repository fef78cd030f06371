"""A study with made answers of a usual length, open for as many raters as wanted.

By hand: python -m tests.load.made HOME RATERS [ITEMS]        (prints a link's code per line)
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from assets.catalog import Prompt
from assets.files import Workspace
from assets.words import Words
from compare.csv_store import to_json
from compare.desk import Candidate
from compare.study import Study
from compare.study_items import Answer, needed
from compare.study_new import new_study
from compare.study_raters import Raters
from compare.study_store import Studies

SENTENCES = (
    "오늘 하루 정말 고단하셨겠어요.",
    "그 말을 들었을 때 얼마나 서운하셨을지 짐작이 가요.",
    '"괜찮다"는 말보다 곁에 있어 주는 게 더 힘이 될 때가 있죠.',
    "그래서 파장이 짧은 빛이 더 많이 흩어져요.",
    "혹시 지금 가장 마음에 걸리는 건 무엇인가요?\n천천히 이야기해 주셔도 돼요.",
)


def prompts(count: int) -> list[Prompt]:
    kinds = ("emotion", "science")
    return [
        Prompt(
            f"{kinds[n % 2]}-{n:04d}",
            kinds[n % 2],
            ({"role": "user", "content": f"{n}번째 질문이에요. 어떻게 할까요?"},),
        )
        for n in range(count)
    ]


def open_study(home: Path, items: int = 40, language: str = "ko") -> Study:
    """A study of two models with every answer there; lists of ``items``."""
    candidates = (Candidate("base", "원본", "base"), Candidate("tuned@0", "튜닝", "base", adapter="/adapters/tuned"))
    study = new_study("부하 시험", candidates, prompts(max(60, items)), Words(language), list_length=items)
    studies = Studies(Workspace(home))
    studies.create(study)
    chance = random.Random(1)
    lines = []
    for task in needed(study):
        text = " ".join(chance.choices(SENTENCES, k=chance.randint(4, 12)))
        row = Answer(task.prompt_id, task.arm, text, task.sample, sampling={"temperature": 0.7}, provenance={"arm": {}})
        lines.append(to_json(row.__dict__) + "\n")
    studies.items(study.id).path.write_text("".join(lines), encoding="utf-8")
    return studies.set_state(study.id, "open")


def links(home: Path, study_id: str, count: int) -> list[str]:
    """Codes of new raters."""
    return [link.code for link in Raters(Studies(Workspace(home)).folder(study_id)).add(count)]


def main() -> None:
    home, count = Path(sys.argv[1]), int(sys.argv[2])
    made = open_study(home, int(sys.argv[3]) if len(sys.argv) > 3 else 40)
    print(*links(home, made.id, count), sep="\n")


if __name__ == "__main__":
    main()
