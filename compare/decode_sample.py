"""Drawing the next token, alike for every arm.

Covers: repetition penalty, temperature, top-k, top-p, and noise that depends on seed, position and token id alone, so
that two arms which agree on the probabilities draw the same token. Does not cover: when an answer ends (decode.py).
"""

from __future__ import annotations

import torch

from compare.engine import Sampling

GREEDY_BELOW = 1e-5
SHORTLIST = 1024
_WORD = 0xFFFFFFFF
# The multipliers 0x7FEB352D and 0x846CA68B of a well-mixing 32-bit hash; the second as a signed number, so that every
# product stays within 64 bits and CPU and CUDA agree on it.
_MULTIPLIERS = (0x7FEB352D, 0x846CA68B - (1 << 32))


def mix(word: torch.Tensor) -> torch.Tensor:
    """A hash of 32-bit words held in int64, in integer steps only."""
    for shift, multiplier in zip((16, 15), _MULTIPLIERS, strict=True):
        word = ((word ^ (word >> shift)) * multiplier) & _WORD
    return word ^ (word >> 16)


def gumbel(seed: torch.Tensor, positions: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel noise for ``tokens`` [rows, n] at ``positions`` [rows, 1]; ``seed`` is a scalar. Float32.

    The bits come from integers and the logarithms are taken in float64: devices differ by one rounding at most.
    """
    words = mix(mix(mix(seed & _WORD) ^ (seed >> 32) ^ positions) ^ tokens)
    uniform = ((words >> 8).double() + 0.5) / (1 << 24)
    return -torch.log(-torch.log(uniform)).float()


class Sampler:
    """One request's way of drawing. All values that may differ between requests are tensors on the device."""

    def __init__(self, sampling: Sampling, device: torch.device) -> None:
        self.greedy = sampling.temperature < GREEDY_BELOW or sampling.top_p == 0 or sampling.top_k == 1
        self.penalised = sampling.repetition_penalty != 1.0
        self._top_k = sampling.top_k
        self._nucleus = sampling.top_p < 1
        self._temperature = torch.tensor(sampling.temperature, device=device)
        self._top_p = torch.tensor(sampling.top_p, device=device)
        self._penalty = torch.tensor(sampling.repetition_penalty, device=device)
        self._seed = torch.tensor(sampling.seed % (1 << 63), device=device)

    def draw(self, logits: torch.Tensor, positions: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
        """Next tokens [rows, 1]. ``logits``: [rows, vocabulary] in float32; ``positions`` [rows, 1]: where the drawn
        token will stand; ``seen`` [rows, vocabulary]: tokens already there, for the repetition penalty."""
        if seen is not None:
            punished = torch.where(logits > 0, logits / self._penalty, logits * self._penalty)
            logits = torch.where(seen, punished, logits)
        if self.greedy:
            return logits.argmax(-1, keepdim=True)
        logits = logits / self._temperature
        scores, tokens = self._shortlist(logits)
        noise = gumbel(self._seed, positions, tokens)
        return tokens.gather(1, (scores + noise).argmax(-1, keepdim=True))

    def _shortlist(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens that may be drawn, with -inf for those that top-k and top-p leave out."""
        vocabulary = logits.shape[-1]
        wanted = min(self._top_k or vocabulary, vocabulary)
        if wanted == vocabulary and not self._nucleus:
            return logits, torch.arange(vocabulary, device=logits.device).expand_as(logits)
        # The head of the list nearly always holds the nucleus; where looking costs nothing, only a miss sorts it all.
        size = min(wanted, SHORTLIST) if wanted == vocabulary and not logits.is_cuda else wanted
        scores, tokens = logits.topk(size)
        if not self._nucleus:
            return scores, tokens
        total = (logits if wanted == vocabulary else scores).logsumexp(-1, keepdim=True)
        chances = (scores - total).exp()
        if size < wanted and bool((chances.sum(-1) < self._top_p).any()):
            scores, tokens = logits.topk(wanted)
            chances = (scores - total).exp()
        before = chances.cumsum(-1) - chances
        return scores.masked_fill(before >= self._top_p, -torch.inf), tokens
