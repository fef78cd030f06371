"""What the training tab says of runs elsewhere, as HTML text made from plain data.

Covers: the line below a run's head, prices, what was taken over. Does not cover: components (tab_elsewhere.py).
Everything that a server says is escaped.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from assets.errors import UserError
from assets.files import read_json
from assets.words import Words, duration
from finetune import plan as planning
from finetune.gpu import Gpu, Machine
from finetune.jobs import Job
from finetune.memory import GIB, Shape
from finetune.remote_hub import PRICES, Flavor
from finetune.remote_import import LINK
from finetune.spec import TrainSpec


def link_of(folder: Path) -> dict[str, Any]:
    """remote.json of a run, {} for one of this machine."""
    try:
        return dict(read_json(folder / LINK))
    except (OSError, ValueError, TypeError):
        return {}


def place(job: Job, folder: Path, words: Words) -> str:
    """Where a run is, with the way there and what keeps news from coming; "" for one of this machine."""
    if not job.elsewhere:
        return ""
    link = link_of(folder)
    if link.get("where") == "hf":
        return _hub(job, link, words)
    waiting = words("elsewhere.card.waiting", folder=f"jobs/{escape(job.id)}") if job.state == "starting" else ""
    return f'<p class="n-sub">{words("elsewhere.card.cluster")}</p>' + (
        f'<div class="n-note">{waiting}</div>' * bool(waiting)
    )


def _hub(job: Job, link: dict[str, Any], words: Words) -> str:
    stage = words("train.state." + job.state)
    parts = [words("elsewhere.card.hf", flavor=escape(str(link.get("flavor") or "?")), stage=stage)]
    if link.get("seconds"):
        parts.append(words("elsewhere.card.limit", time=duration(words, link["seconds"])))
    if str(link.get("url") or "").startswith(("https://", "http://")):
        href = escape(link["url"], quote=True)
        parts.append(f'<a href="{href}" target="_blank" rel="noopener">{words("elsewhere.card.link")}</a>')
    text = f'<p class="n-sub">{" · ".join(parts)}</p>'
    trouble = link.get("trouble")
    if trouble and job.active:
        why = words.error(UserError(trouble["key"], **trouble["values"]))
        text += f'<div class="n-note warn">{escape(words("elsewhere.card.trouble", why=why))}</div>'
    return text


def choices(flavors: list[Flavor], words: Words) -> list[tuple[str, str]]:
    """The list of hardware with its prices."""
    return [(_choice(one, words), one.name) for one in flavors]


def _choice(one: Flavor, words: Words) -> str:
    if one.hourly is None:
        return words("elsewhere.flavor.unpriced", label=one.label)
    return words("elsewhere.flavor.priced", label=one.label, price=f"{one.hourly:.2f}")


def cost(flavor: Flavor | None, minutes: float, words: Words) -> str:
    """What it costs at most, before anything is started."""
    if flavor is None:
        return ""
    if flavor.hourly is None:
        return f'<div class="n-note warn">{words("elsewhere.cost.unknown", link=PRICES)}</div>'
    most = flavor.hourly * minutes / 60
    text = words(
        "elsewhere.cost",
        hourly=f"{flavor.hourly:.2f}",
        time=duration(words, 60 * minutes),
        most=f"{most:.2f}",
        link=PRICES,
    )
    return f'<p class="n-sub">{text}</p>'


def fit(spec: TrainSpec, shape: Shape, flavor: Flavor) -> planning.LaunchPlan | None:
    """How the run would be placed on rented GPUs; None where nothing is known of them."""
    if not flavor.gpus or not flavor.memory:
        return None
    size = int(flavor.memory / flavor.gpus * GIB)
    modern = not flavor.name.startswith("t4")
    cards = tuple(Gpu(i, f"there-{i}", flavor.label, size, size, bfloat16=modern) for i in range(flavor.gpus))
    machine = Machine(cards, cores=8, memory=1 << 50, memory_free=1 << 50, disk_free=1 << 50)
    return planning.make(spec, machine, shape, Path("there"))


def bad(error: Exception, words: Words) -> str:
    """A refusal as a note."""
    if not isinstance(error, UserError):
        error = UserError("app.unexpected", reason=f"{type(error).__name__}: {error}"[:160])
    return f'<div class="n-note bad">{escape(words.error(error))}</div>'


def good(text: str) -> str:
    return f'<div class="n-note good">{escape(text)}</div>'


def warn(text: str) -> str:
    return f'<div class="n-note warn">{escape(text)}</div>'
