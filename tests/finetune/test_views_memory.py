"""The bars of a plan: what adds up, what is marked, both languages."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from assets.words import LANGUAGES, Words
from finetune import plan as plans
from finetune.gpu import Gpu, Machine
from finetune.memory import GIB, Shape
from finetune.plan import LaunchPlan
from finetune.spec import DataSpec, HardwareSpec, ModelSpec, TrainSpec
from finetune.views_memory import bars

SPEC = TrainSpec(ModelSpec("m"), DataSpec("d"))
LLAMA_8B = Shape(4096, 32, 14336, 32, 8, 128, 128256, False)
LLAMA_70B = Shape(8192, 80, 28672, 64, 8, 128, 128256, False)


@pytest.fixture(params=LANGUAGES)
def words(request: pytest.FixtureRequest) -> Words:
    return Words(request.param)


def made(shape: Shape, count: int, gib: int, spec: TrainSpec = SPEC, host: int = 200) -> LaunchPlan:
    gpus = tuple(Gpu(i, f"uuid-{i}", "card", gib * GIB, gib * GIB, True) for i in range(count))
    return plans.make(spec, Machine(gpus, 8, host * GIB, host * GIB, 500 * GIB), shape, Path("/jobs/1"))


def stacks(html: str) -> list[list[float]]:
    """The widths of every bar's cells, in percent."""
    found = re.findall(r'<div class="n-stack">(.*?)</div>', html)
    return [[float(width) for width in re.findall(r"width:([\d.]+)%", stack)] for stack in found]


def marks(html: str, kind: str) -> list[tuple[float, float]]:
    return [(float(a), float(b)) for a, b in re.findall(rf'class="{kind}" style="left:([\d.]+)%;width:([\d.]+)%', html)]


def test_every_part_has_its_name_and_size(words: Words) -> None:
    spec = replace(SPEC, hardware=HardwareSpec(placement="fsdp", offload=True))
    for plan in (made(LLAMA_8B, 1, 24), made(LLAMA_70B, 4, 24), made(LLAMA_8B, 2, 24, spec)):
        html = bars(plan, words)
        for part, value in (*plan.parts.items(), *plan.host_parts.items()):
            assert (words("train.part." + part) in html) or not value
        assert len(stacks(html)) == 2


def test_a_bar_is_as_long_as_what_is_needed(words: Words) -> None:
    """Whole when more is needed than there is; else the rest of the track is what stays free."""
    plan = made(LLAMA_8B, 1, 24)
    gpu, host = stacks(bars(plan, words))
    assert sum(gpu) == pytest.approx(100 * plan.total / plan.available, abs=0.2)
    assert sum(host) == pytest.approx(100 * plan.host / plan.host_available, abs=0.2)
    full, _ = stacks(bars(replace(plan, available=0, low=0, high=0), words))
    assert sum(full) == pytest.approx(100, abs=0.2)


def test_range_and_limit_are_marked(words: Words) -> None:
    html = bars(made(LLAMA_8B, 1, 24), words)
    plan = made(LLAMA_8B, 1, 24)
    assert marks(html, "n-span") == [
        (
            pytest.approx(100 * plan.low / plan.available, abs=0.01),
            pytest.approx(100 * (plan.high - plan.low) / plan.available, abs=0.01),
        )
    ]
    assert marks(html, "n-limit") == []  # all of the track is free: its end says so
    small = made(LLAMA_8B, 1, 3)
    assert marks(bars(small, words), "n-limit")[0][0] == pytest.approx(100 * small.available / small.high, abs=0.01)


def test_verdicts_are_said_for_each(words: Words) -> None:
    fits = bars(made(LLAMA_8B, 1, 24), words)
    assert fits.count(words("train.plan.fits")) == 2 and words("train.plan.too_big") not in fits
    poor = made(LLAMA_8B, 1, 24, host=1)
    assert (poor.gpu_fit, poor.host_fit, poor.fit) == ("fits", "too_big", "too_big")
    paged = made(LLAMA_8B, 1, 24, host=4)
    assert (paged.host_fit, paged.fit) == ("tight", "tight")
    assert bars(poor, words).count(words("train.plan.too_big")) == 1


def test_without_a_gpu_there_is_one_bar(words: Words) -> None:
    plan = made(LLAMA_8B, 0, 0)
    assert len(stacks(bars(plan, words))) == 1 and words("memory.host") in bars(plan, words)


def test_a_plan_of_an_older_version_has_no_host(words: Words) -> None:
    plan = made(LLAMA_8B, 1, 24)
    new = ("low", "high", "gpu_fit", "host_parts", "host_available", "host_fit")
    old = plans.from_dict({k: v for k, v in plan.to_dict().items() if k not in new})
    assert len(stacks(bars(old, words))) == 1 and not marks(bars(old, words), "n-span")
