"""A conversation in a model's own chat template: its text, its ids, and which of them are trained.

Covers: rendering, prompt ids, training ids with the mask over the assistant's turns, stop tokens, a template hash. All
of it is derived from the template by rendering, so it holds for templates that nobody here has seen; one whose answers
cannot be found back with certainty is refused. Does not cover: loading models, reading data files, streaming
(stream.py). Never imports torch.

Three rules keep training and prompting the same:

- Whitespace around a message is removed, as most templates do, so that no token reaches from the header into the text.
- Text that looks like a control token ("<|eot_id|>", "<end_of_turn>") is encoded as ordinary text wherever a person
  or a data file wrote it: it neither ends a turn nor widens the trained span. The same text rendered and handed to a
  tokenizer elsewhere would become the token, so pass on the ids, not the rendering.
- A conversation's own system message goes before the ``system`` argument. Where a template has no system role, the
  system text stands above the first user message.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.errors import UserError
from assets.stream import TextStream, pieces

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["DATE", "PLAIN_TEMPLATE", "ChatFormat", "Message", "TextStream", "Trained"]

Message = dict[str, str]

DATE = "26 Jul 2024"
"""What Llama 3.1's template says today is. Fixed, because a prompt that changes daily cannot be compared."""

PLAIN_TEMPLATE = (
    r"{{ bos_token or '' }}{% for message in messages %}"
    r"{% if message['role'] == 'system' %}{{ message['content'] + '\n\n' }}"
    r"{% elif message['role'] == 'user' %}{{ 'User:\n' + message['content'] + '\n\n' }}"
    r"{% else %}{{ 'Assistant:\n' + message['content'] + eos_token + '\n\n' }}{% endif %}"
    r"{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:\n' }}{% endif %}"
)
"""For base models, whose chat tokens were never trained: plain "User:" and "Assistant:" paragraphs. Needs only the
end-of-text token. The line break after the colon keeps the answer's first word out of the prompt's last token."""

_IMPORTING = threading.Lock()  # transformers' lazy import fails when two threads begin it at once
_SYSTEM, _QUESTION, _ANSWER = "Alpha probe.", "Beta probe.", "Gamma probe."


@dataclass(frozen=True)
class Trained:
    """One conversation to learn from. ``trained[i]`` says whether ``ids[i]`` counts in the loss; same length.

    ``text`` is the whole rendering, also where ``ids`` are cut short.
    """

    ids: list[int]
    trained: list[bool]
    text: str


@dataclass(frozen=True)
class _AnswerShape:
    """What the template puts around an answer: whitespace before it, text to the end of turn after it, that token."""

    lead: str
    tail: str
    end: int | None


class ChatFormat:
    """A tokenizer with a chat template.

    Public: ``tokenizer``; ``template_hash`` (16 hex digits of the SHA-256 of the Jinja text); ``has_system``;
    ``stop_ids`` (every id after which an answer is over, sorted); ``vocab_size`` (ids the tokenizer knows).
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, template: str, date: str = DATE, stop_ids: Iterable[int] = ()
    ) -> None:
        """``template`` is Jinja text. UserError when it cannot even render one question."""
        self.tokenizer = tokenizer
        self.tokenizer.chat_template = template
        self.template_hash = hashlib.sha256(template.encode()).hexdigest()[:16]
        self.vocab_size: int = len(tokenizer)
        # enable_thinking: Qwen's switch; other templates do not look at it.
        self._arguments = {"date_string": date, "enable_thinking": False}
        self._control = _any_of(token.content for token in tokenizer.added_tokens_decoder.values())
        self.has_system = self._renders_system()
        self._answer = self._answer_shape()
        ends = [*stop_ids, tokenizer.eos_token_id, self._answer.end if self._answer else None]
        self.stop_ids = tuple(sorted({end for end in ends if end is not None}))

    @classmethod
    def from_folder(cls, folder: Path, template: str | None = None, date: str = DATE) -> ChatFormat:
        """Read a checkpoint folder; ``template`` is Jinja text in place of its own. UserError: nothing to read."""
        if not (folder / "tokenizer.json").is_file():
            raise UserError("chat.no_fast_tokenizer", folder=folder.name)
        try:
            tokenizer = _tokenizer(folder)
        except Exception as error:  # the Rust tokenizer raises plain Exception for a damaged file
            raise UserError("chat.bad_tokenizer", folder=folder.name, reason=str(error)) from error
        template = template or _own_template(tokenizer)
        if template is None:
            raise UserError("chat.no_template", folder=folder.name)
        return cls(tokenizer, template, date, _eos_ids(folder))

    def render(self, messages: Sequence[Message], system: str | None = None, generate: bool = False) -> str:
        """The text of a conversation; ``generate`` opens the assistant's next turn."""
        return self._render(self._turns(messages, system), generate)

    def encode_prompt(self, messages: Sequence[Message], system: str | None = None) -> list[int]:
        """The ids to generate from. The last message must be the user's."""
        turns = self._turns(messages, system)
        if turns[-1]["role"] != "user":
            raise UserError("chat.no_question")
        return self._encode(turns, self._render(turns, generate=True), generate=True)

    def encode_training(
        self, messages: Sequence[Message], system: str | None = None, max_length: int | None = None
    ) -> Trained:
        """Ids and mask: trained are the tokens of each answer and its end-of-turn token, and nothing else.

        ``max_length`` in tokens keeps the start; a mask with nothing left to train is possible and for the caller to
        refuse. UserError: no answer at all, or a template that changes or moves earlier text.
        """
        turns = self._turns(messages, system)
        answers = [index for index, turn in enumerate(turns) if turn["role"] == "assistant"]
        if not answers:
            raise UserError("chat.no_answer")
        text = self._render(turns)
        ids = self._encode(turns, text)
        trained = [False] * len(ids)
        for index in answers:
            start, stop = self._span(turns, index, text, ids)
            trained[start:stop] = [True] * (stop - start)
        return Trained(ids[:max_length], trained[:max_length], text)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text of each token, for colouring. A character of several tokens stands at its last one."""
        return pieces(self.tokenizer, ids)

    def stream(self) -> TextStream:
        """A fresh stream from ids to text for one answer."""
        return TextStream(self.tokenizer)

    def _span(self, turns: list[Message], index: int, text: str, ids: list[int]) -> tuple[int, int]:
        """Token positions of one answer, from its first token to just after its end of turn."""
        if self._answer is None:
            raise UserError("chat.template_unsupported", reason=_ANSWER)
        if self._answer.end is None:
            raise UserError("chat.template_no_end")
        before = self._render(turns[:index], generate=True)
        expected = before + self._answer.lead + turns[index]["content"] + self._answer.tail
        if not text.startswith(expected):
            raise UserError("chat.template_unsupported", reason=_difference(expected, text))
        prompt = self._encode(turns[:index], before, generate=True)
        start = len(prompt)
        if ids[:start] != prompt:
            reason = _difference(self.tokenizer.decode(prompt), self.tokenizer.decode(ids[:start]))
            raise UserError("chat.template_unsupported", reason=reason)
        return start, ids.index(self._answer.end, start) + 1

    def _turns(self, messages: Sequence[Message], system: str | None) -> list[Message]:
        turns = _checked(messages)
        if turns[0]["role"] == "system":
            system = turns.pop(0)["content"] or system
        system = (system or "").strip()
        if not system:
            return turns
        if self.has_system:
            return [{"role": "system", "content": system}, *turns]
        return [{"role": "user", "content": f"{system}\n\n{turns[0]['content']}"}, *turns[1:]]

    def _render(self, turns: list[Message], generate: bool = False) -> str:
        text: str = self._apply(turns, generate, tokenize=False)
        return text

    def _encode(self, turns: list[Message], text: str, generate: bool = False) -> list[int]:
        """The ids of ``text``, the rendering of these turns. Control tokens that people wrote stay ordinary text."""
        ids: list[int]
        if not any(self._control.search(turn["content"]) for turn in turns):
            ids = self.tokenizer.encode(text, add_special_tokens=False)
            return ids
        try:
            ids = self._apply(turns, generate, tokenize=True, return_dict=False, sanitize_control_tokens=True)
        except ValueError as error:  # this tokenizer has no other way to write such text
            raise UserError("chat.control_text", reason=str(error)) from error
        return ids

    def _apply(self, turns: list[Message], generate: bool, **options: Any) -> Any:
        from jinja2 import TemplateError

        try:
            return self.tokenizer.apply_chat_template(
                turns, add_generation_prompt=generate, **options, **self._arguments
            )
        except (TemplateError, TypeError) as error:
            raise UserError("chat.template_failed", reason=str(error)) from error

    def _renders_system(self) -> bool:
        """Whether the template has a system role: tried, because some raise and some drop the message in silence."""
        try:
            return _SYSTEM in self._render([_message("system", _SYSTEM), _message("user", _QUESTION)])
        except UserError:
            return False

    def _answer_shape(self) -> _AnswerShape | None:
        question = [_message("user", _QUESTION)]
        prompt = self._render(question, generate=True)
        whole = self._render([*question, _message("assistant", _ANSWER)])
        lead, found, after = whole[len(prompt) :].partition(_ANSWER)
        if not whole.startswith(prompt) or not found or lead.strip():
            return None
        added = self.tokenizer.added_tokens_decoder
        for token in self.tokenizer.encode(after, add_special_tokens=False):
            if token in added and added[token].content.strip():
                end = added[token].content
                return _AnswerShape(lead, after[: after.index(end)] + end, token)
        return _AnswerShape(lead, after, None)


def _tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    with _IMPORTING:
        from transformers import PreTrainedTokenizerFast
    return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _checked(messages: Sequence[Message]) -> list[Message]:
    """The messages with their whitespace removed: a system message or none, then user and assistant in turn."""
    if not messages:
        raise UserError("chat.no_messages")
    turns = [_message(message["role"], message["content"].strip()) for message in messages]
    first = 1 if turns[0]["role"] == "system" else 0
    if first == len(turns):
        raise UserError("chat.no_messages")
    for position, turn in enumerate(turns[first:]):
        _check(turn, "assistant" if position % 2 else "user", number=first + position + 1)
    return turns


def _check(turn: Message, expected: str, number: int) -> None:
    if turn["role"] == "system":
        raise UserError("chat.system_not_first", turn=number)
    if turn["role"] not in ("user", "assistant"):
        raise UserError("chat.unknown_role", turn=number, role=turn["role"])
    if turn["role"] != expected:
        raise UserError("chat.roles_alternate", turn=number)
    if not turn["content"]:
        raise UserError("chat.empty_turn", turn=number)
    if any("\ud800" <= character <= "\udfff" for character in turn["content"]):
        raise UserError("chat.broken_text", turn=number)


def _any_of(tokens: Iterable[str]) -> re.Pattern[str]:
    """Matches where one of the tokens stands; tokens of white space alone (Gemma has some) control nothing."""
    return re.compile("|".join(re.escape(token) for token in tokens if token.strip()) or "(?!)")


def _own_template(tokenizer: PreTrainedTokenizerFast) -> str | None:
    template: str | dict[str, str] | None = tokenizer.chat_template
    return template.get("default") if isinstance(template, dict) else template


def _eos_ids(folder: Path) -> set[int]:
    """The end ids that the checkpoint's own settings name: a number, a list of numbers, or none."""
    ids: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        if path.is_file():
            value = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
            ids.update(value if isinstance(value, list) else [] if value is None else [value])
    return ids


def _difference(expected: str, actual: str) -> str:
    at = len(os.path.commonprefix([expected, actual]))
    return f"{expected[at : at + 30]!r} ≠ {actual[at : at + 30]!r}"
