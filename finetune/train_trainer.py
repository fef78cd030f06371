"""TRL's trainer as every placement here needs it.

Covers: its arguments, FSDP2 that gathers bytes unchanged, checkpoints of the adapter alone that any number of ranks can
go on from, the head on the GPU under CPU offload. Does not cover: the model (train_model.py) or what is told about a
run (train_watch.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard
from transformers.trainer import SCHEDULER_NAME
from trl import SFTConfig, SFTTrainer

from assets.chat import ChatFormat
from assets.errors import UserError
from finetune import train_ranks as ranks
from finetune import train_resume
from finetune.gpu import cpu_bfloat16
from finetune.spec import TrainSpec
from finetune.train_canary import Canary
from finetune.train_model import load_base, lora_config
from finetune.train_save import save_adapter

Rows = dict[str, list[dict[str, list[int]]]]


class Trainer(SFTTrainer):  # type: ignore[misc]
    """Saves the adapter alone (the stock method gathers the whole base under FSDP), and states by name."""

    canary: Canary

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        target = Path(output_dir or self.args.output_dir)
        final = not target.name.startswith("checkpoint-")
        save_adapter(self.model, self.processing_class, target, self.args.should_save, final)
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
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        train_resume.load_adapter(self.model, Path(resume_from_checkpoint))

    def autocast_smart_context_manager(self, cache_enabled: bool | None = True) -> Any:
        """accelerate wraps the forward pass of every model but an FSDP2 one; without this the adapter would compute in
        another precision there."""
        return (
            self.accelerator.autocast()
            if self.is_fsdp_enabled
            else super().autocast_smart_context_manager(cache_enabled)
        )

    def compute_loss(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        """TRL computes head and loss wherever the head's weight is, which must not be the host."""
        head = self.model.get_output_embeddings().weight
        if head.device.type != self.args.device.type:
            raise UserError("train.head_on_cpu")
        return super().compute_loss(model, *args, **kwargs)


def build(spec: TrainSpec, base: Path, folder: Path, rows: Rows, chat: ChatFormat, report: Any) -> Trainer:
    """The model in 4 bits with a fresh adapter, inside the trainer, watched by its canary."""
    precision = precision_of(spec)
    args = training_arguments(spec, folder, precision, len(rows["train"]), bool(rows["heldout"]))
    device = "cpu" if args.use_cpu or ranks.sharded() else args.device  # shards are moved to the GPU layer by layer
    model = load_base(base, spec, precision, device)
    canary = Canary(model, report)
    if len(chat.tokenizer) > model.get_input_embeddings().weight.shape[0]:
        raise UserError(
            "train.vocabulary", tokens=len(chat.tokenizer), rows=model.get_input_embeddings().weight.shape[0]
        )
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=Dataset.from_list(rows["train"]),
        eval_dataset=Dataset.from_list(rows["heldout"]) if rows["heldout"] else None,
        processing_class=_padded(chat),
        peft_config=lora_config(spec.lora, model),
    )
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:  # TRL makes them bf16, which loses small updates
            parameter.data = parameter.data.to(torch.float32)
    trainer.canary = canary
    trainer.add_callback(canary)
    if trainer.is_fsdp_enabled:
        shard_exactly(trainer)
    report.write("facts", trainable=sum(p.numel() for p in trainer.model.parameters() if p.requires_grad))
    return trainer


def shard_exactly(trainer: Trainer) -> None:
    """Gather every parameter in the dtype it is stored in.

    accelerate would cast to bf16 on the way, which rewrites packed NF4 bytes that look like a NaN, and rounds outputs.
    """
    plugin = trainer.accelerator.state.fsdp_plugin
    plugin.mixed_precision_policy = MixedPrecisionPolicy()
    if isinstance(plugin.cpu_offload, CPUOffloadPolicy):
        keep_head_on_device(trainer.model)


def keep_head_on_device(model: Any) -> None:
    """Shard embeddings and head without offload, before accelerate shards the rest with it."""
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head.weight is embeddings.weight:
        fully_shard([embeddings, head], reshard_after_forward=False)
        return
    fully_shard(embeddings)
    fully_shard(head, reshard_after_forward=False)


def _padded(chat: ChatFormat) -> Any:
    tokenizer = chat.tokenizer
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(chat.stop_ids[0])
    return tokenizer


def precision_of(spec: TrainSpec) -> str:
    if spec.hardware.precision != "auto":
        return spec.hardware.precision
    if not torch.cuda.is_available():
        return "bfloat16" if cpu_bfloat16() else "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"


def training_arguments(spec: TrainSpec, folder: Path, precision: str, rows: int, evaluates: bool) -> Any:
    """SFTConfig from the spec; steps are counted here so that "five evaluations" means the same for every run."""
    schedule = spec.schedule
    per_epoch = -(-rows // (schedule.micro_batch * schedule.accumulation * ranks.world()))
    steps = schedule.steps or max(1, round(per_epoch * schedule.epochs))
    every = spec.watch.every or max(1, steps // 5)
    return SFTConfig(
        output_dir=str(folder / "checkpoints"),
        max_steps=steps,
        per_device_train_batch_size=schedule.micro_batch,
        per_device_eval_batch_size=schedule.micro_batch,
        gradient_accumulation_steps=schedule.accumulation,
        learning_rate=schedule.learning_rate,
        lr_scheduler_type=schedule.scheduler,
        warmup_steps=max(1, round(schedule.warmup * steps)) if schedule.warmup else 0,
        weight_decay=schedule.weight_decay,
        max_grad_norm=schedule.max_grad_norm,
        max_length=schedule.max_length,
        packing=schedule.packing,
        gradient_checkpointing=schedule.checkpointing,
        seed=schedule.seed,
        bf16=precision == "bfloat16",
        fp16=precision == "float16",
        use_cpu=not torch.cuda.is_available(),
        optim="adamw_torch_fused",
        logging_steps=1,
        logging_first_step=True,
        eval_strategy="steps" if evaluates else "no",
        eval_on_start=evaluates,
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        prediction_loss_only=True,
        report_to="none",
        disable_tqdm=True,
        ddp_timeout=7200,
        **_sharding(),
    )


def _sharding() -> dict[str, Any]:
    """FSDP2 full shard. Its own activation checkpointing stays off: with it PEFT saves an empty adapter."""
    if not ranks.sharded():
        return {}
    return {
        "fsdp": True,
        "fsdp_config": {
            "version": 2,
            "reshard_after_forward": True,
            "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "state_dict_type": "FULL_STATE_DICT",
            "cpu_ram_efficient_loading": False,
            "cpu_offload": ranks.offloaded(),
            "activation_checkpointing": False,
        },
    }
