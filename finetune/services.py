"""What the training tab needs from the program around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from assets.files import Workspace
from finetune.jobs import Jobs
from finetune.readings import Readings


@dataclass(frozen=True)
class TrainServices:
    """``owner`` says whether a request may start, stop or delete runs."""

    workspace: Workspace
    jobs: Jobs
    owner: Callable[[Any], bool]

    @cached_property
    def readings(self) -> Readings:
        """Data and tokenizers that the form has asked for, shared by all pages."""
        return Readings(self.workspace)
