"""What the training tab needs from the program around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from assets.files import Workspace
from finetune.jobs import Jobs


@dataclass(frozen=True)
class TrainServices:
    """``owner`` says whether a request may start, stop or delete runs."""

    workspace: Workspace
    jobs: Jobs
    owner: Callable[[Any], bool]
