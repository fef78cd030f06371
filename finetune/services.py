"""What the training tab needs from the program around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from assets.files import Workspace
from assets.words import Words
from finetune import elsewhere
from finetune.elsewhere import Elsewhere
from finetune.history import History
from finetune.jobs import Jobs
from finetune.readings import Readings


def no_verdict(sha256: str, words: Words) -> Sequence[str]:
    """For a training room without a comparison beside it."""
    return ()


@dataclass(frozen=True)
class TrainServices:
    """``owner`` says whether a request may start, stop or delete runs; ``verdict`` gives the sentences that votes allow
    about the adapter whose weights have this sha256."""

    workspace: Workspace
    jobs: Jobs
    owner: Callable[[Any], bool]
    verdict: Callable[[str, Words], Sequence[str]] = no_verdict

    @cached_property
    def elsewhere(self) -> Elsewhere:
        """Runs on other machines, and who looks after them."""
        return elsewhere.build(self.jobs)

    @cached_property
    def history(self) -> History:
        """How fast earlier runs were, shared by all pages."""
        return History(self.jobs)

    @cached_property
    def readings(self) -> Readings:
        """Data and tokenizers that the form has asked for, shared by all pages."""
        return Readings(self.workspace)
