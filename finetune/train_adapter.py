"""What every trainer here does its own way, whatever the loss.

Covers: checkpoints of what is trained (the adapter alone, or the whole model) that any number of ranks can go on from,
precision under FSDP2, the head on the GPU under CPU offload. Does not cover: losses and arguments (train_trainer.py,
train_preference.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers.trainer import SCHEDULER_NAME

from assets.errors import UserError
from finetune import train_resume, train_whole
from finetune.train_canary import Canary
from finetune.train_save import save_adapter


class AdapterOnly:
    """In front of one of TRL's trainers. Saves the adapter alone (the stock method gathers the whole base under FSDP),
    and states by name."""

    canary: Canary
    model: Any
    args: Any
    processing_class: Any
    accelerator: Any
    optimizer: Any
    lr_scheduler: Any
    is_fsdp_enabled: bool

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        target = Path(output_dir or self.args.output_dir)
        final, main = not target.name.startswith("checkpoint-"), self.args.should_save
        if hasattr(self.model, "peft_config"):
            save_adapter(self.model, self.processing_class, target, main, final)
        elif final:
            train_whole.save_final(self.model, self.processing_class, target, main)
        else:
            train_whole.save_checkpoint(self.model, self.processing_class, target, main)
        self.accelerator.wait_for_everyone()

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        keep = self.args.should_save
        train_resume.save_optimizer(self.optimizer, self.model, Path(output_dir), keep)
        if keep:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        train_resume.load_optimizer(self.optimizer, self.model, Path(checkpoint))
        train_resume.load_scheduler(self.lr_scheduler, self.optimizer, Path(checkpoint), self.args.learning_rate)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        train_resume.load_trained(self.model, Path(resume_from_checkpoint))

    def autocast_smart_context_manager(self, cache_enabled: bool | None = True) -> Any:
        """accelerate wraps the forward pass of every model but an FSDP2 one; without this the adapter would compute in
        another precision there."""
        return (
            self.accelerator.autocast()
            if self.is_fsdp_enabled
            else super().autocast_smart_context_manager(cache_enabled)  # type: ignore[misc]
        )

    def compute_loss(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        """TRL computes head and loss wherever the head's weight is, which must not be the host."""
        head = self.model.get_output_embeddings().weight
        if head.device.type != self.args.device.type:
            raise UserError("train.head_on_cpu")
        return super().compute_loss(model, *args, **kwargs)  # type: ignore[misc]
