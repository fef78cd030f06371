"""What the comparison and results tabs need, built once by the app and shared by every page and visitor.

Covers: the services as one value. Does not cover: what is one visitor's own (session.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from assets.files import Workspace
from compare.changes_measure import Measurer
from compare.desk import IDLE, Desk
from compare.engine import Engine
from compare.machine import Machine
from compare.ratings import RatingsFile
from compare.remote_engine_address import Keys
from compare.study_maker import Maker
from compare.study_serve import StudyService
from compare.study_store import Studies
from compare.sync import Sync


@dataclass(frozen=True)
class CompareServices:
    """``owner`` says whether a gradio request may load, unload and download; ``ratings`` is the store of record.

    ``read_prompts(file, columns)`` gives prompts, the columns as used, and how many rows were left out; ``columns`` is
    "field=name, …" or empty for a guess. ``idle``: seconds after which an unused pair gives its memory back, 0 for never.
    ``host`` is what the server listens on, which decides from where raters' links open. ``keys`` are those of other
    servers' models, ``sync`` the copy of the ratings on the Hub, if there is to be one.
    """

    workspace: Workspace
    engine: Engine
    ratings: RatingsFile
    owner: Callable[[Any], bool]
    app_version: str
    read_prompts: Callable[[Path, str], tuple[list[dict[str, Any]], str, int]]
    machine: Machine | None = None
    idle: float = IDLE
    keys: Keys = field(default_factory=Keys)
    host: str = "127.0.0.1"
    sync: Sync | None = None

    @cached_property
    def desk(self) -> Desk:
        """The one line in front of the engine."""
        return Desk(self.engine, self.machine, self.idle)

    @cached_property
    def studies(self) -> Studies:
        """The studies on disk."""
        return Studies(self.workspace)

    @cached_property
    def study_service(self) -> StudyService:
        """What raters' pages ask."""
        return StudyService(self.studies, self.ratings, self.app_version)

    @cached_property
    def maker(self) -> Maker:
        """Who makes answers behind the pages."""
        return Maker(self.studies, self.desk)

    @cached_property
    def measurer(self) -> Measurer:
        """Who measures what tuning changed behind the pages."""
        return Measurer(self.studies, self.desk, busy=lambda: self.maker.running)
