"""Load the base for training: in 4 or 8 bits where asked, on the right device, ready for an adapter or to be trained whole.

Covers: dtype, quantisation, attention, the text part of multimodal checkpoints, float32-packed NF4. Does not cover:
downloading (assets/hub.py), the adapter's shape (train_lora.py) or the trainer (train.py).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, Gemma3ForCausalLM

from assets.attention import attention_for
from assets.errors import UserError
from assets.multimodal import TEXT_NAMES
from assets.quantised import NF4
from finetune.spec import TrainSpec
from finetune.train_canary import quantised_layers


def compute_dtype(precision: str) -> torch.dtype:
    return {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}[precision]


def quantisation(dtype: torch.dtype) -> BitsAndBytesConfig:
    """What the comparison quantises by too, computing in ``dtype``."""
    return BitsAndBytesConfig(**NF4, bnb_4bit_compute_dtype=dtype)


def load_base(folder: Path, spec: TrainSpec, precision: str, device: torch.device | str) -> Any:
    """The base model on ``device``: in float32 where all of it is trained, since 16 bits would lose small updates.

    UserErrors: "train.no_float16" for architectures that overflow in float16, "train.already_quantised" for a checkpoint in
    few bits with a method that wants them whole.
    """
    config = AutoConfig.from_pretrained(folder)
    text = getattr(config, "text_config", None) or config
    if precision == "float16" and text.model_type.startswith("gemma"):
        raise UserError("train.no_float16", model=spec.model.id)
    quantised = getattr(config, "quantization_config", None) is not None
    if quantised and spec.method != "qlora":
        raise UserError("train.already_quantised", model=spec.model.id)
    dtype = torch.float32 if spec.method == "full" else compute_dtype(precision)
    options: dict[str, Any] = {
        "dtype": dtype,
        "device_map": {"": device},
        "attn_implementation": attention_for(config, torch.device(device).type == "cuda"),
    }
    if spec.method == "qlora" and not quantised:
        options["quantization_config"] = quantisation(dtype)
    if spec.method == "qlora8":
        options["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True)
        logging.getLogger("bitsandbytes.autograd._functions").addFilter(_wanted)
    model = read_model(folder, config, options, spec.model.id)
    if spec.method == "qlora":
        _prepare_quantised(model, spec, dtype)
    if spec.method == "qlora8" and not any(p.dtype == torch.int8 for p in model.parameters()):
        raise UserError("train.not_quantised", model=spec.model.id)
    model.config.use_cache = False
    return model


def read_model(folder: Path, config: Any, options: dict[str, Any], name: str) -> Any:
    """The model with all of its weights. UserError("train.missing_weights") rather than going on with random ones."""
    kind: Any = AutoModelForCausalLM
    if config.model_type == "gemma3":  # a multimodal class, of which training wants the text model
        kind = Gemma3ForCausalLM
        text = config.text_config
        if getattr(config, "quantization_config", None) is not None:
            text.quantization_config = config.quantization_config
        options = {**options, "config": text, "key_mapping": TEXT_NAMES}
    model, found = kind.from_pretrained(folder, output_loading_info=True, **options)
    missing = sorted(found["missing_keys"])
    if missing:
        raise UserError("train.missing_weights", model=name, count=len(missing), first=missing[0])
    return model


def _wanted(record: logging.LogRecord) -> bool:
    """bitsandbytes says at every 8-bit layer of every pass that float16 is what it multiplies in."""
    return "will be cast from" not in record.getMessage()


def _prepare_quantised(model: Any, spec: TrainSpec, dtype: torch.dtype) -> None:
    """Every 4-bit layer packed as float32 and computing in ``dtype``, whoever made the checkpoint."""
    layers = quantised_layers(model)
    if not layers:
        raise UserError("train.not_quantised", model=spec.model.id)
    for layer in layers.values():
        layer.compute_dtype, layer.compute_type_is_set = dtype, True
        if layer.weight.dtype != torch.float32:
            _repack(layer)
        if layer.weight.device.type == "cpu":
            # bitsandbytes 0.50.2 repacks weights during evaluation on AVX512-BF16 CPUs and loses gradients afterwards.
            layer.support_avx512bf16_for_cpu = False


def _repack(layer: Any) -> None:
    """The same bytes seen as float32. Public checkpoints often hold uint8, which FSDP2 copies to every rank whole."""
    from bitsandbytes.nn import Params4bit

    old = layer.weight
    layer.weight = Params4bit(
        old.data.reshape(-1).view(torch.float32).reshape(-1, 1),
        requires_grad=False,
        quant_state=old.quant_state,
        blocksize=old.blocksize,
        compress_statistics=old.compress_statistics,
        quant_type=old.quant_type,
        quant_storage=torch.float32,
        module=layer,
        bnb_quantized=True,
    )
    layer.quant_state, layer.quant_storage = old.quant_state, torch.float32
