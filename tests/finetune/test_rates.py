"""The learning rate by method, rank and size: what was measured comes out, the rest is marked as extrapolated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from assets.catalog import STARTER, find_model
from assets.words import LANGUAGES, Words
from finetune import rates, views_rates
from finetune.memory import Shape
from finetune.rates import ALL, MEASURED, QV, REPEATED, advise, calmer, doubt, narrow
from finetune.spec import DataSpec, LoraSpec, ModelSpec, ScheduleSpec, TrainSpec, recipes, with_recipe

SPEC = TrainSpec(ModelSpec(STARTER), DataSpec("d"), lora=LoraSpec(64, 128), schedule=ScheduleSpec(accumulation=16))
LARGEST = "meta-llama/Meta-Llama-3-70B-Instruct"


def shape_of(model: str = STARTER) -> Shape:
    card = find_model(model)
    assert card is not None
    return Shape.of(card.shape, card.model_type)


def spec(rate: float = 1e-3, **changes: Any) -> TrainSpec:
    return replace(SPEC, schedule=replace(SPEC.schedule, learning_rate=rate), **changes)


@pytest.mark.parametrize(
    "setting", {(p.method, p.rank, p.targets): None for p in MEASURED}, ids=lambda s: f"{s[0]}-{s[1]}-{s[2]}"
)
def test_the_best_measured_rate_comes_out(setting: Any) -> None:
    method, rank, targets = setting
    lora = LoraSpec(rank, 2 * rank, targets=targets) if rank else LoraSpec()
    best = min((p for p in MEASURED if (p.method, p.rank, p.targets) == setting), key=lambda p: p.loss)
    found = advise(spec(method=method, lora=lora), shape_of())
    assert (found.rate, found.basis) == (best.rate, "measured")


@pytest.mark.parametrize("point", REPEATED, ids=lambda p: f"{p.method}-{p.rank}-{p.targets}")
def test_rates_that_were_repeated_are_the_advised_ones(point: rates.Point) -> None:
    """All but the old habit, which was repeated because it is poor."""
    lora = LoraSpec(point.rank, 2 * point.rank, targets=point.targets) if point.rank else LoraSpec()
    wish = spec(point.rate, method=point.method, lora=lora)
    found = advise(wish, shape_of())
    assert (found.rate == point.rate) is (point.targets != QV) is (doubt(wish, shape_of()) is None)
    assert found.basis == "measured" and point.seeds >= 2


def test_full_fine_tuning_takes_a_tenth_and_never_an_adapters_rate() -> None:
    assert advise(spec(method="full"), shape_of()).rate == 1e-4
    assert all(advise(spec(method="full"), shape_of(m)).rate < 1e-4 for m in ("google/gemma-2-2b-it", LARGEST))


def test_larger_ranks_and_larger_models_take_less() -> None:
    by_rank = [advise(spec(lora=LoraSpec(rank, 2 * rank)), shape_of()).rate for rank in (8, 16, 64, 128)]
    assert by_rank == [3e-3, 2e-3, 1e-3, 7e-4]
    models = (STARTER, "google/gemma-2-2b-it", "meta-llama/Meta-Llama-3-8B-Instruct", LARGEST)
    found = [advise(SPEC, shape_of(model)) for model in models]
    assert [one.rate for one in found] == [1e-3, 3e-4, 1.5e-4, 7e-5]
    assert [one.basis for one in found] == ["measured", "size", "size", "size"]


def test_other_scales_small_steps_and_preferences() -> None:
    assert advise(spec(lora=LoraSpec(64, 16)), shape_of()).rate == rates.HIGHEST  # alpha 16: a scale of a quarter
    assert advise(spec(lora=LoraSpec(64, 128, rslora=True)), shape_of()).rate == 1.5e-4
    small = advise(replace(SPEC, schedule=ScheduleSpec(accumulation=1)), shape_of())
    assert (small.rate, small.halved, small.basis) == (5e-4, True, "near")
    votes = advise(spec(objective="dpo", lora=LoraSpec(16, 32)), shape_of())
    assert (votes.rate, votes.basis) == (1e-4, "near")
    assert advise(spec(lora=LoraSpec(64, 128, dora=True)), shape_of()).basis == "near"


@pytest.mark.parametrize("name", list(recipes()))
def test_presets_have_the_advised_rate_of_the_model_they_are_for(name: str) -> None:
    model = LARGEST if name == "large" else STARTER
    preset = with_recipe(name, ModelSpec(model), DataSpec("d"))
    assert preset.schedule.learning_rate == advise(preset, shape_of(model)).rate
    assert doubt(preset, shape_of(model)) is None


@pytest.mark.parametrize("table", [MEASURED, REPEATED], ids=["one seed", "several"])
def test_presets_stand_on_the_measurements(table: tuple[rates.Point, ...]) -> None:
    """The one to begin with within 2 % of full fine-tuning, the best one at or below it; the quick one evaluates no more."""
    full = min(p.loss for p in table if p.method == "full")
    found = {name: with_recipe(name, ModelSpec(STARTER), DataSpec("d")) for name in recipes()}
    losses = {}
    for name in ("balanced", "high_rank"):
        lora, rate = found[name].lora, found[name].schedule.learning_rate
        losses[name] = next(
            p.loss for p in table if (p.method, p.rank, p.targets, p.rate) == (found[name].method, lora.rank, ALL, rate)
        )
        assert found[name].watch.best and lora.alpha == 2 * lora.rank and lora.targets == ALL
    assert losses["balanced"] <= 1.02 * full and losses["high_rank"] <= full
    quick = found["quick"]
    assert (quick.schedule.steps, quick.watch.every, quick.watch.examples, quick.watch.best) == (40, 20, 8, False)


@pytest.mark.parametrize(
    ("wish", "kind"),
    [
        (spec(2e-4, method="lora", lora=LoraSpec(8, 16, targets="v_proj, q_proj")), "low"),
        (spec(2e-4), "low"),
        (spec(5e-4), None),
        (spec(2e-3), None),
        (spec(1e-3, method="full"), "high"),
        (spec(3e-4, method="full"), None),
        (spec(2e-4, lora=LoraSpec(16, 32)), "low"),
    ],
)
def test_poor_rates_are_doubted(wish: TrainSpec, kind: str | None) -> None:
    found = doubt(wish, shape_of())
    assert (found.kind if found else None) == kind
    for language in LANGUAGES:
        text = views_rates.show(wish, shape_of(), Words(language))
        assert ("train-rate-doubt" in text) == (kind is not None) and "{" not in text


def test_a_measured_failure_is_quoted() -> None:
    old_habit = spec(2e-4, method="lora", lora=LoraSpec(8, 16, targets=QV))
    found = doubt(old_habit, shape_of())
    assert found is not None and found.point is not None and found.better is not None
    assert (found.point.loss, found.better.loss, found.better.rate) == (1.527, 1.187, 3e-3)
    text = views_rates.show(old_habit, shape_of(), Words("ko"))
    assert "1.527" in text and "1.187" in text and "13%" in text
    elsewhere = doubt(replace(old_habit, schedule=ScheduleSpec(learning_rate=1e-6)), shape_of(LARGEST))
    assert elsewhere is not None and elsewhere.point is None


def test_q_and_v_alone_are_told() -> None:
    share = narrow(spec(lora=LoraSpec(8, 16, targets="q_proj")))
    assert share == pytest.approx(1.187 / 1.0505 - 1)
    assert narrow(spec()) is None and narrow(spec(method="full", lora=LoraSpec(8, 16, targets=QV))) is None
    assert rates.lowest("lora", ALL).loss == 1.038


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_says_on_which_size_it_was_measured(language: str) -> None:
    for model in (STARTER, LARGEST):
        text = views_rates.show(SPEC, shape_of(model), Words(language))
        assert "135M" in text and text.count("<p") == 1


def test_after_a_divergence() -> None:
    assert calmer(spec(1e-3, method="full"), shape_of()) == 1e-4  # half of it would diverge again
    assert calmer(spec(1e-3), shape_of()) == 5e-4
    assert calmer(spec(5e-4), None) == 2.5e-4
    assert rates.shape_in({"model_type": "mamba"}) is None
