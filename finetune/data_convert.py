"""Rows to conversations, and why a row was left out.

Covers: every shape of data_shapes, turns that follow one another, duplicates, pairs with nothing to choose. Does not
cover: tokens; whether a conversation fits a model's template or length is for assets.chat to say.

A text loses its outer whitespace and keeps everything else (line ends become "\\n").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from assets.errors import UserError
from finetune.data_messages import Turns, is_conversation, is_message, plain_text, transcript, turns
from finetune.data_shapes import AIHUB_TURNS, FIELDS, talk_content, yes_or_no
from finetune.data_table import Converted, Drop, Dropped, Example, Mapping, Message, Note, Table

Columns = dict[str, str]
Row = dict[str, Any]


def convert(table: Table, mapping: Mapping) -> Converted:
    """Every row becomes an example or is dropped with a reason. UserError: data.needs.<field>, data.no_such_column."""
    _check(table, mapping)
    conversion = _Conversion(_READERS[mapping.shape], mapping.columns)
    for number, row in enumerate(table.rows, 1):
        conversion.add(number, row)
    notes = conversion.notes()
    if mapping.shape == "text" and len(table.columns) == 1:
        notes.append(Note("data.one_column"))
    unused = [column for column in table.columns if column not in mapping.columns.values()]
    if unused:
        notes.append(Note("data.unused_columns", {"count": len(unused), "names": ", ".join(unused[:10])}))
    return Converted(conversion.examples, conversion.dropped, notes)


def usable(converted: Converted) -> Converted:
    """The same, if anything is left to train on. UserError: data.nothing_left.<the commonest reason>."""
    if not converted.examples:
        reasons = Counter(drop.key.removeprefix("data.drop.") for drop in converted.dropped)
        raise UserError(f"data.nothing_left.{reasons.most_common(1)[0][0]}", count=len(converted.dropped))
    return converted


def _check(table: Table, mapping: Mapping) -> None:
    if mapping.shape not in FIELDS:
        raise UserError("data.no_such_shape", shape=mapping.shape, shapes=", ".join(FIELDS))
    for field in mapping.columns.keys() - FIELDS[mapping.shape].keys():
        raise UserError("data.no_such_field", field=field, fields=", ".join(FIELDS[mapping.shape]))
    for field, needed in FIELDS[mapping.shape].items():
        column = mapping.columns.get(field)
        if column is None and needed:
            raise UserError(f"data.needs.{field}")
        if column is not None and column not in table.columns:
            raise UserError("data.no_such_column", column=column)
    if not mapping.columns:
        raise UserError("data.needs.talk")


class _Conversion:
    """The examples so far, and what there is to say about them."""

    def __init__(self, read: Callable[[Row, Columns, _Conversion], Example], columns: Columns) -> None:
        self.examples: list[Example] = []
        self.dropped: list[Dropped] = []
        self.merged = 0
        self.unanswered = 0
        self._read = read
        self._columns = columns
        self._seen: set[object] = set()
        self._strange_roles: Counter[str] = Counter()

    def add(self, number: int, row: Row) -> None:
        merged, unanswered = self.merged, self.unanswered
        try:
            example = self._read(row, self._columns, self)
            identity = _identity(example)
            if identity in self._seen:
                raise Drop("data.drop.duplicate")
        except Drop as drop:
            self.merged, self.unanswered = merged, unanswered
            if drop.detail:
                self._strange_roles[drop.detail] += 1
            self.dropped.append(Dropped(number, drop.key))
        else:
            self._seen.add(identity)
            self.examples.append(example)

    def notes(self) -> list[Note]:
        notes = []
        if self.merged:
            notes.append(Note("data.merged_turns", {"count": self.merged}))
        if self.unanswered:
            notes.append(Note("data.unanswered", {"count": self.unanswered}))
        if self._strange_roles:
            names = ", ".join(name[:40] for name, _ in self._strange_roles.most_common(5))
            notes.append(Note("data.unknown_roles", {"names": names}))
        return notes

    def conversation(self, said: Turns) -> tuple[Message, ...]:
        """A conversation to learn from: a system message or none, then user and assistant in turn, an answer last."""
        messages = self.alternating(said)
        if not any(message["role"] == "assistant" for message in messages):
            raise Drop("data.drop.no_assistant")
        if messages[-1]["role"] == "user":
            messages.pop()
            self.unanswered += 1
        return tuple(messages)

    def alternating(self, said: Turns) -> list[Message]:
        """System message or none, then user first; turns of one speaker in a row are joined."""
        if not any(text for _, text in said):
            raise Drop("data.drop.empty_row")
        messages = self.joined([turn for turn in said if turn[1] or turn[0] != "system"])
        if any(message["role"] == "system" for message in messages[1:]):
            raise Drop("data.drop.system_inside")
        first = next((message["role"] for message in messages if message["role"] != "system"), "")
        if first == "assistant":
            raise Drop("data.drop.assistant_first")
        if not first:
            raise Drop("data.drop.empty_user")
        return messages

    def joined(self, said: Turns) -> list[Message]:
        messages: list[Message] = []
        for role, text in said:
            if not text:
                raise Drop(f"data.drop.empty_{role}")
            if messages and messages[-1]["role"] == role:
                messages[-1]["content"] += "\n" + text
            else:
                messages.append({"role": role, "content": text})
        self.merged += len(messages) < len(said)
        return messages


def _identity(example: Example) -> object:
    parts = (example.messages, example.chosen, example.rejected)
    return example.text, *(tuple((m["role"], m["content"]) for m in part) for part in parts)


def _system(row: Row, columns: Columns) -> Turns:
    column = columns.get("system")
    return [("system", plain_text(row.get(column)))] if column else []


def _led(row: Row, columns: Columns, said: Turns) -> Turns:
    """With the system column in front, unless the conversation brings a system message of its own."""
    return said if said and said[0][0] == "system" else _system(row, columns) + said


def _read_messages(row: Row, columns: Columns, conversion: _Conversion) -> Example:
    column = columns.get("messages") or columns["conversations"]
    return Example(conversion.conversation(_led(row, columns, turns(row.get(column)))))


def _prompt(value: Any) -> Turns:
    return turns(value) if is_conversation(value) else [("user", plain_text(value))]


def _answer(value: Any) -> Turns:
    return turns(value) if is_message(value) or is_conversation(value) else [("assistant", plain_text(value))]


def _read_pair(row: Row, columns: Columns, conversion: _Conversion) -> Example:
    asks = columns.get("prompt") or columns["question"]
    answers = columns.get("completion") or columns["answer"]
    said = _led(row, columns, _prompt(row.get(asks)))
    return Example(conversion.conversation(said + _answer(row.get(answers))))


def _read_qa(row: Row, columns: Columns, conversion: _Conversion) -> Example:
    question, answer = plain_text(row.get(columns["question"])), plain_text(row.get(columns["answer"]))
    return Example(conversion.conversation([*_system(row, columns), ("user", question), ("assistant", answer)]))


def _read_instruction(row: Row, columns: Columns, conversion: _Conversion) -> Example:
    parts = [plain_text(row.get(columns[field])) for field in ("instruction", "input") if field in columns]
    user = "\n\n".join(part for part in parts if part)
    answer = plain_text(row.get(columns["output"]))
    return Example(conversion.conversation([*_system(row, columns), ("user", user), ("assistant", answer)]))


def _read_aihub(row: Row, columns: Columns, conversion: _Conversion) -> Example:
    if "talk" in columns:
        content = talk_content(row.get(columns["talk"]))
        cells = {f"{role}{n}": content.get(f"{key}{n:02}") for n in _NUMBERS for role, key in _SPEAKERS}
    else:
        cells = {field: row.get(column) for field, column in columns.items()}
    said = [(role, plain_text(cells.get(f"{role}{n}"))) for n in _NUMBERS for role, _ in _SPEAKERS]
    while said and not said[-1][1]:
        said.pop()
    return Example(conversion.conversation(said))


_NUMBERS = range(1, AIHUB_TURNS + 1)
_SPEAKERS = (("user", "HS"), ("assistant", "SS"))


def _read_text(row: Row, columns: Columns, conversion: _Conversion) -> Example:
    text = plain_text(row.get(columns["text"]))
    if not text:
        raise Drop("data.drop.empty_row")
    return Example(text=text)


def _read_preference(row: Row, columns: Columns, conversion: _Conversion) -> Example:
    chosen, rejected = (_side(row.get(columns[field])) for field in ("chosen", "rejected"))
    if _speaks_first(chosen) == "user" and _speaks_first(rejected) == "user":
        shared = _shared(chosen, rejected)
        prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
        if not chosen and not rejected:
            raise Drop("data.drop.equal_pair")
    else:
        prompt = _prompt(row.get(columns["prompt"])) if "prompt" in columns else []
    if chosen == rejected:
        raise Drop("data.drop.equal_pair")
    if not prompt:
        raise Drop("data.drop.empty_user")
    messages = conversion.alternating(_led(row, columns, prompt))
    if messages[-1]["role"] != "user" or any(not side or side[0][0] != "assistant" for side in (chosen, rejected)):
        raise Drop("data.drop.no_common_prompt")
    if any(role == "system" for role, _ in chosen + rejected):
        raise Drop("data.drop.system_inside")
    return Example(tuple(messages), tuple(conversion.joined(chosen)), tuple(conversion.joined(rejected)))


def _read_unpaired(row: Row, columns: Columns, conversion: _Conversion) -> Example:
    label = yes_or_no(row.get(columns["label"]))
    if label is None:
        raise Drop("data.drop.no_label")
    messages = conversion.alternating(_led(row, columns, _prompt(row.get(columns["prompt"]))))
    answer = _side(row.get(columns["completion"]))
    if messages[-1]["role"] != "user" or not answer or answer[0][0] != "assistant":
        raise Drop("data.drop.no_common_prompt")
    said = tuple(conversion.joined(answer))
    return Example(tuple(messages), chosen=said if label else (), rejected=() if label else said)


def _side(value: Any) -> Turns:
    return (transcript(value) if isinstance(value, str) else None) or _answer(value)


def _speaks_first(said: Turns) -> str:
    return next((role for role, _ in said if role != "system"), "")


def _shared(one: Turns, other: Turns) -> int:
    """How many turns two conversations have in common at their start."""
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count


_READERS: dict[str, Callable[[Row, Columns, _Conversion], Example]] = {
    "messages": _read_messages,
    "sharegpt": _read_messages,
    "prompt_completion": _read_pair,
    "instruction": _read_instruction,
    "qa": _read_qa,
    "aihub": _read_aihub,
    "preference": _read_preference,
    "unpaired": _read_unpaired,
    "text": _read_text,
}
