"""Token ids back to text, piece by piece, without ever showing half a syllable.

Covers: a stream that a decode loop feeds one id at a time, and the text of each token of a finished sequence. Does not
cover: turning text into ids (chat.py). One Hangul syllable or emoji often takes several tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_UNFINISHED = "\ufffd"
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


class TextStream:
    """Ids in, text out. All pushes and the flush together equal ``tokenizer.decode(ids, skip_special_tokens=True)``.

    An unfinished character is held back until its last token. A run of byte tokens (``<0xEB>``, as in Gemma) is held
    until it ends, because one wrong byte makes the whole run unreadable; ``eager`` shows each character of the run as
    soon as it is whole, for ids known to come from text. ``control`` shows special tokens instead of hiding them.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, control: bool = False, eager: bool = False) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._hidden = frozenset() if control else _special_ids(tokenizer)
        self._control = control
        self._eager = eager
        self._shown: list[int] = []
        self._pending: list[int] = []
        self._sent = 0  # characters of the pending ids that are out already: a token may end one and begin the next

    def push(self, token: int) -> str:
        """The text that this id completes; "" while a character is unfinished."""
        if token in self._hidden:
            return ""
        self._pending.append(token)
        if not self._eager and _BYTE.fullmatch(self._backend.id_to_token(token) or ""):
            return ""
        text = self._text()
        whole = text.rstrip(_UNFINISHED)
        if whole == text:
            return self._release(text)
        new, self._sent = whole[self._sent :], len(whole)
        return new

    def flush(self) -> str:
        """What is still held back, as the tokenizer itself would show it. Call it once, after the last id."""
        return self._release(self._text())

    def _text(self) -> str:
        # Decoded after the tokens shown last: some decoders drop a space at the start of what they are given.
        before = self._decode(self._shown)
        return self._decode(self._shown + self._pending)[len(before) :]

    def _release(self, text: str) -> str:
        new = text[self._sent :]
        if self._pending:
            self._shown, self._pending, self._sent = self._pending, [], 0
        return new

    def _decode(self, ids: list[int]) -> str:
        text: str = self._backend.decode(ids, skip_special_tokens=not self._control)
        return text


def pieces(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> list[str]:
    """The text of each token, special tokens included; one string per id, which together are the text.

    A character made of several tokens stands at its last one, the earlier ones are "".
    """
    stream = TextStream(tokenizer, control=True, eager=True)
    texts = [stream.push(token) for token in ids]
    if texts:
        texts[-1] += stream.flush()
    return texts


def _special_ids(tokenizer: PreTrainedTokenizerFast) -> frozenset[int]:
    return frozenset(index for index, token in tokenizer.added_tokens_decoder.items() if token.special)
