"""The arms that share one base: reading it, putting its adapters in place, proving its rows, comparing two of them.

Covers: files, formats and decoder of one base, which may leave memory and come back. Does not cover: several bases,
events and times (local_engine.py), how a checkpoint is read (local_engine_model.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from assets.chat import ChatFormat
from assets.errors import UserError
from assets.files import Workspace
from assets.hub import ModelFiles, locate, readable_errors
from assets.quantised import find_copy, source_of
from compare.decode import CHUNK, Decoder
from compare.decode_check import PROMPT, check_panes
from compare.decode_force import forced_logprobs
from compare.decode_lora import Adapter, read_adapter
from compare.decode_stages import Stage
from compare.engine import ArmInfo, Changes, ChangesAsked, LoadSpec, Message, PaneCheck, TokenChange
from compare.local_engine_model import load_model, move_model
from compare.local_engine_sizes import sizes_of
from compare.spread import Sizes

CPU_CHUNK = 64


class Group:
    """The arms of one base. Row i answers for ``arms[i]``; ``decoder`` is there while the weights are in memory.

    ``context`` in tokens and ``weights`` ("nf4" or a dtype) are known from the first ``attach`` on.
    """

    def __init__(self, workspace: Workspace, base: str, spec: LoadSpec) -> None:
        """Finds the files, downloading what is missing, and reads the templates. ``stages`` are to be set then, and
        ``meant_for`` where another device than the first stage's will compute (``move``)."""
        self.files = locate(workspace, base)
        self.arms = [arm for arm in spec.arms if arm.base == base]
        self.formats = {
            arm.key: ChatFormat.from_folder(self.files.folder, spec.templates.get(arm.key)) for arm in self.arms
        }
        self.adapters: list[Adapter | None] = []
        self.decoder: Decoder | None = None
        self.context = 0
        self.weights = ""
        self._model: Any = None
        self.stages: tuple[Stage, ...] = ()
        self.meant_for: torch.device | None = None
        self._workspace, self._quantise = workspace, spec.quantise

    @property
    def ready(self) -> Decoder:
        assert self.decoder is not None
        return self.decoder

    def sizes(self) -> Sizes:
        """Bytes in memory, layer by layer, with adapters and conversations."""
        files = self._weights()
        quantise = self._quantise and "quantization_config" not in files.config
        folders = {arm.adapter: adapter_folder(arm.adapter) for arm in self.arms if arm.adapter}
        adapters = [path for folder in folders.values() for path in folder.glob("adapter_*.safetensors")]
        return sizes_of(files.folder, files.config, quantise, len(self.arms), adapters)

    @property
    def _device(self) -> torch.device:
        return self.stages[0].device

    def read(self) -> Generator[float, None, None]:
        """The weights; yields the share done."""
        self._model = yield from load_model(
            self._weights(), self._quantise, self._device, stages=self.stages, meant_for=self.meant_for
        )

    def weight_bytes(self) -> int:
        """Of the weights read and not yet attached."""
        tensors = () if self._model is None else (*self._model.parameters(), *self._model.buffers())
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def move(self, device: torch.device) -> None:
        """What was read for this device, onto it."""
        self._model = move_model(self._model, device)
        self.stages = (Stage(device, 0),)

    def attach(self) -> None:
        """The adapters beside the weights read, and the decoder for all rows. UserError for one that does not fit."""
        model, self._model = self._model, None
        read: dict[str | None, Adapter | None] = {None: None}
        for arm in self.arms:
            if arm.adapter not in read:
                read[arm.adapter] = read_adapter(adapter_folder(str(arm.adapter)), model, self._adapter_dtype(model))
        self.adapters = [read[arm.adapter] for arm in self.arms]
        self.decoder = Decoder(model, self.adapters, CHUNK if self._device.type == "cuda" else CPU_CHUNK)
        if self.decoder.unknown_layers:
            raise UserError("engine.unknown_architecture", model=self.files.id)
        self.context = self.decoder.context
        packed = getattr(model, "is_loaded_in_4bit", False)
        self.weights = "nf4" if packed else str(model.dtype).removeprefix("torch.")

    def check(self) -> PaneCheck:
        return check_panes(self.ready, self.adapters, self.formats[self.arms[0].key].encode_prompt(PROMPT))

    def close(self) -> None:
        """Out of memory, as far as this object holds it."""
        self.adapters, self.decoder, self._model = [], None, None

    def infos(self) -> Iterator[tuple[str, ArmInfo]]:
        revision = source_of(self.files)
        for arm, adapter in zip(self.arms, self.adapters, strict=True):
            template = self.formats[arm.key].template_hash
            proof = (adapter.sha256, adapter.parameters) if adapter else (None, 0)
            yield arm.key, ArmInfo(template, revision, *proof)

    def encode(self, turns: Mapping[str, Sequence[Message]], system: str | None) -> dict[int, list[int]]:
        """Prompts by row, for the arms of this group. UserError when one is empty or as long as the context."""
        prompts = {}
        for row, arm in enumerate(self.arms):
            if arm.key in turns:
                prompts[row] = self._prompt(arm.key, turns[arm.key], system)
        return prompts

    def changes(self, asked: ChangesAsked, stopped: Callable[[], bool] = lambda: False) -> Changes | None:
        """See Engine.changes. Both arms are of this group. None when it was stopped."""
        model, limit = self.ready.model, self.context
        rows = [next(i for i, arm in enumerate(self.arms) if arm.key == key) for key in (asked.base, asked.tuned)]
        adapters = [self.adapters[row] for row in rows]
        form = self.formats[asked.tuned]
        prompt = self._prompt(asked.tuned, asked.turns, asked.system)
        base, tuned = (_answer_ids(form, asked.answers.get(key, "")) for key in (asked.base, asked.tuned))
        tokens: list[TokenChange] = []
        texts = form.pieces(tuned)
        if len(prompt) + len(tuned) > limit:
            raise UserError("engine.prompt_too_long", tokens=len(prompt) + len(tuned), limit=limit)
        for logs in forced_logprobs(model, adapters, prompt, tuned, stopped) if tuned else ():
            tokens += _changed(logs, tuned[len(tokens) :], texts[len(tokens) :])
        right = _answer_ids(form, asked.reference.strip())
        fits = 0 < len(right) <= limit - len(prompt)
        likely = _perplexity(forced_logprobs(model, adapters, prompt, right, stopped), right) if fits else None
        return None if stopped() else Changes(tuple(tokens), _parted(base, tuned), likely)

    def _prompt(self, key: str, turns: Sequence[Message], system: str | None) -> list[int]:
        ids = self.formats[key].encode_prompt([dict(turn) for turn in turns], system)
        if not ids:
            raise UserError("engine.empty_prompt")
        if len(ids) >= self.context:
            raise UserError("engine.prompt_too_long", tokens=len(ids), limit=self.context)
        return ids

    def _weights(self) -> ModelFiles:
        """The copy in 4 bits that training made of this very model, if there is one: the bytes it was trained on."""
        copy = find_copy(self._workspace, self.files) if self._quantise else None
        return replace(self.files, folder=copy) if copy else self.files

    def _adapter_dtype(self, model: Any) -> torch.dtype:
        dtype: torch.dtype = model.dtype if self._device.type == "cuda" else torch.float32
        return dtype


def groups_of(workspace: Workspace, spec: LoadSpec) -> list[Group]:
    return [Group(workspace, base, spec) for base in dict.fromkeys(arm.base for arm in spec.arms)]


def adapter_folder(name: str) -> Path:
    """A folder, or a download of the few files of an adapter. UserError when there is no such thing."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if name.startswith(("/", ".", "~")) or name.count("/") != 1:
        raise UserError("engine.adapter_not_found", adapter=folder.name)
    from huggingface_hub import snapshot_download

    with readable_errors(name):
        return Path(snapshot_download(name, allow_patterns=["adapter_*.safetensors", "adapter_config.json"]))


def _answer_ids(form: ChatFormat, text: str) -> list[int]:
    ids: list[int] = form.tokenizer.encode(text, add_special_tokens=False)
    return ids


def _changed(logs: torch.Tensor, tokens: Sequence[int], texts: Sequence[str]) -> list[TokenChange]:
    """Per place of ``logs`` [2, n, vocabulary] (base, tuned): how far apart, and what each gave to the token there."""
    count = logs.shape[1]
    base, tuned = logs
    nats = (tuned.exp() * (tuned - base)).sum(-1).clamp_min(0).tolist()
    drawn = torch.tensor(list(tokens[:count]), device=logs.device).expand(2, -1)[..., None]
    chances = logs.gather(-1, drawn)[..., 0].exp().tolist()
    return [TokenChange(*row) for row in zip(texts[:count], nats, *chances, strict=True)]


def _perplexity(chunks: Iterator[torch.Tensor], tokens: Sequence[int]) -> tuple[float, float]:
    """exp of the mean negative log-likelihood per token, for each of two rows."""
    done, sums = 0, torch.zeros(2)
    for logs in chunks:
        own = torch.tensor(list(tokens[done : done + logs.shape[1]]), device=logs.device).expand(2, -1)[..., None]
        sums -= logs.gather(-1, own)[..., 0].sum(-1).cpu()
        done += logs.shape[1]
    base, tuned = (math.exp(min(float(total) / len(tokens), 700)) for total in sums)
    return base, tuned


def _parted(base: Sequence[int], tuned: Sequence[int]) -> int | None:
    if list(base) == list(tuned):
        return None
    pairs = zip(base, tuned, strict=False)
    return next((i for i, (one, other) in enumerate(pairs) if one != other), min(len(base), len(tuned)))
