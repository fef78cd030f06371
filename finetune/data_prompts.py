"""A person's own prompts for comparing, from the same kinds of file as training data.

Covers: guessing the columns, domains in Korean or English, a reference answer for the rater, several turns. Does not
cover: the prompt sets that come with the program (assets.catalog).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from assets.errors import UserError
from finetune.data_messages import is_conversation, plain_text, turns
from finetune.data_shapes import Look
from finetune.data_table import Drop, Dropped, Mapping, Message, Table

PROMPT_FIELDS = {"prompt": False, "messages": False, "reference": False, "domain": False, "id": False}
"""Field -> whether it must have a column; one of ``prompt`` and ``messages`` must."""

_NAMES = {
    "prompt": "prompt prompts question q query instruction user text input "
    "프롬프트 질문 질의 문의 물음 지시 지시문 사용자 발화 입력 문장",
    "reference": "reference referenceanswer ref answer a gold expected target output response completion "
    "참고 참고답 참고답변 참고답안 정답 모범답안 모범답변 답변 답 응답",
    "domain": "domain category topic field subject 분야 영역 도메인 범주 주제",
    "id": "id promptid questionid uid 번호 아이디",
}
_DOMAINS = {
    "emotion": "emotion emotional empathy counseling counselling 감정 공감 정서 감성 상담 위로",
    "science": "science scientific 과학 과학기술",
}
_DOMAIN_OF = {name: domain for domain, names in _DOMAINS.items() for name in names.split()}


@dataclass(frozen=True)
class PromptSet:
    prompts: list[dict[str, Any]]
    dropped: list[Dropped]


def guess_prompts(table: Table) -> Mapping:
    """The columns of a prompt set, as a Mapping of shape "prompts". UserError: data.no_text_column."""
    look = Look(table)
    columns: dict[str, str] = {}
    conversations = look.conversations()
    if conversations:
        columns["messages"] = conversations[0]
    for field, names in _NAMES.items():
        column = look.named(names)
        if column is not None and column not in columns.values() and not (field == "prompt" and conversations):
            columns[field] = column
    if "prompt" not in columns and "messages" not in columns:
        texts = [column for column in look.texts() if column not in columns.values()]
        if not texts:
            raise UserError("data.no_text_column", columns=", ".join(table.columns[:10]))
        columns["prompt"] = texts[0]
    return Mapping("prompts", columns)


def prompts_from(table: Table, mapping: Mapping | None = None) -> list[dict[str, Any]]:
    """The prompts alone: {"id", "domain" (emotion | science | general), "messages", "reference" (str or None)}."""
    return read_prompts(table, mapping).prompts


def read_prompts(table: Table, mapping: Mapping | None = None) -> PromptSet:
    """Prompts, each ending in a user turn, and the rows left out. UserError: data.needs.prompt, data.no_prompts."""
    columns = (mapping or guess_prompts(table)).columns
    if not {"prompt", "messages"} & columns.keys():
        raise UserError("data.needs.prompt")
    missing = [column for column in columns.values() if column not in table.columns]
    if missing:
        raise UserError("data.no_such_column", column=missing[0])
    prompts: dict[str, dict[str, Any]] = {}
    dropped: list[Dropped] = []
    asked: set[tuple[tuple[str, str], ...]] = set()
    for number, row in enumerate(table.rows, 1):
        try:
            said, reference = _asked(row, columns)
            if tuple(said) in asked:
                raise Drop("data.drop.duplicate")
            name = _free(_cell(row, columns, "id") or f"prompt-{number}", prompts)
            domain = _domain(_cell(row, columns, "domain"))
        except Drop as drop:
            dropped.append(Dropped(number, drop.key))
            continue
        asked.add(tuple(said))
        messages: list[Message] = [{"role": role, "content": text} for role, text in said]
        prompts[name] = {"id": name, "domain": domain, "messages": messages, "reference": reference}
    if not prompts:
        raise UserError("data.no_prompts", count=len(dropped))
    return PromptSet(list(prompts.values()), dropped)


def _asked(row: dict[str, Any], columns: dict[str, str]) -> tuple[list[tuple[str, str]], str | None]:
    """The turns up to the last question, and the reference: its column, or the answer that ends the conversation."""
    value = row.get(columns.get("messages") or columns["prompt"])
    said = turns(value) if "messages" in columns or is_conversation(value) else [("user", plain_text(value))]
    reference = _cell(row, columns, "reference") or None
    if said[-1][0] == "assistant":
        reference = reference or said[-1][1] or None
        said = said[:-1]
    if not said or said[-1][0] != "user" or not all(text for _, text in said):
        raise Drop("data.drop.empty_user")
    return said, reference


def _cell(row: dict[str, Any], columns: dict[str, str], field: str) -> str:
    return plain_text(row.get(columns[field])) if field in columns else ""


def _domain(name: str) -> str:
    return _DOMAIN_OF.get(name.casefold().replace(" ", ""), "general")


def _free(name: str, used: dict[str, dict[str, Any]]) -> str:
    number, free = 1, name
    while free in used:
        number += 1
        free = f"{name}-{number}"
    return free
