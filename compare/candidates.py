"""What people can put side by side: finished runs, models of the catalogue, any Hub id or folder.

Covers: the list for the pickers, finding out what a name or folder is, the base an adapter belongs on. Does not cover:
loading (desk.py, engine.py), whether the shapes fit (adapter_match.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from assets.catalog import STARTER, ModelCard, find_model, models
from assets.errors import UserError
from assets.files import Workspace
from assets.hub import locate, readable_errors
from compare.adapters import Adapter, Match, find_adapters, inspect, match_base, safe_folder
from compare.desk import Candidate
from compare.footprint import shape_from
from compare.remote_engine_address import Address, is_remote, parse
from compare.whole_model import Whole, find_wholes, read_whole

ADAPTER_FILES = ["adapter_config.json", "adapter_*.safetensors", "run.json", "trainer_state.json"]


@dataclass(frozen=True)
class Option:
    """A line of a picker. ``value`` is a Hub id or the adapter's folder; ``when`` is the time a run ended."""

    value: str
    name: str
    kind: Literal["run", "model"]
    when: float | None = None


@dataclass(frozen=True)
class Asked:
    """What only the person knows about a foreign adapter. ``template`` is Jinja text, empty for the model's own."""

    template: str = ""
    system: str = ""


@dataclass(frozen=True)
class Choice:
    """What a name stands for: a model, an adapter, or a model on another server. ``whole`` for a model that a run here
    trained all of. ``foreign`` when no run.json tells how an adapter was trained."""

    text: str
    card: ModelCard | None = None
    adapter: Adapter | None = None
    remote: Address | None = None
    whole: Whole | None = None

    @property
    def base_id(self) -> str:
        """What it was tuned from; "" for what was not tuned here or elsewhere."""
        tuned = self.adapter or self.whole
        return tuned.base_id if tuned else ""

    @property
    def foreign(self) -> bool:
        return self.adapter is not None and self.adapter.template_hash is None


@dataclass(frozen=True)
class Chosen:
    """Two candidates ready to load, and what to tell the person about the fit, if anything."""

    first: Candidate
    second: Candidate
    notes: tuple[tuple[str, dict[str, object]], ...] = ()


def options(workspace: Workspace) -> list[Option]:
    """Runs newest first, then the catalogue with the starter in front."""
    found: list[Adapter | Whole] = [*find_adapters(workspace.jobs).adapters, *find_wholes(workspace.jobs)]
    runs = [Option(str(a.folder), a.name, "run", a.finished_at or a.folder.stat().st_mtime) for a in found]
    runs.sort(key=lambda option: option.when or 0.0, reverse=True)
    return runs + [Option(card.id, card.name, "model") for card in models()]


def look_up(text: str, check_values: bool = False) -> Choice:
    """What a picker's text stands for. UserError when it is nothing, or an adapter that cannot be compared here."""
    text = text.strip()
    if not text:
        raise UserError("compare.pick_two")
    if is_remote(text):
        address = parse(text)
        return Choice(str(address), remote=address)
    card = find_model(text)
    if card is not None:
        return Choice(card.id, card)
    if text.startswith(("/", ".", "~")) or Path(text).is_dir() or text.count("/") != 1:
        folder = safe_folder(str(Path(text).expanduser()), (Path.cwd(), Path("/")))
        if (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file():
            return Choice(str(folder), whole=read_whole(folder))
        return Choice(str(folder), adapter=inspect(folder, check_values))
    hub = _hub_adapter(text)
    return Choice(text, adapter=inspect(hub, check_values)) if hub else Choice(text)


def _hub_adapter(repo: str) -> Path | None:
    """The files of an adapter on the Hub, or None for a repository that is none."""
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with readable_errors(repo):
        try:
            hf_hub_download(repo, "adapter_config.json")
        except LocalEntryNotFoundError:
            hf_hub_download(repo, "config.json")  # a model that is here already; raises when it is not
            return None
        except EntryNotFoundError:
            return None
        return Path(snapshot_download(repo, allow_patterns=ADAPTER_FILES))


def choose(workspace: Workspace, first: str, second: str, asked: Asked) -> Chosen:
    """Two names -> two candidates. ``asked`` goes to foreign adapters. UserError when they cannot be compared."""
    sides = [look_up(first, check_values=True), look_up(second, check_values=True)]
    plain = next((s for s in sides if s.adapter is None and s.remote is None and s.whole is None), None)
    notes: list[tuple[str, dict[str, object]]] = []
    candidates = []
    for side in sides:
        if side.adapter is None:
            candidates.append(_model(side))
            continue
        base, match = _base_for(workspace, side.adapter, plain)
        if match is not None and match.note:
            notes.append((match.note[0], dict(match.note[1])))
        candidates.append(_tuned(side.adapter, base, asked if side.foreign else Asked()))
    if candidates[0].name == candidates[1].name and any(side.remote for side in sides):
        candidates = [replace(c, name=c.model) for c in candidates]
    return Chosen(candidates[0], candidates[1], tuple(notes))


def _base_for(workspace: Workspace, adapter: Adapter, plain: Choice | None) -> tuple[str, Match | None]:
    """The base to put an adapter on: the other side's where it fits, so that both share one copy; else its own."""
    own = find_model(adapter.base_id)
    if plain is not None:
        config = locate(workspace, plain.text, weights=False).config
        try:
            return plain.text, match_base(adapter, config, plain.text)
        except UserError:
            if own is None or own == plain.card:
                raise
    base = own.id if own else adapter.base_id
    if not base:
        raise UserError("compare.no_base", adapter=adapter.name)
    return base, match_base(adapter, locate(workspace, base, weights=False).config, base)


def _model(side: Choice) -> Candidate:
    if side.remote is not None:
        told, name = side.remote.model, side.remote.name
        return Candidate(f"{told}@{side.remote.server}", name, side.text, names=tuple(dict.fromkeys((name, told))))
    if side.card is not None:
        return Candidate(side.card.id, side.card.name, side.card.id, names=(side.card.name,))
    if side.whole is not None:
        return _whole(side.whole)
    name = Path(side.text).name
    return Candidate(side.text, name, side.text, names=(name,))


def _whole(whole: Whole) -> Candidate:
    card = find_model(whole.base_id)
    return Candidate(
        model=f"{whole.name}@{whole.digest}",
        name=whole.name,
        base=str(whole.folder),
        system=whole.system,
        names=(Path(whole.base_id).name, *((card.name,) if card else ())),
        tuned_from=card.id if card else whole.base_id,
    )


def _tuned(adapter: Adapter, base: str, asked: Asked) -> Candidate:
    card = find_model(base)
    candidate = Candidate(
        model=f"{adapter.name}@{adapter.sha256[:8]}",
        name=adapter.name,
        base=base,
        adapter=str(adapter.folder),
        system=adapter.system or "",
        template=adapter.template,
        names=(Path(base).name, *((card.name,) if card else ())),
    )
    return replace(candidate, system=asked.system or candidate.system, template=asked.template or candidate.template)


def shape_of(workspace: Workspace, model: str) -> Mapping[str, Any] | None:
    """Sizes of a model of the catalogue, or of one whose config is on this disk; None for any other."""
    card = find_model(model)
    if card is not None:
        return card.shape
    if not is_here(workspace, model):
        return None
    return shape_from(locate(workspace, model, weights=False).config)


def is_here(workspace: Workspace, model: str) -> bool:
    """Whether a model's files are on this disk already."""
    from huggingface_hub import try_to_load_from_cache

    if model == STARTER or (Path(model) / "config.json").is_file():
        return (workspace.models / Path(model).name / "source.json").exists() or Path(model).is_dir()
    return model.count("/") == 1 and isinstance(try_to_load_from_cache(model, "config.json"), str)
