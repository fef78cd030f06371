"""What a new study can be made of: models by name, prompt sets by size, and the ready-made studies.

Covers: candidates for two or more names, prompts of chosen sets, what a template fills in. Does not cover: the form
(tab_study_form.py), the defaults of a study (study_new.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from assets.catalog import Prompt, find_model
from assets.errors import UserError
from assets.files import Workspace
from assets.prompt_sets import BUILTIN, listed, own
from assets.split import is_heldout
from compare.candidates import Asked, choose, look_up, options
from compare.criteria import DOMAINS
from compare.desk import Candidate, Pair

KONI = "KISTI-KONI/KONI-Llama3.1-8B-Instruct-20241024"
PARTS = ("all", "learn", "heldout")
TEMPLATES = ("own", "koni")
PER_SET = 30


@dataclass(frozen=True)
class PromptSet:
    """A set to choose from. ``value`` is "builtin-emotion" or "own/<name>"; ``heldout`` are kept for judging."""

    value: str
    name: str
    prompts: tuple[Prompt, ...]

    @property
    def heldout(self) -> int:
        return sum(is_heldout(prompt.messages) for prompt in self.prompts)


def prompt_sets(workspace: Workspace) -> list[PromptSet]:
    """The built-in ones, then what was uploaded."""
    found = [
        PromptSet(f"builtin-{d}", d, tuple(p for p in listed(workspace, d) if "set" not in p.tags)) for d in BUILTIN
    ]
    mine: dict[str, list[Prompt]] = {}
    for prompt in own(workspace):
        mine.setdefault(str(prompt.tags["set"]), []).append(prompt)
    return found + [PromptSet(f"own/{name}", name, tuple(prompts)) for name, prompts in mine.items()]


def pick(sets: Iterable[PromptSet], chosen: Sequence[str], per_set: int, part: str = "all") -> tuple[Prompt, ...]:
    """Up to ``per_set`` prompts of each chosen set, spread evenly over it. ``part`` is one of PARTS."""
    taken: list[Prompt] = []
    for prompt_set in sets:
        if prompt_set.value in chosen:
            allowed = [p for p in prompt_set.prompts if part == "all" or is_heldout(p.messages) == (part == "heldout")]
            taken += _spread(allowed, per_set)
    return tuple(taken)


def _spread(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    if count >= len(prompts):
        return list(prompts)
    return [prompts[i * len(prompts) // count] for i in range(count)]


def domains(prompts: Iterable[Prompt]) -> tuple[str, ...]:
    """In the order the criteria have them, unknown ones last."""
    found = dict.fromkeys(prompt.domain for prompt in prompts)
    return tuple(d for d in DOMAINS if d in found) + tuple(d for d in found if d not in DOMAINS)


def loaded_names(pair: Pair | None) -> list[str]:
    return [] if pair is None else [candidate.adapter or candidate.base for candidate in pair.candidates]


def candidates(workspace: Workspace, names: Sequence[str], pair: Pair | None = None) -> list[Candidate]:
    """A candidate per name. The loaded pair is taken as it is loaded; else each is fitted to the first plain model.

    UserErrors: "study.two_models", and those of choosing.
    """
    wanted = list(dict.fromkeys(name.strip() for name in names if name.strip()))
    if len(wanted) < 2:
        raise UserError("study.two_models")
    known = dict(zip(loaded_names(pair), pair.candidates, strict=True)) if pair is not None else {}
    if all(name in known for name in wanted):
        return [known[name] for name in wanted]
    plain = next((name for name in wanted if not look_up(name).base_id), wanted[0])
    other = next(name for name in wanted if name != plain)
    found = {plain: choose(workspace, plain, other, Asked()).first}
    for name in wanted:
        if name != plain:
            found[name] = choose(workspace, plain if _fits(plain, name) else name, name, Asked()).second
    return [found[name] for name in wanted]


def _fits(plain: str, name: str) -> bool:
    """Whether ``name`` may be put on ``plain``: an adapter of another model keeps its own base."""
    adapter = look_up(name).adapter
    if adapter is None:
        return True
    card, own_card = find_model(plain), find_model(adapter.base_id)
    return card is None or own_card is None or card == own_card


@dataclass(frozen=True)
class Template:
    """What a ready-made study fills in. ``missing`` is a key of what has to be done first, or empty."""

    models: tuple[str, ...] = ()
    sets: tuple[str, ...] = ("builtin-emotion", "builtin-science")
    missing: str = ""


def template(workspace: Workspace, key: str, pair: Pair | None) -> Template:
    """ "koni": KONI beside the newest tuned Gemma, emotion and science. "own": the loaded pair."""
    if key != "koni":
        return Template(tuple(loaded_names(pair)))
    gemma = next((run for run in _runs(workspace) if "gemma" in _base(run).lower()), None)
    return Template((KONI, gemma) if gemma else (KONI,), missing="" if gemma else "studies.koni.no_gemma")


def _runs(workspace: Workspace) -> list[str]:
    return [option.value for option in options(workspace) if option.kind == "run"]


def _base(run: str) -> str:
    try:
        adapter = look_up(run).adapter
    except UserError:
        return ""
    return adapter.base_id if adapter else ""
