"""The processes of one run: which one this is, and how all of them come to know the same.

Covers: what the launcher put into the environment, values that rank 0 decides or that every rank contributes. Does not
cover: gradients and weights, which the trainer's libraries send.
"""

from __future__ import annotations

import os
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def world() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def sharded() -> bool:
    """Whether the launcher asked for FSDP; accelerate knows it by the literal word."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def offloaded() -> bool:
    return sharded() and os.environ.get("FSDP_OFFLOAD_PARAMS", "false").lower() == "true"


def launched() -> bool:
    """Whether a launcher watches this process; it takes every exit code but 0 for a crash."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def placement() -> str:
    return "fsdp" if sharded() else "ddp" if world() > 1 else "single"


def together() -> bool:
    """Whether this process is in a group with others, so that what follows is collective."""
    return bool(torch.distributed.is_available() and torch.distributed.is_initialized())


def agreed(value: T) -> T:
    """What rank 0 says, on every rank. Collective."""
    if not together():
        return value
    answer: list[Any] = [value]
    torch.distributed.broadcast_object_list(answer, src=0)
    result: T = answer[0]
    return result


def gathered(value: T) -> list[T]:
    """What every rank says, in order of rank, on every rank. Collective."""
    if not together():
        return [value]
    answers: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(answers, value)
    return answers


def wait() -> None:
    """Until every rank is here."""
    if together():
        torch.distributed.barrier()


def leave() -> None:
    if together():
        torch.distributed.destroy_process_group()
