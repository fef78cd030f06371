"""What shards are asked for, and what must not happen: a head on the host, float16 where it overflows."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from assets.errors import UserError
from finetune.spec import DataSpec, ModelSpec, TrainSpec
from tests.models import make_model

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_options_are_those_that_keep_the_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    from finetune import train_shard

    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    assert train_shard.options() == {}
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_OFFLOAD_PARAMS", "true")
    config = train_shard.options()["fsdp_config"]
    assert (config["version"], config["activation_checkpointing"], config["cpu_offload"]) == (2, False, True)


def test_only_the_advice_that_must_not_be_followed_is_left_out() -> None:
    from finetune.train_shard import _wanted

    def record(text: str) -> logging.LogRecord:
        return logging.LogRecord("transformers.training_args", logging.WARNING, "", 0, text, None, None)

    assert not _wanted(record("the latter introduces a redundant AllGather in the backward pass."))
    assert _wanted(record("something else"))


def test_embeddings_and_head_stay_whole_and_nothing_is_cast() -> None:
    import torch

    from finetune.train_shard import shard_exactly

    embeddings, head = torch.nn.Embedding(4, 4), torch.nn.Linear(4, 4)
    model = SimpleNamespace(get_input_embeddings=lambda: embeddings, get_output_embeddings=lambda: head)
    plugin = SimpleNamespace(ignored_modules=None, mixed_precision_policy="bf16")
    trainer: Any = SimpleNamespace(
        model=model,
        args=SimpleNamespace(device=torch.device("meta")),
        accelerator=SimpleNamespace(state=SimpleNamespace(fsdp_plugin=plugin)),
    )
    shard_exactly(trainer)
    assert plugin.ignored_modules == [embeddings, head]
    assert embeddings.weight.device.type == head.weight.device.type == "meta"
    assert plugin.mixed_precision_policy.param_dtype is plugin.mixed_precision_policy.output_dtype is None


def test_a_head_on_the_host_ends_the_run() -> None:
    """TRL would compute the whole vocabulary's logits there."""
    import torch

    from finetune.train_adapter import AdapterOnly

    class Stock:
        def compute_loss(self, model: Any) -> str:
            return "loss"

    class Trainer(AdapterOnly, Stock): ...

    trainer = Trainer()
    trainer.model = SimpleNamespace(get_output_embeddings=lambda: torch.nn.Linear(2, 2))
    trainer.args = SimpleNamespace(device=torch.device("cpu"))
    assert trainer.compute_loss(None) == "loss"
    trainer.args = SimpleNamespace(device=torch.device("cuda", 0))
    with pytest.raises(UserError) as caught:
        trainer.compute_loss(None)
    assert caught.value.key == "train.head_on_cpu"


@pytest.mark.parametrize("architecture", ["gemma2", "gemma3"])
def test_float16_is_refused_where_it_overflows(architecture: str, tmp_path: Path) -> None:
    from finetune.train_model import load_base

    base = make_model(tmp_path / "base", architecture)
    with pytest.raises(UserError) as caught:
        load_base(base, TrainSpec(ModelSpec("g"), DataSpec("d")), "float16", "cpu")
    assert caught.value.key == "train.no_float16"
