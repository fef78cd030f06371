"""Merging a run's adapter into its 16-bit base, with the proof that the merged model answers as the adapter does.

Covers: merging on the CPU (never from 4 bits: what was trained beside NF4 is added to the base as it was published), the
folder that other programs open, comparing answers. Does not cover: the process around it (merge_run.py).

The proof: both models read the same texts with the same arithmetic; at every place of an answer the two distributions of
the next token are compared. ``TOLERANCE`` nats of Kullback-Leibler divergence on average are allowed, and a hundredth of
what the adapter itself changes where that is more: rounding the sum to 16 bits moves it a little.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from peft import PeftModel
from transformers import AutoConfig
from transformers.utils import logging

from assets.attention import attention_for
from assets.catalog import datasets, read_dialogues
from assets.chat import ChatFormat
from assets.errors import UserError
from assets.files import Workspace, read_json, write_json
from assets.hub import ModelFiles, locate
from finetune import merge as asked
from finetune import outcome, train_whole
from finetune.card import terms_of
from finetune.jobs import COMMIT
from finetune.train_model import read_model

TOLERANCE = {"float32": 1e-3, "bfloat16": 2e-2}  # nats per token, by what both models compute in
PART = 0.01  # of what the adapter changes
TEXTS, PLACES = 6, 48
HOST = 2 * 2**30  # what the libraries take beside the weights
OVER = 1.3  # weights while they are merged: one layer is there twice
Logs = list[torch.Tensor]


def merge(folder: Path, workspace: Workspace, told: Callable[[str], None]) -> dict[str, Any]:
    """Merge, save, reopen, compare; what merge.json keeps as its result. UserError when there is no room, when the base is
    in few bits, or when the answers differ (nothing is left then)."""
    logging.disable_progress_bar()
    run = read_json(folder / "run.json")
    revision = run["base"].get("revision") or ""
    told("load")
    files = locate(workspace, run["base"]["id"], revision if COMMIT.fullmatch(revision) else None)
    if "quantization_config" in files.config:
        raise UserError("merge.few_bits", model=files.id)
    numbers = train_whole.numbers_of(files.folder)
    dtype = compute_dtype(numbers)
    outcome.check_room(folder / asked.MERGED, 2 * numbers, "merge.disk")
    chat = ChatFormat.from_folder(files.folder, run.get("template"))
    texts = texts_for(chat, run.get("system") or None)
    tuned = PeftModel.from_pretrained(open_base(files, files.folder, dtype), folder / outcome.ADAPTER).eval()
    expected = answers(tuned, texts)
    with tuned.disable_adapter():
        changed = divergence(expected, answers(tuned, texts))
    told("merge")
    model = tuned.merge_and_unload(safe_merge=True)
    told("save")
    target = folder / asked.MERGED
    save(model, chat, target, run, files)
    del tuned, model
    gc.collect()
    told("check")
    found = answers(open_base(files, target, dtype), texts)
    return proved(expected, found, changed, dtype, target)


def proved(expected: Logs, found: Logs, changed: float, dtype: torch.dtype, target: Path) -> dict[str, Any]:
    """The figures of the proof. UserError("merge.disagrees") and no folder when they are beyond the tolerance."""
    name = str(dtype).removeprefix("torch.")
    off, limit = divergence(expected, found), max(TOLERANCE[name], PART * changed)
    same = sum(int((a.argmax(-1) == b.argmax(-1)).sum()) for a, b in zip(expected, found, strict=True))
    if not off <= limit:
        shutil.rmtree(target)
        raise UserError("merge.disagrees", off=f"{off:.4f}", limit=f"{limit:.4f}")
    shards = sorted(path.name for path in target.glob("*.safetensors"))
    return {
        "folder": asked.shown(target),
        "bytes": sum(path.stat().st_size for path in target.iterdir()),
        "shards": len(shards),
        "divergence": off,
        "tolerance": limit,
        "adapter_changes": changed,
        "same_token": same / sum(len(logs) for logs in expected),
        "tokens": sum(len(logs) for logs in expected),
        "computed_in": name,
    }


def compute_dtype(numbers: int) -> torch.dtype:
    """float32 where memory has the room, so that the sum is rounded once; else bfloat16. UserError("merge.memory")."""
    free = psutil.virtual_memory().available - HOST
    for dtype, size in ((torch.float32, 4), (torch.bfloat16, 2)):
        if numbers * size * OVER <= free:
            return dtype
    need = (numbers * 2 * OVER + HOST) / 2**30
    raise UserError("merge.memory", need=f"{need:.1f}", have=f"{(free + HOST) / 2**30:.1f}")


def open_base(files: ModelFiles, folder: Path, dtype: torch.dtype) -> Any:
    config = AutoConfig.from_pretrained(folder)
    options = {"dtype": dtype, "device_map": {"": "cpu"}, "attn_implementation": attention_for(config, False)}
    return read_model(folder, config, options, files.id).eval()


def texts_for(chat: ChatFormat, system: str | None) -> list[tuple[list[int], list[int]]]:
    """Held-out built-in conversations as (ids, places from which a token of an answer is foretold)."""
    found = []
    for card in datasets():
        if card.kind != "builtin" or card.heldout is None:
            continue
        for row in read_dialogues(card.heldout)[: TEXTS // 2]:
            one = chat.encode_training(row["messages"], system)
            places = [i for i, own in enumerate(one.trained[1:]) if own][:PLACES]
            found.append((one.ids[: places[-1] + 1], places))
    return found


@torch.inference_mode()
def answers(model: Any, texts: list[tuple[list[int], list[int]]]) -> Logs:
    """Log-probabilities [places, vocabulary] in float32 per text."""
    found = []
    for ids, places in texts:
        kept = torch.tensor(places)
        logits = model(input_ids=torch.tensor([ids]), use_cache=False, logits_to_keep=kept).logits[0]
        found.append(torch.log_softmax(logits.float(), -1))
    return found


def divergence(expected: Logs, found: Logs) -> float:
    """Mean Kullback-Leibler divergence per place, in nats."""
    sums = [float((a.exp() * (a - b)).sum()) for a, b in zip(expected, found, strict=True)]
    return sum(sums) / sum(len(logs) for logs in expected)


def save(model: Any, chat: ChatFormat, target: Path, run: dict[str, Any], files: ModelFiles) -> None:
    """Weights in 16 bits, settings that name every end of an answer, tokenizer and template, licence notice, record."""
    train_whole.tells_its_ends(model, chat.stop_ids)
    train_whole.write(all_weights(model), model, chat.tokenizer, target)
    for name in ("LICENSE", "LICENSE.txt", "NOTICE", "USE_POLICY.md"):
        if (files.folder / name).is_file():
            shutil.copyfile(files.folder / name, target / name)
    notice = terms_of(files.id).notice
    if notice and not (target / "NOTICE").exists():
        (target / "NOTICE").write_text(f"{notice}\n", encoding="utf-8")
    write_json(target / "run.json", run | {"name": f"{run['name']} · 16-bit", "merged": True})


def all_weights(model: Any) -> dict[str, torch.Tensor]:
    """Parameters, tied ones once, and the buffers that a checkpoint holds."""
    weights = dict(model.named_parameters())
    kept = set(model.state_dict())
    return weights | {name: buffer for name, buffer in model.named_buffers() if name in kept}
