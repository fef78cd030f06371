"""Lists of messages in the forms people keep them, to role and content.

Covers: key and role names in use (role/content, from/value, 화자/발화 …), content in parts, lists kept as text in a
cell, transcripts ("Human: … Assistant: …"). Does not cover: order and emptiness of the turns (data_convert).
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from finetune.data_table import Drop

ROLE_KEYS = ("role", "from", "speaker", "author", "화자", "역할", "발화자")
CONTENT_KEYS = ("content", "value", "text", "utterance", "message", "발화", "내용", "문장", "대사")
_NAMES = {
    "user": "user human customer client prompter 사용자 사람 유저 고객 내담자 질문자 손님",
    "assistant": "assistant gpt bot chatgpt chatbot model ai agent counselor "
    "상담사 상담원 상담자 챗봇 봇 도우미 어시스턴트 답변자 모델",
    "system": "system developer 시스템",
}
ROLES = {name: role for role, names in _NAMES.items() for name in names.split()}
_TRANSCRIPT = re.compile(r"(?:^|\n\n) *(Human|User|Assistant|System|사용자|상담사|챗봇) *: ?")
_PYTHON = re.compile(r"\[?\s*\{\s*'")  # what pandas writes when a list stands in a cell

Turns = list[tuple[str, str]]


def plain_text(value: Any) -> str:
    """A cell as text without outer whitespace, line ends as "\\n". Drop: lists and objects; text no file can hold."""
    if value is None or value != value:  # a missing number is the one value unequal to itself
        return ""
    if isinstance(value, (list, dict, bytes)):
        raise Drop("data.drop.not_text")
    text = value if isinstance(value, str) else str(value)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.isascii() or "\0" in text:
        _check_characters(text)
    return text.strip()


def _check_characters(text: str) -> None:
    if "\0" in text:
        raise Drop("data.drop.bad_characters")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Drop("data.drop.bad_characters") from error


def unpack(value: Any) -> Any:
    """The list or object that a text cell spells out (JSON or Python); any other value unchanged."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text[:1] + text[-1:] not in ("[]", "{}"):
        return value
    try:
        return ast.literal_eval(text) if _PYTHON.match(text) else json.loads(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return value


def is_conversation(value: Any) -> bool:
    """Whether this is a list of messages, or the text of one."""
    value = unpack(value)
    return isinstance(value, list) and bool(value) and all(_keys(message) is not None for message in value)


def is_message(value: Any) -> bool:
    return _keys(unpack(value)) is not None


def is_sharegpt(value: Any) -> bool:
    value = unpack(value)
    return isinstance(value, list) and all(_keys(message) == ("from", "value") for message in value)


def turns(value: Any) -> Turns:
    """Role and text of each message. Drop: not a list of messages, a role nobody knows, content that is no text."""
    value = unpack(value)
    if isinstance(value, dict):
        value = [value]
    if value is None or value == "" or value == []:
        raise Drop("data.drop.empty_row")
    if not isinstance(value, list):
        raise Drop("data.drop.no_messages")
    return [_turn(message) for message in value]


def _turn(message: Any) -> tuple[str, str]:
    keys = _keys(message)
    if keys is None:
        raise Drop("data.drop.no_messages")
    name = str(message[keys[0]]).strip()
    role = ROLES.get(name.lower())
    if role is None:
        raise Drop("data.drop.unknown_role", name)
    return role, _content(message[keys[1]])


def _keys(message: Any) -> tuple[str, str] | None:
    if not isinstance(message, dict):
        return None
    role = next((key for key in ROLE_KEYS if key in message), None)
    content = next((key for key in CONTENT_KEYS if key in message), None)
    return None if role is None or content is None else (role, content)


def _content(value: Any) -> str:
    """Text, or the text parts of a message in parts; a part that is a picture or a sound is not text."""
    if not isinstance(value, list):
        return plain_text(value)
    if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in value):
        raise Drop("data.drop.not_text")
    return plain_text("\n".join(part["text"] for part in value))


def transcript(text: str) -> Turns | None:
    """The turns of a conversation written as one text, each led by its speaker; None where it is not one."""
    pieces = _TRANSCRIPT.split(text.strip())
    if len(pieces) < 5 or pieces[0].strip():
        return None
    return [(ROLES[name.lower()], content.strip()) for name, content in zip(pieces[1::2], pieces[2::2], strict=True)]
