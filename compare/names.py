"""Answers that give away who wrote them.

Covers: a model that says its own name or its maker's, in Korean or English. Does not cover: recognising a model by its
style. A name alone is not enough, for 라마 is also an animal and solar an adjective: the writer must say of itself that
it is so called, or name a version, or use an arm's identity word for word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Protocol

MODELS: Mapping[str, tuple[str, ...]] = {
    "Gemma": ("gemma", "젬마"),
    "Gemini": ("gemini", "제미나이"),
    "Llama": ("llama", "라마"),
    "KONI": ("koni", "코니"),
    "SmolLM": ("smollm", "smollm2", "스몰엘엠"),
    "Qwen": ("qwen", "큐원"),
    "GPT": ("chatgpt", "gpt", "챗지피티", "챗gpt", "지피티"),
    "Claude": ("claude", "클로드"),
    "Mistral": ("mistral", "미스트랄"),
    "EXAONE": ("exaone", "엑사원"),
    "SOLAR": ("solar", "솔라"),
    "HyperCLOVA": ("hyperclova", "clova", "하이퍼클로바", "클로바"),
    "DeepSeek": ("deepseek", "딥시크"),
}
MAKERS: Mapping[str, tuple[str, ...]] = {
    "Google": ("google", "deepmind", "구글", "딥마인드"),
    "Meta": ("meta", "facebook", "메타", "페이스북"),
    "KISTI": ("kisti", "한국과학기술정보연구원"),
    "OpenAI": ("openai", "오픈ai", "오픈에이아이"),
    "Alibaba": ("alibaba", "알리바바"),
    "Anthropic": ("anthropic", "앤트로픽", "앤스로픽"),
    "Hugging Face": ("hugging face", "huggingface", "허깅페이스"),
    "LG": ("lg ai", "lg", "엘지"),
    "Upstage": ("upstage", "업스테이지"),
    "NAVER": ("naver", "네이버"),
}
_SENTENCE = re.compile(r"[^.!?。\n]+(?:\.(?=\d)[^.!?。\n]*)*")
_ME = re.compile(
    r"\b(?:i|me|my)\b|(?<![가-힣])(?:저|전|제|나|난|내)(?:는|가|를|의|희)?(?![가-힣])|모델|인공지능|챗봇|\bai\b"
)
_TO_BE = (
    r"(?:\bi am|\bi['’]m|\bmy name is|\bcall me|\bcalled|\bnamed|\bknown as|\bas)\s+"
    r"(?:(?:a|an|the|your|ai|large|language|model|assistant|chatbot|based|on|called|named|fine-tuned|version|of),?\s+)*"
)
_COPULA = (
    r"(?:[ -]?\d[\w.]*)?\s*(?:모델|봇|챗봇)?\s*"
    r"(?:입니다|이에요|예요|에요|이야|야(?![가-힣])|이며|이고|이?라는|"
    r"이?라고 ?(?:해|하|합|불|부)|으?로서|기반)"
)
_MADE = r"(?:에서|이|가|의|에 의해|사에서|사가)?\s*(?:\S+\s+){0,2}?(?:만든|만들|개발|학습|훈련|제작|공개한)"
_VERSION = r"[ -]?\d(?!\d*\s*(?:마리|명|개|월|일))"


class Named(Protocol):
    """An arm: the identity that is recorded, and what else it is called."""

    @property
    def model(self) -> str: ...
    @property
    def names(self) -> tuple[str, ...]: ...


def names_leaked(text: str, arms: Iterable[Named]) -> tuple[str, ...]:
    """The names by which an answer gives a model away, each once; empty for one that does not."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    selves = "\n".join(match[0] for match in _SENTENCE.finditer(plain) if _ME.search(match[0]))
    found = [name for arm in arms for name in _own(arm) if re.search(_spelling(name.casefold()), plain)]
    found += [model for model, spellings in MODELS.items() if _says_model(spellings, plain, selves)]
    found += [maker for maker, spellings in MAKERS.items() if _says_maker(spellings, selves)]
    return tuple(dict.fromkeys(found))


def _says_model(spellings: tuple[str, ...], plain: str, selves: str) -> bool:
    name = "(?:" + "|".join(map(_spelling, spellings)) + ")"
    return bool(re.search(name + _VERSION, plain) or re.search(f"{_TO_BE}{name}|{name}{_COPULA}", selves))


def _says_maker(spellings: tuple[str, ...], selves: str) -> bool:
    name = "(?:" + "|".join(map(_spelling, spellings)) + ")"
    return bool(re.search(rf"\b(?:by|from)\s+(?:the\s+)?{name}|{name}{_MADE}", selves))


def _own(arm: Named) -> list[str]:
    """The arm's names as someone would write them: "google/gemma-2-2b-it" is also "gemma-2-2b-it"."""
    names = {arm.model, arm.model.rsplit("/", 1)[-1], *arm.names}
    return sorted(unicodedata.normalize("NFKC", name) for name in names if len(name) >= 4)


def _spelling(name: str) -> str:
    edge = r"(?<![a-z0-9])" if name[0].isascii() else r"(?<![가-힣])"
    end = r"(?![a-z])" if name[-1].isascii() else ""
    return edge + re.escape(name) + end
