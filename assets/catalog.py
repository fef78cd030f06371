"""The models, data sets and prompts this program knows, read from the files beside it.

Covers: models.yaml, datasets.yaml, data/*.jsonl, prompts/*.jsonl, and finding a model by any id people use for it. Does
not cover: what is on this machine or on the Hub, and models outside the list, which work as well and are then read from
their own config.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypedDict

import yaml

from assets.chat import Message

ROOT = Path(__file__).parent
STARTER = "HuggingFaceTB/SmolLM2-135M-Instruct"


class Shape(TypedDict):
    """Sizes of a decoder, as in its config: widths in numbers, ``tied`` when head and embedding are one matrix."""

    hidden: int
    layers: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool


@dataclass(frozen=True)
class ModelCard:
    """One model. ``parameters`` counts the text part only; ``notes`` are keys of sentences a person should read.

    ``family`` is the class the config names and ``load_class`` the one to load, which differ for a multimodal
    checkpoint. ``attention`` and ``dtypes`` list what the class can do, best first. ``date`` is the fixed date that the
    template is given, if it asks for one. ``suggested_for`` are ids people ask for that do not exist.
    """

    id: str
    name: str
    family: str
    model_type: str
    parameters: int
    licence: str
    gated: bool
    stop_tokens: tuple[str, ...]
    template: str
    system_role: bool
    shape: Shape
    mirrors: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    suggested_for: tuple[str, ...] = ()
    load_class: str = ""
    attention: tuple[str, ...] = ("flash_attention_2", "sdpa", "eager")
    dtypes: tuple[str, ...] = ("bfloat16", "float16")
    date: str | None = None

    @property
    def about(self) -> str:
        """Key of one sentence about the model."""
        return f"catalog.model.{self.id.split('/')[-1]}"


@dataclass(frozen=True)
class DatasetCard:
    """One data set: ``file`` and ``heldout`` are paths of a built-in one, ``splits`` those splits of a Hub one.

    ``mapping`` says how rows become conversations, {"shape": ..., "columns": {...}}; None when they already are.
    """

    id: str
    kind: str
    domain: str
    licence: str
    language: str
    file: Path | None = None
    heldout: Path | None = None
    splits: tuple[str, ...] = ()
    mapping: dict[str, Any] | None = None

    @property
    def title(self) -> str:
        """Key of the name people read."""
        return f"catalog.dataset.{self.id.split('/')[-1]}"

    @property
    def about(self) -> str:
        """Key of one sentence about the data."""
        return f"{self.title}.about"


@dataclass(frozen=True)
class Prompt:
    """A conversation that ends with a question to both models. ``reference`` is for the rater, never for a model."""

    id: str
    domain: str
    messages: tuple[Message, ...]
    reference: str | None = None
    tags: dict[str, Any] = field(default_factory=dict)


@cache
def models() -> tuple[ModelCard, ...]:
    """Every model in models.yaml, in the order to show them."""
    return tuple(_model(entry) for entry in _yaml("models.yaml"))


def find_model(model_id: str) -> ModelCard | None:
    """The card for an id, a mirror of it or a name people use for it, in any case; None for a model not listed."""
    return _by_name().get(model_id.strip().lower())


@cache
def datasets() -> tuple[DatasetCard, ...]:
    """Every data set in datasets.yaml, in the order to show them."""
    return tuple(_dataset(entry) for entry in _yaml("datasets.yaml"))


def read_dialogues(path: Path) -> list[dict[str, Any]]:
    """The rows of a built-in JSONL file: ``id``, ``messages`` and what its writer noted about each."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def prompts(domain: str) -> tuple[Prompt, ...]:
    """The built-in prompt set of "emotion" or "science"."""
    return tuple(_prompt(row) for row in read_dialogues(ROOT / "prompts" / f"{domain}.jsonl"))


def _prompt(row: dict[str, Any]) -> Prompt:
    known = {"id", "domain", "messages", "reference"}
    tags = {key: value for key, value in row.items() if key not in known}
    return Prompt(row["id"], row["domain"], tuple(row["messages"]), row.get("reference"), tags)


def _model(entry: dict[str, Any]) -> ModelCard:
    return ModelCard(**({"load_class": entry["family"]} | _tuples(entry)))


def _dataset(entry: dict[str, Any]) -> DatasetCard:
    paths = {key: ROOT / entry[key] for key in ("file", "heldout") if key in entry}
    return DatasetCard(**(_tuples(entry) | paths))


def _tuples(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}


@cache
def _by_name() -> Mapping[str, ModelCard]:
    return {name.lower(): card for card in models() for name in (card.id, *card.mirrors, *card.suggested_for)}


def _yaml(name: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    return entries
