"""Streams beside the current one, one per device and purpose for the whole process.

cuBLAS keeps a work space for every stream in which it has ever run (32 MiB on Hopper), and torch deals out up to 32
different ones: a stream made anew for each recording or each pair of models would add up to 1 GiB that nothing gives back.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch


@cache
def side_stream(device: torch.device, purpose: Literal["record", "adapters"]) -> torch.cuda.Stream:
    """The same one at every call. ``device``: a CUDA device with its index."""
    return torch.cuda.Stream(device)
