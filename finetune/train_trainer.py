"""TRL's trainer as every placement here needs it.

Covers: which trainer and its arguments, the adapter that it begins with, FSDP2 that gathers bytes unchanged. Does not
cover: checkpoints (train_adapter.py), the losses for preferences (train_preference.py), the model (train_model.py) or
what is told about a run (train_watch.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from assets.chat import ChatFormat
from assets.errors import UserError
from finetune import train_ranks as ranks
from finetune import train_shard, train_whole
from finetune.gpu import cpu_bfloat16
from finetune.spec import TrainSpec
from finetune.train_adapter import AdapterOnly
from finetune.train_canary import Canary
from finetune.train_lora import lora_config
from finetune.train_model import load_base
from finetune.train_preference import arguments, trainer_of
from finetune.train_start import fill, with_adapter

Rows = dict[str, list[dict[str, Any]]]


class Trainer(AdapterOnly, SFTTrainer):  # type: ignore[misc]
    """Plain fine-tuning."""


def build(
    spec: TrainSpec, base: Path, folder: Path, rows: Rows, chat: ChatFormat, report: Any, start: Path | None = None
) -> Any:
    """The model with a fresh adapter, with the one in the folder ``start``, or to be trained whole, inside the trainer
    that the objective asks for, watched by its canary."""
    precision = precision_of(spec)
    args = training_arguments(spec, folder, precision, len(rows["train"]), bool(rows["heldout"]))
    device = "cpu" if args.use_cpu or ranks.sharded() else args.device  # shards are moved to the GPU layer by layer
    if spec.method == "full":
        train_whole.check_memory(base, args.device, ranks.world() if ranks.sharded() else 1)
    model = load_base(base, spec, precision, device)
    canary = Canary(model, report)
    if len(chat.tokenizer) > model.get_input_embeddings().weight.shape[0]:
        raise UserError(
            "train.vocabulary", tokens=len(chat.tokenizer), rows=model.get_input_embeddings().weight.shape[0]
        )
    config, weights = None, None
    if spec.method == "full":
        train_whole.tells_its_ends(model, chat.stop_ids)
        train_whole.check_disk(model, folder, spec.watch)
    else:
        config = lora_config(spec.lora, model)
    if start is not None:
        model, weights = with_adapter(model, config, start)
    kind: Any = Trainer if spec.objective == "sft" else trainer_of(spec)
    trainer = kind(
        model=model,
        args=args,
        train_dataset=Dataset.from_list(rows["train"]),
        eval_dataset=Dataset.from_list(rows["heldout"]) if rows["heldout"] else None,
        processing_class=_padded(chat),
        peft_config=config if weights is None else None,
    )
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:  # TRL makes them bf16, which loses small updates
            parameter.data = parameter.data.to(torch.float32)
    if weights is not None:
        fill(trainer.model, weights)
    trainer.canary = canary
    trainer.add_callback(canary)
    if trainer.is_fsdp_enabled:
        train_shard.shard_exactly(trainer, whole=spec.method == "full")
    report.write("facts", trainable=sum(p.numel() for p in trainer.model.parameters() if p.requires_grad))
    return trainer


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
    """TRL's configuration; steps are counted here so that "five evaluations" means the same for every run."""
    schedule = spec.schedule
    per_epoch = -(-rows // (schedule.micro_batch * schedule.accumulation * ranks.world()))
    steps = schedule.steps or max(1, round(per_epoch * schedule.epochs))
    every = spec.watch.every or max(1, steps // 5)
    common: dict[str, Any] = dict(
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
        gradient_checkpointing=schedule.checkpointing,
        seed=schedule.seed,
        bf16=precision == "bfloat16",
        fp16=precision == "float16",
        use_cpu=not torch.cuda.is_available(),
        optim="adamw_torch_fused",
        logging_steps=1,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if evaluates else "no",
        eval_on_start=evaluates,
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        prediction_loss_only=True,
        report_to="none",
        disable_tqdm=True,
        ddp_timeout=7200,
        **train_shard.options(),
    )
    if spec.objective != "sft":
        return arguments(spec, common)
    return SFTConfig(**common, max_length=schedule.max_length, packing=schedule.packing)
