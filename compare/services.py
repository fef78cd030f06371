"""What the comparison and results tabs need, built once by the app and shared by every page and visitor.

Covers: the services as one value. Does not cover: what is one visitor's own (session.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from assets.files import Workspace
from compare.desk import Desk
from compare.engine import Engine
from compare.ratings import RatingsFile


@dataclass(frozen=True)
class CompareServices:
    """``owner`` says whether a gradio request may load, unload and download; ``ratings`` is the store of record.

    ``read_prompts(file, columns)`` gives prompts, the columns as used, and how many rows were left out; ``columns`` is
    "field=name, …" or empty for a guess.
    """

    workspace: Workspace
    engine: Engine
    ratings: RatingsFile
    owner: Callable[[Any], bool]
    app_version: str
    read_prompts: Callable[[Path, str], tuple[list[dict[str, Any]], str, int]]

    @cached_property
    def desk(self) -> Desk:
        """The one line in front of the engine."""
        return Desk(self.engine)
