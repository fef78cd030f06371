from __future__ import annotations

import math

import pytest
import torch
from transformers import (
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from compare.decode_sample import SHORTLIST, Sampler, gumbel, mix
from compare.engine import Sampling

CPU = torch.device("cpu")


def kept(sampling: Sampling, logits: torch.Tensor) -> set[int]:
    scores, tokens = Sampler(sampling, CPU)._shortlist(logits)
    return set(tokens[0][scores[0] > -torch.inf].tolist())


def draws(sampling: Sampling, logits: torch.Tensor, count: int) -> torch.Tensor:
    sampler = Sampler(sampling, CPU)
    return sampler.draw(logits.expand(count, -1), torch.arange(count)[:, None], None)[:, 0]


def test_the_hash_is_fixed_for_all_time() -> None:
    words = mix(torch.tensor([0, 1, 2, 0xFFFFFFFF]))
    assert words.tolist() == [reference(word) for word in (0, 1, 2, 0xFFFFFFFF)]
    assert mix(torch.arange(1 << 16)).unique().numel() == 1 << 16


def reference(word: int) -> int:
    word = ((word ^ (word >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    word = ((word ^ (word >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return word ^ (word >> 16)


def test_noise_depends_on_seed_position_and_token_alone() -> None:
    seed, positions = torch.tensor(7), torch.tensor([[3], [4]])
    whole = gumbel(seed, positions, torch.arange(100).expand(2, -1))
    some = gumbel(seed, positions[1:], torch.tensor([[50, 2]]))
    assert torch.equal(some[0], whole[1, [50, 2]])
    assert not torch.equal(whole[0], whole[1])
    assert not torch.equal(whole, gumbel(torch.tensor(7 + (1 << 32)), positions, torch.arange(100).expand(2, -1)))


def test_noise_is_gumbel() -> None:
    noise = gumbel(torch.tensor(1), torch.arange(200)[:, None], torch.arange(1000).expand(200, -1))
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.01)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.02)
    flat = (noise - noise.mean()).flatten()
    for shift in (1, 1000):  # neighbouring tokens, neighbouring positions
        assert abs((flat[:-shift] * flat[shift:]).mean().item()) < 0.02


def test_draws_follow_the_probabilities() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    counts = draws(Sampling(temperature=1, top_p=1), logits, 20_000).bincount(minlength=4) / 20_000
    torch.testing.assert_close(counts, logits.softmax(-1)[0], rtol=0, atol=0.012)


def test_temperature_sharpens_and_zero_is_greedy() -> None:
    logits = torch.tensor([[1.0, 1.5, 0.0]])
    hot = draws(Sampling(temperature=5, top_p=1), logits, 2000).bincount(minlength=3)
    cold = draws(Sampling(temperature=0.2, top_p=1), logits, 2000).bincount(minlength=3)
    assert hot.min() > 400 and cold[1] > 1800
    for sampling in (Sampling(temperature=0), Sampling(temperature=5, top_p=0), Sampling(temperature=5, top_k=1)):
        assert draws(sampling, logits, 50).unique().tolist() == [1]


@pytest.mark.parametrize("size", [300, SHORTLIST * 4])
@pytest.mark.parametrize("top_p", [0.01, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("spread", [0.05, 1.0, 4.0])
def test_top_p_keeps_what_transformers_keeps(size: int, top_p: float, spread: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, size) * spread
    expected = TopPLogitsWarper(top_p)(torch.zeros(1, 1, dtype=torch.long), logits)[0] > -torch.inf
    ours = kept(Sampling(temperature=1, top_p=top_p), logits)
    assert len(ours ^ set(expected.nonzero()[:, 0].tolist())) <= 1  # a sum that rounds to exactly top_p


def test_top_k_then_top_p() -> None:
    torch.manual_seed(1)
    logits = torch.randn(1, 400) * 2
    ids = torch.zeros(1, 1, dtype=torch.long)
    expected = TopPLogitsWarper(0.7)(ids, TopKLogitsWarper(20)(ids, logits))[0] > -torch.inf
    assert kept(Sampling(temperature=1, top_p=0.7, top_k=20), logits) == set(expected.nonzero()[:, 0].tolist())
    assert len(kept(Sampling(temperature=1, top_p=1, top_k=7), logits)) == 7
    assert len(kept(Sampling(temperature=1, top_p=1, top_k=999), logits)) == 400


def test_repetition_penalty_is_the_usual_one() -> None:
    torch.manual_seed(2)
    logits, ids = torch.randn(1, 50), torch.tensor([[3, 7, 7, 20]])
    expected = RepetitionPenaltyLogitsProcessor(1.8)(ids, logits.clone()).argmax(-1)
    seen = torch.zeros(1, 50, dtype=torch.bool).scatter(1, ids, True)
    seen_best = seen.clone()
    seen_best[0, logits.argmax()] = True
    sampler = Sampler(Sampling(temperature=0, repetition_penalty=1.8), CPU)
    assert sampler.penalised
    assert sampler.draw(logits, torch.zeros(1, 1, dtype=torch.long), seen)[0] == expected
    strong = Sampler(Sampling(temperature=0, repetition_penalty=100.0), CPU)
    assert strong.draw(logits, torch.zeros(1, 1, dtype=torch.long), seen_best)[0] != logits.argmax()
