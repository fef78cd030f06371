"""A study as a value: who answers what, what raters are asked, how many votes, and in which state it is.

Covers: the parts of a study and their invariants, YAML both ways, older versions. Does not cover: defaults
(study_new.py), the folder (study_store.py), answers (study_items.py), raters (study_raters.py), serving (study_serve.py).

Prompts, questions and the consent text are copies: a prompt set or a sentence that is edited later changes no study.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import combinations
from typing import Any

import yaml

from assets.catalog import Prompt
from assets.errors import UserError
from assets.words import LANGUAGES
from compare.desk import Candidate
from compare.engine import Sampling
from compare.rating import Message
from compare.study_text import plain, restored

VERSION = 1
STATES = ("draft", "generating", "open", "closed")
REVEALS = ("after_list", "never")
_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,58}[a-z0-9])?")
# libyaml where PyYAML was built with it: the same safe language, ten times as fast.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_KEY = re.compile(r"[a-z0-9]{1,16}")


@dataclass(frozen=True)
class StudyArm:
    """Something that answers. ``key`` is opaque; ``model`` is the identity that ratings record, ``name`` what people
    read after the reveal. The rest is what a Candidate holds."""

    key: str
    model: str
    name: str = ""
    base: str = ""
    adapter: str | None = None
    system: str = ""
    template: str | None = None
    names: tuple[str, ...] = ()
    tuned_from: str = ""

    @classmethod
    def of(cls, candidate: Candidate, key: str) -> StudyArm:
        values = {f.name: getattr(candidate, f.name) for f in fields(Candidate)}
        return cls(key=key, **values)

    def candidate(self) -> Candidate:
        return Candidate(**{f.name: getattr(self, f.name) for f in fields(Candidate)})


@dataclass(frozen=True)
class StudyPrompt:
    """A conversation that ends with a question. ``reference`` is for raters, never for a model."""

    id: str
    domain: str
    messages: tuple[Message, ...]
    reference: str | None = None
    set: str = ""

    @classmethod
    def of(cls, prompt: Prompt) -> StudyPrompt:
        where = str(prompt.tags.get("set") or f"builtin-{prompt.domain}")
        return cls(prompt.id, prompt.domain, tuple(dict(m) for m in prompt.messages), prompt.reference, where)


@dataclass(frozen=True)
class StudyQuestion:
    """A whole-number scale asked per answer. ``anchors`` say what each value from ``low`` to ``high`` means; ``best`` is
    where a perfect answer stands; no ``domains`` means all of them."""

    key: str
    label: str
    question: str
    low: int
    high: int
    best: int
    anchors: tuple[str, ...]
    domains: tuple[str, ...] = ()

    @property
    def values(self) -> tuple[int, ...]:
        return tuple(range(self.low, self.high + 1))


@dataclass(frozen=True)
class Practice:
    """A pair of written answers, to try the page with."""

    domain: str
    messages: tuple[Message, ...]
    left: str
    right: str


@dataclass(frozen=True)
class Study:
    """``name`` is for the owner, ``title`` for raters. Shares are of a rater's list of ``list_length`` items, practice
    apart; ``overlap`` prompts are on everyone's list; a swapped repeat comes ``repeat_gap`` items or more after its
    first showing. ``target`` counts votes on two different models, ties included. ``packed`` marks a copy that came
    without models and names. UserErrors when the parts do not go together.
    """

    id: str
    name: str
    title: str
    arms: tuple[StudyArm, ...]
    prompts: tuple[StudyPrompt, ...]
    prompt_set: str = ""
    questions: tuple[StudyQuestion, ...] = ()
    rubric: str = ""
    target: int = 200
    overlap: int = 10
    repeat_share: float = 0.1
    same_share: float = 0.05
    repeat_gap: int = 8
    list_length: int = 40
    practice: tuple[Practice, ...] = ()
    reveal: str = "after_list"
    consent: str = ""
    language: str = "ko"
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    system: str = ""
    state: str = "draft"
    created_at: str = ""
    packed: bool = False

    def __post_init__(self) -> None:
        check_id(self.id)
        for column, allowed in (("state", STATES), ("reveal", REVEALS), ("language", LANGUAGES)):
            if getattr(self, column) not in allowed:
                raise UserError("study.bad_value", field=column, value=getattr(self, column))
        if not self.name.strip():
            raise UserError("study.no_name")
        _check_arms(self.arms)
        _check_prompts(self.prompts)
        _check_questions(self.questions)
        _check_numbers(self)

    @property
    def prompt_ids(self) -> tuple[str, ...]:
        return tuple(prompt.id for prompt in self.prompts)

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains of its prompts, in the order they first come."""
        return tuple(dict.fromkeys(prompt.domain for prompt in self.prompts))

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Keys of every two arms; the first of a pair is its model_a."""
        return tuple(combinations((arm.key for arm in self.arms), 2))

    def arm(self, key: str) -> StudyArm:
        return next(arm for arm in self.arms if arm.key == key)

    def prompt(self, prompt_id: str) -> StudyPrompt:
        return next(prompt for prompt in self.prompts if prompt.id == prompt_id)

    def questions_for(self, domain: str) -> tuple[StudyQuestion, ...]:
        return tuple(q for q in self.questions if not q.domains or domain in q.domains)

    def check_marks(self, domain: str, marks: Mapping[str, object]) -> None:
        """UserError unless every mark belongs to the domain and stands on its scale. None is required."""
        known = {question.key: question for question in self.questions_for(domain)}
        for key, mark in marks.items():
            if key not in known:
                raise UserError("ratings.unknown_criterion", criterion=key[:80], domain=domain)
            if type(mark) is not int or mark not in known[key].values:
                raise UserError("ratings.off_scale", value=str(mark)[:80], low=known[key].low, high=known[key].high)

    def to_yaml(self) -> str:
        record = {"version": VERSION, **asdict(self)}
        return yaml.safe_dump(plain(record), allow_unicode=True, sort_keys=False, width=100)

    @classmethod
    def from_yaml(cls, text: str) -> Study:
        """UserError("study.unreadable") for what is no study, ("study.newer") for one of a later version."""
        try:
            record = restored(yaml.load(text, Loader=_LOADER))
        except (yaml.YAMLError, RecursionError) as error:
            raise UserError("study.unreadable", reason=str(error).splitlines()[0][:200]) from error
        return from_record(record)


def check_id(study_id: str) -> str:
    """The id, if a folder may be called so. UserError("study.unknown") for "..", "a/b", upper case or nothing."""
    if not isinstance(study_id, str) or not _ID.fullmatch(study_id):
        raise UserError("study.unknown", study=str(study_id)[:80])
    return study_id


def _check_arms(arms: Sequence[StudyArm]) -> None:
    keys, models = [arm.key for arm in arms], [arm.model for arm in arms]
    if len(arms) < 2:
        raise UserError("study.two_models")
    if len(set(keys)) < len(keys) or len(set(models)) < len(models):
        raise UserError("study.same_model_twice")
    if not all(_KEY.fullmatch(key) for key in keys) or not all(models):
        raise UserError("study.bad_value", field="arms", value=", ".join(keys)[:80])


def _check_prompts(prompts: Sequence[StudyPrompt]) -> None:
    if not prompts:
        raise UserError("study.no_prompts")
    ids = [prompt.id for prompt in prompts]
    twice = next((i for i in ids if ids.count(i) > 1), None) if len(set(ids)) < len(ids) else None
    if twice is not None:
        raise UserError("study.prompt_twice", prompt=twice)
    for prompt in prompts:
        if not prompt.id or not prompt.messages or prompt.messages[-1].get("role") != "user":
            raise UserError("study.bad_prompt", prompt=prompt.id)


def _check_questions(questions: Sequence[StudyQuestion]) -> None:
    if len({question.key for question in questions}) < len(questions):
        raise UserError("study.question_twice")
    for question in questions:
        if not question.low < question.high or len(question.anchors) != len(question.values):
            raise UserError("study.bad_question", question=question.label or question.key)


def _check_numbers(study: Study) -> None:
    limits = {
        "target": (1, 1_000_000),
        "overlap": (0, len(study.prompts)),
        "repeat_share": (0, 0.5),
        "same_share": (0, 0.5),
        "repeat_gap": (1, 1000),
        "list_length": (1, 1000),
        "seed": (0, 2**63 - 1),
    }
    for name, (low, high) in limits.items():
        value = getattr(study, name)
        whole = name not in ("repeat_share", "same_share")
        if type(value) not in ((int,) if whole else (int, float)) or not low <= value <= high:
            raise UserError(f"study.range.{name}", low=low, high=high)
    if study.same_share and not study.sampling.temperature:
        raise UserError("study.same_needs_chance")


def from_record(record: object) -> Study:
    """A study from plain data of any version up to ours. UserErrors as ``Study.from_yaml``."""
    if not isinstance(record, dict) or type(record.get("version", 1)) is not int:
        raise UserError("study.unreadable", reason="version")
    version = record.get("version", 1)
    if version > VERSION:
        raise UserError("study.newer", version=version)
    known = {f.name for f in fields(Study)}
    values: dict[str, Any] = {key: value for key, value in record.items() if key in known}
    try:
        for name, make in _PARTS.items():
            if name in values:
                values[name] = make(values[name])
        return Study(**values)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise UserError("study.unreadable", reason=str(error)[:200]) from error


def _list(kind: type, *tuples: str) -> Callable[[Any], tuple[Any, ...]]:
    """Reads a list of ``kind``; the fields called ``tuples`` are tuples in it."""
    known = {f.name for f in fields(kind)}

    def read(rows: Any) -> tuple[Any, ...]:
        made = []
        for row in rows:
            values = {k: tuple(v) if k in tuples else v for k, v in row.items() if k in known}
            if any(not _is_message(m) for m in values.get("messages", ())):
                raise ValueError("messages")
            made.append(kind(**values))
        return tuple(made)

    return read


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(k), str) for k in ("role", "content"))


def _sampling(values: Any) -> Sampling:
    known = {f.name for f in fields(Sampling)}
    return Sampling(**{k: v for k, v in values.items() if k in known})


_PARTS: Mapping[str, Callable[[Any], Any]] = {
    "arms": _list(StudyArm, "names"),
    "prompts": _list(StudyPrompt, "messages"),
    "questions": _list(StudyQuestion, "anchors", "domains"),
    "practice": _list(Practice, "messages"),
    "sampling": _sampling,
}
