"""Two to four runs beside each other: their curves in one picture and only the settings in which they differ.

Covers: the values of curves and of a table, as data and as HTML. Does not cover: choosing the runs (tab_side.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate
from typing import Any, Literal

from assets.errors import UserError
from assets.words import Words, duration, size
from finetune.charts import Line, chart
from finetune.jobs import Job, Jobs
from finetune.progress import Progress, read

Axis = Literal["step", "epoch", "time"]
AXES: tuple[Axis, ...] = ("step", "epoch", "time")
MOST = 4
COLORS = ("var(--n-indigo)", "var(--n-persimmon)", "#2c7a4b", "#76508a")
_QUIET = {"version", "name"}


@dataclass(frozen=True)
class Run:
    """One run as far as it is compared."""

    job: Job
    progress: Progress
    settings: Mapping[str, Any]


def runs(jobs: Jobs, ids: Sequence[str]) -> list[Run]:
    """The runs of these ids, in their order, at most MOST; those that cannot be read are left out."""
    found = []
    for job_id in ids[:MOST]:
        try:
            found.append(Run(jobs.get(job_id), read(jobs.folder(job_id)), flat(jobs.spec(job_id).to_dict())))
        except (UserError, FileNotFoundError):
            continue
    return found


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their path: {"lora": {"rank": 8}} -> {"lora.rank": 8}."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and key != "columns":
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out


def differing(chosen: Sequence[Run]) -> dict[str, list[Any]]:
    """Settings that are not alike in all runs, each with its value per run (None where a run has no such setting)."""
    keys = dict.fromkeys(key for run in chosen for key in run.settings)
    rows = {key: [run.settings.get(key) for run in chosen] for key in keys if key.split(".")[-1] not in _QUIET}
    return {key: values for key, values in rows.items() if any(value != values[0] for value in values)}


def across(progress: Progress, axis: Axis) -> dict[int, float]:
    """Where each step lies: its number, its epoch, or minutes of training since the start (evaluations left out)."""
    if axis == "step":
        return {row["step"]: row["step"] for row in progress.steps}
    if axis == "epoch":
        return {row["step"]: row.get("epoch") or 0.0 for row in progress.steps}
    minutes = accumulate(row["seconds"] / 60 for row in progress.steps)
    return {row["step"]: spent for row, spent in zip(progress.steps, minutes, strict=True)}


def curve(progress: Progress, axis: Axis, kind: Literal["loss", "eval"]) -> list[tuple[float, float]]:
    """(place on the axis, loss) of training or of the held-out conversations."""
    place = across(progress, axis) | {0: 0.0}
    rows = progress.steps if kind == "loss" else progress.evals
    return [(place[row["step"]], row["loss"]) for row in rows if row.get("loss") is not None and row["step"] in place]


def turned(progress: Progress, by: float = 0.01) -> int | None:
    """The step of the lowest held-out loss when it has risen by more than ``by`` of itself since; else None."""
    evals = [row for row in progress.evals if row.get("loss") is not None]
    if len(evals) < 3:
        return None
    best = min(evals, key=lambda row: row["loss"])
    return int(best["step"]) if evals[-1]["loss"] > best["loss"] * (1 + by) else None


def show(chosen: Sequence[Run], axis: Axis, words: Words) -> str:
    """Curves, figures and settings of the runs as HTML; a hint while there are fewer than two."""
    if len(chosen) < 2:
        return f'<p class="n-empty">{words("side.pick")}</p>'
    drawn = []
    for kind, title in (("eval", "train.n.eval"), ("loss", "train.n.loss")):
        lines = [
            Line(run.job.name, color, curve(run.progress, axis, kind), dots=kind == "eval")  # type: ignore[arg-type]
            for run, color in zip(chosen, COLORS, strict=False)
        ]
        drawn.append(f'<div><h4 class="n-h">{words(title)}</h4>{chart(words(title), lines)}</div>')
    return f'<div class="n-grid">{"".join(drawn)}</div>{table(chosen, words)}'


def table(chosen: Sequence[Run], words: Words) -> str:
    """Figures of each run, then the settings that differ."""
    head = "".join(
        f'<th scope="col"><i style="background:{color}"></i>{escape(run.job.name)}</th>'
        for run, color in zip(chosen, COLORS, strict=False)
    )
    rows = [_row(words(key), [figure(run, words) for run in chosen]) for key, figure in FIGURES.items()]
    differ = differing(chosen)
    rows += [_row(_label(key, words), [_text(value) for value in values]) for key, values in differ.items()]
    if not differ:
        rows.append(f'<tr><td colspan="{len(chosen) + 1}">{words("side.alike")}</td></tr>')
    return f'<div class="n-wide"><table class="n-table"><tr><th></th>{head}</tr>{"".join(rows)}</table></div>'


def _row(name: str, cells: Sequence[str]) -> str:
    return f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'


def _label(key: str, words: Words) -> str:
    section, _, name = key.rpartition(".")
    known = f"train.{section}" if name == "id" else f"train.f.{name}"
    return words(known) if known in words else key


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "–" if value is None or value == "" else str(value)


def _lowest(run: Run, words: Words) -> str:
    losses = [row["loss"] for row in run.progress.evals if row.get("loss") is not None]
    if not losses:
        return "–"
    at = turned(run.progress)
    return f"{min(losses):.3f}" + (f" ({words('side.turned', step=at)})" if at is not None else "")


def _spent(run: Run, words: Words) -> str:
    seconds = sum(row["seconds"] for row in run.progress.steps)
    return duration(words, seconds) if seconds else "–"


def _speed(run: Run, words: Words) -> str:
    speed = run.progress.latest("tokens_per_second")
    return "–" if speed is None else f"{speed:,.0f}"


def _memory(run: Run, words: Words) -> str:
    peak = run.progress.latest("gpu_memory") or run.progress.latest("host_memory")
    return size(peak) if peak else "–"


FIGURES = {"side.lowest": _lowest, "side.spent": _spent, "train.n.tps": _speed, "side.memory": _memory}
