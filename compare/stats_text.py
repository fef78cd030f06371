"""What the answers look like, beside what people chose: form, politeness, endings, and how blind the rating was.

Covers: length, Markdown, text that is not Korean, repetition, speech level and whether it is kept up, answers that were
cut off, per model and domain; how well these alone tell which model wrote an answer. Does not cover: what answers say.

Speech level by the ending of each sentence that closes with . ! ? … or ~: 존댓말 for -요, -죠, -니다, -니까, -시오;
반말 (and plain written style) for the endings in _PLAIN; nouns and lists are not classified. Shares are of sentences.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from compare.rating import Rating, Side
from compare.stats_logit import fit
from compare.stats_rates import Interval
from compare.stats_votes import Floats

# At most this many different pairs of answers are read: the figures settle long before.
SAMPLE = 1000
FEATURES = ("characters", "markdown", "foreign", "repeated", "polite", "mixed", "cut_off")

_MARKDOWN = re.compile(r"^\s*(?:#{1,6}\s|[-*•]\s|\d{1,3}[.)]\s|>|```|\|)|\*\*\S|`\S", re.MULTILINE)
_LETTER = re.compile(r"[^\W\d_]")
_HANGUL = re.compile(r"[가-힣ㄱ-ㅎㅏ-ㅣ]")
_SENTENCE = re.compile(r"([가-힣]+)[\"'”’)\]*]*[.!?…~。]")
_POLITE = re.compile(r"(?:요|죠|니다|니까|시오)$")
_PLAIN = re.compile(r"(?:다|야|어|아|지|네|해|래|자|니|냐|군|구나|거든|봐|줘|돼|걸|게|까|라|마|겠음|했음|음)$")
_CLOSED = re.compile(r"[.!?…~。)\]\"'”’*`|:;ㅎㅋㅠㅜ^♡]$|[^\w\s가-힣]$")


@dataclass(frozen=True)
class Form:
    """One answer. Shares from 0 to 1; ``markdown`` of lines, ``foreign`` of letters, ``repeated`` of word triples.

    ``polite`` and ``mixed`` are NaN without a sentence that could be classified; ``mixed`` is the smaller share.
    """

    characters: float
    markdown: float
    foreign: float
    repeated: float
    polite: float
    mixed: float
    cut_off: float


@dataclass(frozen=True)
class Looks:
    """The mean forms of one model's answers in a domain ("" is all); ``n`` different answers."""

    model: str
    domain: str
    n: int
    means: Mapping[str, float]


@dataclass(frozen=True)
class Blindness:
    """How often form alone tells the two models apart: 0.5 is blind. ``n`` different pairs of answers."""

    n: int
    accuracy: float
    interval: Interval
    telling: str

    @property
    def told_apart(self) -> bool:
        return self.interval[0] > 0.5


def form(text: str, reason: str = "") -> Form:
    """``reason`` is why the answer ended, where it was recorded ("length" is cut off)."""
    lines = [line for line in text.split("\n") if line.strip()]
    letters = len(_LETTER.findall(text))
    words = text.split()
    triples = list(zip(words, words[1:], words[2:], strict=False))
    endings = _SENTENCE.findall(text)
    polite = sum(bool(_POLITE.search(ending)) for ending in endings)
    plain = sum(not _POLITE.search(ending) and bool(_PLAIN.search(ending)) for ending in endings)
    share = polite / (polite + plain) if polite + plain else math.nan
    return Form(
        characters=len(text),
        markdown=sum(bool(_MARKDOWN.search(line)) for line in lines) / len(lines) if lines else 0.0,
        foreign=1 - len(_HANGUL.findall(text)) / letters if letters else 0.0,
        repeated=1 - len(set(triples)) / len(triples) if triples else 0.0,
        polite=share,
        mixed=min(share, 1 - share),
        cut_off=float(_is_cut(text, reason)),
    )


def _is_cut(text: str, reason: str) -> bool:
    if reason:
        return reason == "length"
    end = text.rstrip()
    last = end.rsplit("\n", 1)[-1]
    return bool(end) and not _MARKDOWN.match(last) and not _CLOSED.search(end) and not _POLITE.search(end)


def different(votes: Iterable[Rating]) -> list[Rating]:
    """One vote for each pair of answers, at most SAMPLE of them, spread over the votes."""
    seen: dict[tuple[str, str], Rating] = {}
    for vote in votes:
        seen.setdefault((vote.response_a, vote.response_b), vote)
    kept = list(seen.values())
    return kept if len(kept) <= SAMPLE else [kept[i] for i in np.linspace(0, len(kept) - 1, SAMPLE).astype(int)]


def looks(votes: Sequence[Rating]) -> list[Looks]:
    """Per model, for every domain and for all; ``votes`` as ``different`` gives them."""
    forms: dict[tuple[str, str], dict[str, Form]] = {}
    for vote in votes:
        for side in ("model_a", "model_b"):
            model, text = getattr(vote, side), vote.response(side)
            for domain in ("", vote.domain):
                forms.setdefault((model, domain), {}).setdefault(text, form(text, _reason(vote, side)))
    return [Looks(model, domain, len(found), _means(list(found.values()))) for (model, domain), found in forms.items()]


def _reason(vote: Rating, side: Side) -> str:
    told = vote.timing.get(side)
    return str(told.get("reason", "")) if isinstance(told, dict) else ""


def _means(forms: Sequence[Form]) -> dict[str, float]:
    table = _table(forms)
    known = ~np.isnan(table)
    sums = np.where(known, table, 0).sum(axis=0)
    counts = known.sum(axis=0)
    means = np.divide(sums, counts, out=np.full(len(FEATURES), np.nan), where=counts > 0)
    return dict(zip(FEATURES, means.tolist(), strict=True))


def _table(forms: Sequence[Form]) -> Floats:
    return np.array([[getattr(one, name) for name in FEATURES] for one in forms], dtype=float)


def blindness(votes: Sequence[Rating], folds: int = 5, seed: int = 0) -> Blindness | None:
    """Cross-validated logistic regression on differences of form; None below 20 pairs, or when forms never differ.

    Each pair appears once, b minus a, without an intercept: which of the two stands first says nothing. Whole prompts are
    held out. ``telling`` is the feature with the largest coefficient in units of its spread. The interval is Wilson's.
    """
    from compare.stats_rates import wilson

    if len(votes) < 20:
        return None
    apart = _apart(votes)
    spread = apart.std(axis=0)
    used = np.flatnonzero((np.abs(apart) > 1e-9).any(axis=0))
    if not len(used):
        return None
    scale = np.where(spread[used] > 1e-9, spread[used], np.abs(apart[:, used]).max(axis=0))
    design = apart[:, used] / scale
    fold = _folds([vote.prompt_id or vote.rating_id for vote in votes], folds, seed)
    right = np.zeros(len(design))
    for held in range(folds):
        ours = fold != held
        weights = fit(design[ours], np.ones(int(ours.sum())), prior_sd=1.0).coefficients
        score = design[~ours] @ weights
        right[~ours] = np.where(np.abs(score) < 1e-12, 0.5, score > 0)
    hits = int(math.floor(right.sum()))
    interval = wilson(hits, len(design)) or (0.0, 1.0)
    weights = fit(design, np.ones(len(design)), prior_sd=1.0).coefficients
    return Blindness(len(design), float(right.mean()), interval, FEATURES[used[int(np.argmax(np.abs(weights)))]])


def _apart(votes: Sequence[Rating]) -> Floats:
    """b's form minus a's; lengths as logarithms; what could not be classified counts as no difference."""
    a, b = (
        _table([form(vote.response(side), _reason(vote, side)) for vote in votes]) for side in ("model_a", "model_b")
    )
    for table in (a, b):
        table[:, 0] = np.log1p(table[:, 0])
    return np.nan_to_num(b - a)


def _folds(groups: Sequence[str], folds: int, seed: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    codes = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)[1]
    place = np.random.default_rng(seed).permutation(int(codes.max()) + 1)
    return np.asarray(place[codes] % folds, dtype=np.int64)
