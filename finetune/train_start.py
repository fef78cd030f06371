"""Go on from an adapter that exists: its tensors, exactly, in the model that is trained and in the frozen reference.

Covers: reading the weights, comparing them with the model's own, putting them back after TRL has rounded them. Does not
cover: whether the folder fits the run (start.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from assets.errors import UserError
from finetune.start import WEIGHTS
from finetune.train_save import file_name

Weights = dict[str, torch.Tensor]


def with_adapter(model: Any, config: LoraConfig, folder: Path) -> tuple[Any, Weights]:
    """The base with the adapter on it, and the adapter's tensors by file name. UserError("start.tensors_differ")."""
    weights = load_file(folder / WEIGHTS)
    tuned = get_peft_model(model, config)
    shapes = {file_name(name): p.shape for name, p in tuned.named_parameters() if p.requires_grad}
    wrong = sorted(name for name in shapes.keys() | weights.keys() if not _same(shapes.get(name), weights.get(name)))
    if wrong:
        raise UserError("start.tensors_differ", adapter=folder.parent.name, count=len(wrong), first=wrong[0])
    fill(tuned, weights)
    return tuned, weights


def fill(model: Any, weights: Weights) -> None:
    """Write the tensors, in float32, into the trained adapter and into the reference "ref" where there is one.

    TRL makes trained parameters bfloat16 on the way, which would begin a little beside the adapter. Each gets a copy of
    its own: what is trained must not carry its reference along.
    """
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = weights[file_name(name)].to(parameter.device, torch.float32, copy=True)
            parameter.requires_grad_(".ref." not in name)


def _same(shape: torch.Size | None, tensor: torch.Tensor | None) -> bool:
    return shape is not None and tensor is not None and shape == tensor.shape
