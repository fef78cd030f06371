"""On the path of GPU test processes only: less memory than the card has, or a card without bfloat16.

Python imports this file at start in every process whose PYTHONPATH holds its folder.
"""

from __future__ import annotations

import os


def cap(gigabytes: float) -> None:
    """Let this process have no more than that of the card."""
    import torch

    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(gigabytes * 1e9 / total, 0)


def hide_bfloat16() -> None:
    import torch

    torch.cuda.is_bf16_supported = lambda including_emulation=True: False


if "NARANHI_TEST_CAP" in os.environ:
    cap(float(os.environ["NARANHI_TEST_CAP"]))
if "NARANHI_TEST_NO_BF16" in os.environ:
    hide_bfloat16()
