"""From a job's files to numbers a page can show.

Covers: phase, step, curves, samples, the time that is left. Does not cover: drawing them. The training script writes
one JSON object per line; a run that was resumed repeats steps, and the later line counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from assets.files import read_lines

PHASES = ("start", "download", "quantise", "load", "train", "evaluate", "save")


@dataclass(frozen=True)
class Progress:
    """Where a run is. Times in seconds, memory in bytes; ``eta`` is None while it is not known.

    ``phases`` are those that the newest attempt has been through, ``phase`` the one it is in. ``others`` are losses on
    domains that are not trained.
    """

    phase: str | None = None
    step: int = 0
    total: int = 0
    eta: float | None = None
    steps: list[dict[str, Any]] = field(default_factory=list)
    evals: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    phases: tuple[str, ...] = ()
    others: list[dict[str, Any]] = field(default_factory=list)

    @property
    def share(self) -> float:
        return min(1.0, self.step / self.total) if self.total else 0.0

    def latest(self, key: str) -> float | None:
        """The newest value of a number such as "loss" or "tokens_per_second"."""
        return next((float(row[key]) for row in reversed(self.steps) if row.get(key) is not None), None)

    @property
    def ends(self) -> dict[str, tuple[float, float]]:
        """Domain that is not trained -> its loss before the first step and with the weights the run ended with."""
        found: dict[str, list[float]] = {}
        for row in self.others:
            if row["loss"] is None:
                continue
            losses = found.setdefault(row["domain"], [])
            if row["step"] == 0:
                losses[:] = [row["loss"]]
            elif losses:
                losses[1:] = [row["loss"]]
        return {domain: (losses[0], losses[1]) for domain, losses in found.items() if len(losses) == 2}


def phase_of(folder: Path) -> str | None:
    """The phase a run says it is in."""
    lines = [line for line in read_lines(folder / "metrics.jsonl") if line["event"] == "phase"]
    return str(lines[-1]["phase"]) if lines else None


def read(folder: Path) -> Progress:
    """A run as its files tell it now."""
    lines = read_lines(folder / "metrics.jsonl")
    attempt = [i for i, line in enumerate(lines) if line["event"] == "phase" and line["phase"] == "start"]
    facts = {k: v for line in lines if line["event"] == "facts" for k, v in line.items() if k not in ("event", "time")}
    steps = _by_step([line for line in lines if line["event"] == "step"])
    evals = _by_step([line for line in lines if line["event"] == "eval"])
    phases = [line["phase"] for line in lines if line["event"] == "phase"]
    recent = lines[attempt[-1] :] if attempt else lines
    total = int(facts.get("total_steps", 0))
    step = int(steps[-1]["step"]) if steps else 0
    return Progress(
        phase=phases[-1] if phases else None,
        phases=tuple(dict.fromkeys(line["phase"] for line in recent if line["event"] == "phase")),
        step=step,
        total=total,
        eta=_eta([line for line in recent if line["event"] == "step"], evals, step, total, facts),
        steps=steps,
        evals=evals,
        samples=read_lines(folder / "samples.jsonl"),
        notes=[line for line in lines if line["event"] == "note"],
        facts=facts,
        others=[line for line in lines if line["event"] == "other"],
    )


def _by_step(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per step, the latest; a resumed run drops what lay beyond its checkpoint."""
    kept: list[dict[str, Any]] = []
    for row in rows:
        while kept and kept[-1]["step"] >= row["step"]:
            kept.pop()
        kept.append(row)
    return kept


def _eta(
    steps: list[dict[str, Any]], evals: list[dict[str, Any]], step: int, total: int, facts: dict[str, Any]
) -> float | None:
    seconds = [row["seconds"] for row in steps[1:][-50:]]
    if len(seconds) < 2 or not total:
        return None
    every = facts.get("eval_every") or total
    left_evals = total // every - step // every
    per_eval = median([row["seconds"] for row in evals[-3:]]) if evals else 0.0
    return float(median(seconds) * (total - step) + per_eval * left_evals)


def tail(file: Path, size: int = 20_000) -> str:
    """The last ``size`` bytes of a log as text, beginning at a line."""
    if not file.exists():
        return ""
    with file.open("rb") as log:
        log.seek(0, 2)
        length = log.tell()
        log.seek(max(0, length - size))
        data = log.read()
    text = data.decode("utf-8", errors="replace")
    text = text if length <= size else text.split("\n", 1)[-1]
    return "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.rstrip("\n").split("\n"))
