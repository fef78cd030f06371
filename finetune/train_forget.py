"""What a run makes the model forget: the held-out loss of built-in conversations from a domain that it does not train.

Covers: choosing them, the loss of their answers before the first step and with the weights a run ends with. Does not cover:
showing it (views_loss.py). Computed here and not by the trainer, so that it means the same whatever the objective.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback

from assets.catalog import datasets, read_dialogues
from assets.chat import ChatFormat
from finetune import train_ranks as ranks
from finetune.spec import TrainSpec
from finetune.train_samples import precision_as_trained

EXAMPLES = 16
TOKENS = 256  # the head of a large vocabulary over more than that would show in the memory a run takes


class Forgetting(TrainerCallback):  # type: ignore[misc]
    """Measures at step 0; ``measure`` is for whoever knows when the weights are the last ones."""

    def __init__(self, spec: TrainSpec, domain: str, chat: ChatFormat, report: Any) -> None:
        self._rows = {name: _rows(name, spec, chat) for name in other_domains(domain)}
        self._report = report

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step == 0:
            self.measure(model, args, 0)

    def measure(self, model: Any, args: Any, step: int) -> None:
        """Write down one loss per domain. All ranks call it; in shards all of them compute the same."""
        if ranks.rank() and not ranks.sharded():
            return
        model.eval()
        for domain, rows in self._rows.items():
            if rows:
                self._report.write("other", step=step, domain=domain, loss=mean_loss(model, rows, args))


def other_domains(domain: str) -> list[str]:
    """The built-in domains but the trained one; data of people's own may be about anything, so all of them."""
    return [card.domain for card in datasets() if card.kind == "builtin" and card.domain != domain]


def _rows(domain: str, spec: TrainSpec, chat: ChatFormat) -> list[tuple[list[int], list[bool]]]:
    """(ids, which of them are of an answer). Without the run's system prompt, which is about the other domain."""
    card = next(card for card in datasets() if card.kind == "builtin" and card.domain == domain)
    talks = read_dialogues(card.heldout)[: min(EXAMPLES, spec.watch.examples)] if card.heldout else []
    found = [chat.encode_training(row["messages"], None, min(TOKENS, spec.schedule.max_length)) for row in talks]
    return [(one.ids, one.trained) for one in found if any(one.trained[1:])]


@torch.no_grad()
def mean_loss(model: Any, rows: list[tuple[list[int], list[bool]]], args: Any) -> float:
    """Negative log-likelihood per answer token, in nats, through the head that TRL's trainers put on the model: the logits of
    rows of many lengths would leave the allocator in pieces that take up to 2.4 GB more for the rest of the run."""
    total, count = 0.0, 0
    for ids, trained in rows:
        tokens = torch.tensor([ids], device=args.device)
        labels = torch.tensor([[i if own else -100 for i, own in zip(ids, trained, strict=True)]], device=args.device)
        with precision_as_trained(args):
            found = model(input_ids=tokens, labels=labels, use_cache=False, fused_lm_head=True)
        total -= float(found.log_probs.sum())
        count += sum(trained[1:])
    return total / count
