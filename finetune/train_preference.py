"""TRL's trainers for preferences, fed with our tokens.

Covers: DPO and KTO with the same checkpoints, resuming and placement as plain fine-tuning (train_trainer.py); the
reference is the adapter the run began with, kept frozen beside the trained one, or the base with the adapter switched
off. Its log-probabilities come from the same batch as the policy's, so that a run begins with ratios of exactly zero.
Does not cover: which rows (preference_data.py).
"""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from finetune.spec import TrainSpec
from finetune.train_adapter import AdapterOnly


class PairTrainer(AdapterOnly, DPOTrainer):  # type: ignore[misc]
    """Takes rows that are token ids already; TRL would render and cut them its own way."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset


class JudgedTrainer(AdapterOnly, KTOTrainer):  # type: ignore[misc]
    """The same for answers judged one by one. Each row also gets the next answer of its micro-batch, from which KTO
    estimates how far the model has moved (TRL pairs them within fixed batches, too)."""

    def _prepare_dataset(self, dataset: Dataset, _: Any, args: Any, __: str) -> Dataset:
        if not self.calculate_KL:
            return dataset
        answers: list[list[int]] = dataset["completion_ids"][:]
        size = args.per_device_train_batch_size
        batches = [answers[i : i + size] for i in range(0, len(answers), size)]
        return dataset.add_column("KL_completion_ids", [ids for b in batches for ids in [b[-1], *b[:-1]]])


def arguments(spec: TrainSpec, common: dict[str, Any]) -> Any:
    """DPOConfig or KTOConfig with what all trainers share."""
    preference = spec.preference
    if spec.objective == "kto":
        return KTOConfig(
            **common,
            max_length=None,
            loss_type=spec.loss,
            beta=preference.beta,
            desirable_weight=preference.desirable_weight,
            undesirable_weight=preference.undesirable_weight,
        )
    learnt = preference.sft_weight > 0
    return DPOConfig(
        **common,
        max_length=None,
        loss_type=[spec.loss, "sft"] if learnt else [spec.loss],
        loss_weights=[1.0, preference.sft_weight] if learnt else None,
        label_smoothing=preference.noise if spec.loss == "robust" else 0.0,
        beta=preference.beta,
    )


def trainer_of(spec: TrainSpec) -> type[PairTrainer] | type[JudgedTrainer]:
    return PairTrainer if spec.objective == "dpo" else JudgedTrainer
