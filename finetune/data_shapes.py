"""What the columns of a table are for.

Covers: the shapes we know, their fields, and a guess by column names and contents. Does not cover: being right every
time; a person sees the mapping and corrects it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

from assets.errors import UserError
from finetune.data_messages import is_conversation, is_sharegpt, unpack
from finetune.data_table import Mapping, Table

AIHUB_TURNS = 10
FIELDS: dict[str, dict[str, bool]] = {
    "messages": {"messages": True, "system": False},
    "sharegpt": {"conversations": True, "system": False},
    "prompt_completion": {"prompt": True, "completion": True, "system": False},
    "instruction": {"instruction": True, "input": False, "output": True, "system": False},
    "qa": {"question": True, "answer": True, "system": False},
    "aihub": {"talk": False}
    | {f"{role}{number}": False for number in range(1, AIHUB_TURNS + 1) for role in ("user", "assistant")},
    "preference": {"prompt": False, "chosen": True, "rejected": True, "system": False},
    "unpaired": {"prompt": True, "completion": True, "label": True, "system": False},
    "text": {"text": True},
}
"""Shape -> its fields, each with whether it must have a column."""

_NAMES = {
    "question": "q question questions query 사람문장 "
    "질문 질의 문의 물음 발화 고객발화 사용자 사용자발화 사람 고객 내담자 user human 질문내용 문의내용",
    "answer": "a answer answers response reply 시스템문장 "
    "답변 답 대답 응답 회신 정답 챗봇 챗봇응답 시스템응답 상담사 상담원 bot assistant gpt 답변내용",
    "prompt": "prompt 프롬프트",
    "completion": "completion response output answer reply 완성 응답 답변 출력",
    "instruction": "instruction instructions 지시 지시문 지시사항 명령 명령어",
    "input": "input context 입력 맥락 문맥 참고",
    "output": "output response answer completion 출력 응답 답변 결과",
    "chosen": "chosen preferred 선호 선호답변 선택 선택답변 좋은답변",
    "rejected": "rejected reject dispreferred 비선호 비선호답변 거절 거절답변 탈락 나쁜답변",
    "label": "label labels liked thumbsup desirable 좋아요 평가 선호여부",
    "text": "text document content 텍스트 본문 내용 원문 글 문장",
    "system": "system systemprompt systemmessage 시스템 시스템프롬프트 시스템메시지",
}
_PARTS = {
    "question": ("질문", "문의", "발화", "question", "query"),
    "answer": ("답변", "대답", "응답", "answer", "response", "reply"),
}
_SHEET_TURN = re.compile(r"(사람문장|hs|시스템문장|시스템응답|ss)0*([1-9]\d?)")
_NUMBER = re.compile(r"[\d\s.,:%+/-]+")
_SAMPLE = 200


def folded(name: str) -> str:
    """A column's name as it is compared: no case, spaces, underscores or full-width forms."""
    return re.sub(r"[\s_.\-:?]+", "", unicodedata.normalize("NFKC", name).casefold())


class Look:
    """A table seen through a sample of its rows."""

    def __init__(self, table: Table) -> None:
        self.columns = table.columns
        self.rows: Sequence[dict[str, Any]] = table.rows[:: max(1, len(table.rows) // _SAMPLE)]
        self._by_name: dict[str, str] = {}
        for column in table.columns:
            self._by_name.setdefault(folded(column), column)

    def values(self, column: str) -> list[Any]:
        """The cells of the sample that are not empty."""
        return [cell for cell in (row.get(column) for row in self.rows) if cell is not None and cell != ""]

    def named(self, names: str) -> str | None:
        """The first column that bears one of the names."""
        return next((self._by_name[name] for name in names.split() if name in self._by_name), None)

    def fields(self, *wanted: str) -> dict[str, str]:
        """Field -> column, for those of the fields that a name gives away; no column twice."""
        found: dict[str, str] = {}
        for field in wanted:
            column = self.named(_NAMES[field])
            if column is not None and column not in found.values():
                found[field] = column
        return found

    def conversations(self, test: Callable[[Any], bool] = is_conversation) -> list[str]:
        """The columns of which most cells are lists of messages."""
        return [column for column in self.columns if _mostly(self.values(column), test)]

    def texts(self) -> list[str]:
        """The columns of prose, not of numbers or labels, in order."""
        return [column for column in self.columns if _is_prose(self.values(column))]

    def length(self, column: str) -> float:
        values = self.values(column)
        return sum(len(str(value)) for value in values) / max(1, len(values))


def _mostly(values: Sequence[Any], test: Callable[[Any], bool]) -> bool:
    return sum(map(test, values)) * 2 > len(values)


def _is_prose(values: Sequence[Any]) -> bool:
    if not _mostly(values, lambda value: isinstance(value, str) and not _NUMBER.fullmatch(value)):
        return False
    few = len(values) >= 10 and len(set(map(str, values))) <= max(2, len(values) // 10)
    return not few


def guess(table: Table) -> Mapping:
    """The most likely shape with its columns. UserError: data.no_text_column."""
    look = Look(table)
    for find in (_preference, _unpaired, _aihub, _conversation, _named_pair, _text_or_pair):
        mapping = find(look)
        if mapping is not None:
            return mapping
    raise UserError("data.no_text_column", columns=", ".join(table.columns[:10]))


def _preference(look: Look) -> Mapping | None:
    found = look.fields("chosen", "rejected")
    if len(found) < 2:
        return None
    prompt = look.named(" ".join(_NAMES[field] for field in ("prompt", "question", "instruction")))
    other = [column for column in look.conversations() if column not in found.values()]
    if prompt is None and other:
        prompt = other[0]
    return Mapping("preference", ({"prompt": prompt} if prompt else {}) | found | look.fields("system"))


YES_NO = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def yes_or_no(value: Any) -> bool | None:
    """A judgement as people write one; None for anything else, so that a class number is no judgement."""
    return value if isinstance(value, bool) else YES_NO.get(str(value).strip().lower())


def _unpaired(look: Look) -> Mapping | None:
    """A prompt, an answer, and whether it is a good one, each by its own name."""
    found = look.fields("prompt", "completion", "label")
    if len(found) < 3 or not all(yes_or_no(value) is not None for value in look.values(found["label"])):
        return None
    return Mapping("unpaired", found | look.fields("system"))


def _aihub(look: Look) -> Mapping | None:
    for column in look.columns:
        if _mostly(look.values(column), lambda value: bool(talk_content(value))):
            return Mapping("aihub", {"talk": column})
    columns: dict[str, str] = {}
    for column in look.columns:
        match = _SHEET_TURN.fullmatch(folded(column))
        if match and int(match[2]) <= AIHUB_TURNS:
            columns[f"{'user' if match[1] in ('사람문장', 'hs') else 'assistant'}{match[2]}"] = column
    return Mapping("aihub", columns) if {"user1", "assistant1"} <= set(columns) else None


def talk_content(value: Any) -> dict[str, Any]:
    """The HS01, SS01 … of an AI Hub talk; empty where it is none."""
    value = unpack(value)
    if not isinstance(value, dict):
        return {}
    content = value.get("content", value)
    return content if isinstance(content, dict) and "HS01" in content else {}


def _conversation(look: Look) -> Mapping | None:
    found = look.conversations()
    pair = look.fields("prompt", "completion")
    if not found or (len(pair) == 2 and pair["prompt"] in found):
        return None
    column = found[0]
    if column in look.conversations(is_sharegpt):
        return Mapping("sharegpt", {"conversations": column} | look.fields("system"))
    return Mapping("messages", {"messages": column} | look.fields("system"))


def _named_pair(look: Look) -> Mapping | None:
    """Two columns that say by name which asks and which answers."""
    for shape in ("prompt_completion", "instruction", "qa"):
        found = look.fields(*(field for field in FIELDS[shape] if field != "system"))
        if all(field in found for field, needed in FIELDS[shape].items() if needed):
            system = {field: column for field, column in look.fields("system").items() if column not in found.values()}
            return Mapping(shape, found | system)
    texts = look.texts()
    found = {}
    for field in ("question", "answer"):
        column = next(
            (c for c in texts if c not in found.values() and any(p in folded(c) for p in _PARTS[field])), None
        )
        found |= {field: column} if column else {}
    return Mapping("qa", found) if len(found) == 2 else None


def _text_or_pair(look: Look) -> Mapping | None:
    named = look.fields("text")
    texts = look.texts()
    if named and (named["text"] in texts or len(look.columns) == 1):
        return Mapping("text", named)
    if len(texts) >= 2:
        pair = sorted(texts, key=look.length, reverse=True)[:2]
        question, answer = (column for column in texts if column in pair)
        return Mapping("qa", {"question": question, "answer": answer})
    return Mapping("text", {"text": texts[0]}) if texts else None
