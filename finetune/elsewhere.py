"""Everything that runs elsewhere need, built once: the account, the service, the runners, who looks after them.

Covers: putting the parts together. Does not cover: what they do.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from finetune.jobs import Jobs
from finetune.remote_cluster import ClusterRunner
from finetune.remote_hub import Account, Service
from finetune.remote_jobs import HubRunner
from finetune.remote_watch import EVERY, Attendant
from finetune.runner import Runners


@dataclass(frozen=True)
class Elsewhere:
    """``runners.at("")`` is this machine, "hf" Hugging Face Jobs, "cluster" any other machine."""

    account: Account
    service: Service
    runners: Runners
    attendant: Attendant


def build(jobs: Jobs, endpoint: str | None = None, every: float = EVERY) -> Elsewhere:
    """``endpoint`` is another Hub than the library's own; ``every`` seconds runs elsewhere are asked about."""
    account = Account(library="SPACE_ID" not in os.environ)
    service = Service(account, endpoint)
    runners = Runners(jobs, {"hf": HubRunner(jobs, service), "cluster": ClusterRunner(jobs)})
    return Elsewhere(account, service, runners, Attendant(runners, every))
