"""A preference file from votes, ready for the training tab.

Covers: what the file says about itself (votes, filter, models, the adapter to go on from), writing it. Does not cover:
which votes count (pairs.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from assets.catalog import find_model
from assets.files import Workspace
from assets.preferences import PreferenceFile, store
from compare.adapters import Adapter, find_adapters
from compare.pairs import Objective, PairFilter, Pairs, from_votes
from compare.rating import Rating


def make(
    workspace: Workspace,
    votes: Iterable[Rating],
    chosen: PairFilter,
    objective: Objective | None = None,
    name: str = "",
) -> PreferenceFile:
    """The file for these votes. UserErrors of ``from_votes``."""
    pairs = from_votes(votes, chosen, objective)
    return store(workspace, name or _name(pairs), pairs.objective, pairs.rows, about(workspace, pairs))


def about(workspace: Workspace, pairs: Pairs) -> dict[str, Any]:
    """The side file: where the rows come from, and what a run on them should begin with."""
    models = sorted({m for v in pairs.verdicts for m in (v.vote.model_a, v.vote.model_b)})
    studies = sorted({v.vote.study_id for v in pairs.verdicts} - {""})
    parent = _parent(workspace, pairs)
    return {
        "votes": {"count": len(pairs.used), "raters": pairs.raters, "sha256": pairs.sha256},
        "filter": asdict(pairs.filter),
        "study_id": studies[0] if len(studies) == 1 else "",
        "studies": studies,
        "models": models,
        "decided": pairs.decided,
        "both_bad": pairs.both_bad,
        "left_out": dict(pairs.left_out),
        "undecided": dict(pairs.undecided),
        "system": _system(pairs),
        "adapter": str(parent.folder) if parent else "",
        "base": _base(pairs, parent),
    }


def _name(pairs: Pairs) -> str:
    votes = [verdict.vote for verdict in pairs.verdicts]
    newest = max(vote.created_at for vote in votes)[:10]
    return "-".join(part for part in (pairs.filter.study or pairs.filter.domain or "votes", newest) if part)


def _parent(workspace: Workspace, pairs: Pairs) -> Adapter | None:
    """The compared adapter that answered best, among those that are still here."""
    wins: Counter[str] = Counter()
    for verdict in pairs.verdicts:
        for side, model in (("model_a", verdict.vote.model_a), ("model_b", verdict.vote.model_b)):
            wins[model] += verdict.winner == side
    names = {model.rpartition("@")[2] for model in wins if "@" in model}
    here = {f"{a.name}@{a.sha256[:8]}": a for a in find_adapters(workspace.jobs).adapters if names}
    return next((here[model] for model, _ in wins.most_common() if model in here), None)


def _base(pairs: Pairs, parent: Adapter | None) -> str:
    if parent is not None:
        card = find_model(parent.base_id)
        return card.id if card else parent.base_id
    for verdict in pairs.verdicts:
        for side in ("model_a", "model_b"):
            told = verdict.vote.provenance.get(side)
            if isinstance(told, dict) and told.get("base"):
                return str(told["base"])
    return ""


def _system(pairs: Pairs) -> str:
    """The system prompt that most prompts have; each row carries its own besides."""
    found = Counter(
        turn["content"] for verdict in pairs.verdicts for turn in verdict.prompt[:1] if turn["role"] == "system"
    )
    return found.most_common(1)[0][0] if found else ""


def told(pairs: Pairs) -> list[tuple[str, int]]:
    """What was left out, as (key under "ratings.left_out.", count), the commonest first."""
    return sorted([*pairs.left_out.items(), *pairs.undecided.items()], key=lambda entry: -entry[1])
