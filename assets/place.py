"""Where the app runs, what works there, and what does not and why.

Covers: this computer, a GPU server, Kaggle and Colab, Spaces with a CPU, a GPU or ZeroGPU; one fold of HTML that says it.
Does not cover: what exactly fits (finetune/plan.py) and who holds which device (the strip on top).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Literal

from assets.words import Words

Kind = Literal["laptop", "server", "notebook", "space_cpu", "space_gpu", "space_zero"]
_NOTEBOOKS = ("KAGGLE_KERNEL_RUN_TYPE", "COLAB_RELEASE_TAG", "COLAB_GPU")
_TRUE = ("1", "true", "t")  # as ZeroGPU's own package reads it
_CPU = ("", "none", "cpu", "cpu-basic", "cpu-upgrade")

# What each place cannot do or keep, in the order of how much it matters there.
_LIMITS: Mapping[Kind, tuple[str, ...]] = {
    "laptop": ("slow",),
    "server": (),
    "notebook": ("session",),
    "space_cpu": ("disk", "slow", "sleep"),
    "space_gpu": ("disk", "paid"),
    "space_zero": ("zero_training", "zero_quota", "disk"),
}


@dataclass(frozen=True)
class Place:
    """``gpus`` that training may use; ``keeps_votes`` when a copy of them is kept on the Hub."""

    kind: Kind
    gpus: int = 0
    keeps_votes: bool = False

    @property
    def closed(self) -> str:
        """The key of the sentence why nothing can be trained here; "" where it can."""
        return "place.no_training" if self.kind == "space_zero" else ""

    @property
    def limits(self) -> tuple[str, ...]:
        """Keys of place.limit.…"""
        return tuple("disk_votes_kept" if one == "disk" and self.keeps_votes else one for one in _LIMITS[self.kind])


def zero(environment: Mapping[str, str]) -> bool:
    """Whether this is ZeroGPU, which lends a GPU to single calls."""
    return environment.get("SPACES_ZERO_GPU", "").lower() in _TRUE


def find(environment: Mapping[str, str], gpus: int) -> Place:
    """By the variables that Spaces, Kaggle and Colab set, and the number of GPUs that were found."""
    kept = bool(environment.get("NARANHI_RATINGS_REPO", "").strip())
    if zero(environment):
        return Place("space_zero", 0, kept)
    if environment.get("SPACE_ID"):
        gpu = gpus > 0 or environment.get("ACCELERATOR", "").lower() not in _CPU
        return Place("space_gpu" if gpu else "space_cpu", gpus, kept)
    if any(environment.get(name) for name in _NOTEBOOKS):
        return Place("notebook", gpus, kept)
    return Place("server" if gpus else "laptop", gpus, kept)


def html(place: Place, words: Words) -> str:
    """A fold whose summary names the place; "" where nothing is missing, so that there is nothing to say."""
    if not place.limits:
        return ""
    works = words("place.works.gpu" if place.gpus else f"place.works.{place.kind}")
    said = (works, *(words(f"place.limit.{limit}") for limit in place.limits))
    lines = "".join(f"<li>{escape(line)}</li>" for line in said)
    name = words(f"place.kind.{place.kind}", gpus=place.gpus)
    return f'<details class="n-place"><summary>{escape(words("place.here", place=name))}</summary><ul>{lines}</ul></details>'
