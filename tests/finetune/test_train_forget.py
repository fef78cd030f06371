"""The loss on domains that are not trained: which ones, what is counted, and when."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from assets.chat import ChatFormat
from finetune.train_forget import Forgetting, mean_loss, other_domains
from tests.finetune.two_ranks import a_spec
from tests.models import make_model


class Heard:
    """A report that keeps what it is told."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def write(self, event: str, **values: Any) -> None:
        self.rows.append({"event": event, **values})


@pytest.mark.parametrize(
    ("trained", "others"),
    [("emotion", ["science"]), ("science", ["emotion"]), ("general", ["emotion", "science"])],
)
def test_what_is_not_trained_is_measured(trained: str, others: list[str]) -> None:
    assert other_domains(trained) == others


@pytest.mark.filterwarnings("ignore")
def test_the_loss_is_that_of_the_answers_alone(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    base = make_model(tmp_path / "base", "llama")
    model, chat = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), ChatFormat.from_folder(base)
    add_fused_lm_head(model)
    args, heard = SimpleNamespace(device=torch.device("cpu"), bf16=False, fp16=False), Heard()
    spec = a_spec(tmp_path, base, watch={"examples": 3})
    forgetting = Forgetting(spec, "emotion", chat, heard)
    forgetting.on_train_begin(args, SimpleNamespace(global_step=0), None, model=model)
    forgetting.on_train_begin(args, SimpleNamespace(global_step=2), None, model=model)  # a resumed run has it already
    forgetting.measure(model, args, 4)
    assert [(row["step"], row["domain"]) for row in heard.rows] == [(0, "science"), (4, "science")]
    assert heard.rows[0]["loss"] == heard.rows[1]["loss"]

    trained = chat.encode_training([{"role": "user", "content": "질문"}, {"role": "assistant", "content": "대답"}])
    ids = torch.tensor([trained.ids])
    labels = torch.tensor([[i if own else -100 for i, own in zip(trained.ids, trained.trained, strict=True)]])
    with torch.no_grad():
        expected = float(model(input_ids=ids, labels=labels).loss)
    assert abs(mean_loss(model, [(trained.ids, trained.trained)], args) - expected) < 1e-5
