"""The sample answers at an evaluation.

Covers: the fixed prompts answered greedily, by one rank that has the whole model, or by all ranks in step where each
holds a part of it. Does not cover: choosing the prompts (train.py) or showing the answers (views.py).
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch.distributed.fsdp import register_fsdp_forward_method

from assets.chat import ChatFormat
from finetune import train_ranks as ranks
from finetune.spec import TrainSpec

SHARDED_TOKENS = 24  # every token gathers all shards once
SHARDED_SECONDS = 60.0  # per prompt


class Samples:
    """Answers to ``prompts``, written down by the main rank."""

    def __init__(self, prompts: list[list[dict[str, str]]], chat: ChatFormat, spec: TrainSpec, report: Any) -> None:
        self._prompts = prompts
        self._chat = chat
        self._system = spec.data.system or None
        self._tokens = min(spec.watch.sample_tokens, SHARDED_TOKENS) if ranks.sharded() else spec.watch.sample_tokens
        self._cut = self._tokens < spec.watch.sample_tokens and bool(prompts)
        self._report = report

    def begin(self, model: Any) -> None:
        """Once the model is sharded: ``generate`` is to gather what lies outside of the layers, as a forward pass does."""
        if not ranks.sharded():
            return
        register_fsdp_forward_method(model, "generate")
        if self._cut:
            self._report.note("train.samples_short", tokens=self._tokens)

    @torch.no_grad()
    def answer(self, model: Any, args: Any, step: int) -> None:
        """All ranks call it. In shards all of them generate, and go on with empty passes until the last one is done."""
        if ranks.rank() and not ranks.sharded():
            return
        model.eval()
        for prompt in self._prompts:
            ids = torch.tensor([self._chat.encode_prompt(prompt, self._system)], device=args.device)
            with precision_as_trained(args):
                out = model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=self._tokens,
                    max_time=SHARDED_SECONDS if ranks.sharded() else None,
                    do_sample=False,
                    use_cache=True,
                    eos_token_id=list(self._chat.stop_ids),
                    pad_token_id=self._chat.stop_ids[0],
                    synced_gpus=ranks.sharded() and ranks.world() > 1,
                )
            text = self._chat.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
            self._report.sample(step=step, prompt=prompt[-1]["content"], answer=text.strip())


def precision_as_trained(args: Any) -> Any:
    """What accelerate puts around the forward pass of every model but an FSDP2 one."""
    if not ranks.sharded() or not (args.bf16 or args.fp16):
        return contextlib.nullcontext()
    return torch.autocast(args.device.type, torch.bfloat16 if args.bf16 else torch.float16)
