"""A base and an adapter as anybody would run them: stock transformers, bitsandbytes and peft, one model at a time.

Covers: loading, greedy answers, the logits behind a token. Does not cover: what is compared with them (regenerate.py,
greedy.py). Nothing of compare/ computes here: that is what makes it a proof.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ULPS = 4  # of the 128 NF4 answers on the starter that greedy.py compares, the farthest tie lies 3 steps apart


@dataclass(frozen=True)
class Doubt:
    """A token of an answer that the model alone would not have drawn after the tokens before it: its ``place``, the
    token and the model's own (None for the end), and how far it lies below in logits. ``tie`` when rounding moves
    logits that far."""

    place: int
    drawn: int | None
    best: int | None
    gap: float
    rounding: float

    @property
    def tie(self) -> bool:
        return self.gap <= self.rounding


class Stock:
    """One base, and one adapter on it when a folder is given."""

    def __init__(self, base: Path, adapter: Path | None = None, weights: str = "nf4", device: str = "cpu") -> None:
        """``weights``: "nf4" or the name of a dtype, as in a rating's provenance."""
        self.model = _read(base, weights, device)
        if adapter is not None:
            from peft import PeftModel

            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # peft reads an attribute that transformers renames
                self.model = PeftModel.from_pretrained(self.model, adapter)
        self.model.eval()
        self.device = device

    def greedy(
        self, prompt: Sequence[int], new_tokens: int, stops: Sequence[int], repetition_penalty: float = 1.0
    ) -> list[int]:
        """The answer's tokens, without the one that ended it."""
        ids = torch.tensor([list(prompt)], device=self.device)
        options: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new_tokens,
                eos_token_id=list(stops),
                pad_token_id=stops[0],
                repetition_penalty=repetition_penalty,
                **options,
            )[0, len(prompt) :].tolist()
        return out[:-1] if out and out[-1] in stops else out

    def doubts(
        self, prompt: Sequence[int], answer: Sequence[int], stops: Sequence[int], ended: bool
    ) -> tuple[Doubt, ...]:
        """Every token of ``answer`` that this model would not have drawn there, in one pass over all of it.

        ``ended``: the answer ended by itself, so that its end is drawn as well.
        """
        with torch.inference_mode():
            ids = torch.tensor([[*prompt, *answer]], device=self.device)
            logits = self.model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 :].float()
        found = []
        for place, token in enumerate([*answer, *([None] if ended else [])]):
            here = logits[place]
            best = int(here.argmax())
            if best == token or (token is None and best in stops):
                continue
            drawn = float(here[list(stops)].max() if token is None else here[token])
            rounding = ULPS * _step(float(here.abs().max()), self.model.dtype)
            found.append(Doubt(place, token, None if best in stops else best, float(here[best]) - drawn, rounding))
        return tuple(found)


def _step(value: float, dtype: torch.dtype) -> float:
    """The distance between neighbouring numbers of a dtype at this magnitude; float32 sums carry about 1,000 of them."""
    own = torch.finfo(dtype).eps * 2 ** torch.tensor(abs(value)).log2().floor().item()
    return float(own) * (1000 if dtype == torch.float32 else 1)


def _read(base: Path, weights: str, device: str) -> Any:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    if weights != "nf4":
        return AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, weights), device_map={"": device})
    dtype = _compute_dtype(device)
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=torch.float32,
    )
    return AutoModelForCausalLM.from_pretrained(
        base, quantization_config=config, dtype=dtype, device_map={"": device}, attn_implementation=_attention(base)
    )


def _attention(base: Path) -> str:
    from transformers import AutoConfig

    kind = AutoConfig.from_pretrained(base).get_text_config().model_type
    return "eager" if kind == "gemma2" else "sdpa"


def _compute_dtype(device: str) -> torch.dtype:
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    from bitsandbytes.functional import has_avx512bf16

    return torch.bfloat16 if has_avx512bf16() else torch.float32
