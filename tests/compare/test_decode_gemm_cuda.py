"""On a GPU: our NF4 kernels against exact values and against transformers' own forward. Skipped without one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from assets.hub import ModelFiles
from compare.decode import Decoder
from compare.decode_check import check_panes
from compare.decode_fused import fused_step, prepare
from compare.decode_gemm import TOLERANCE, Nf4Weight, Shares, as_words, linear, patch, reference, unpack
from compare.decode_graph import EagerSteps, GraphSteps
from compare.decode_lora import Adapter, Low, RowAdapters, read_adapter
from compare.local_engine_model import load_model
from tests.compare.test_decode import GREEDY, LONG, SHORT, VARIED, run
from tests.models import ARCHITECTURES, make_adapter, make_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

SHAPES = [(64, 64), (192, 576), (1024, 4096), (4096, 3584), (512, 14336)]


def quantised(n: int, k: int, nested: bool = True) -> Any:
    from bitsandbytes.nn import Linear4bit

    torch.manual_seed(n + k)
    plain = torch.nn.Linear(k, n, bias=False).bfloat16()
    layer = Linear4bit(k, n, bias=False, compute_dtype=torch.bfloat16, compress_statistics=nested, quant_type="nf4")
    layer.load_state_dict(plain.state_dict())
    return layer.to("cuda").eval().requires_grad_(False)


def off(out: torch.Tensor, exact: torch.Tensor) -> float:
    return float((out.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("rows", [1, 2, 5, 8, 16])
@pytest.mark.parametrize("shape", SHAPES)
def test_products_are_as_exact_as_bitsandbytes(shape: tuple[int, int], rows: int) -> None:
    layer = quantised(*shape, nested=rows % 2 == 0)
    weight = as_words(layer)
    assert weight is not None
    x = torch.randn(rows, shape[1], device="cuda").bfloat16()
    exact = x.double() @ unpack(weight).double().T
    out = linear(x, [weight])
    assert torch.isfinite(out).all() and off(out, exact) <= TOLERANCE
    assert off(out, exact) <= 1.3 * off(reference(x, weight), exact)
    assert off(layer(x), exact) <= TOLERANCE  # the reference reads bitsandbytes' bytes as bitsandbytes does


def test_several_weights_of_one_input_equal_each_alone() -> None:
    layers = [quantised(n, 4096) for n in (4096, 1024, 512)]
    weights = [weight for layer in layers if (weight := as_words(layer))]
    x = torch.randn(2, 4096, device="cuda").bfloat16()
    for count in (1, 2, 3):
        alone = torch.cat([linear(x, [weight]) for weight in weights[:count]], 1)
        assert torch.equal(linear(x, weights[:count]), alone)


@pytest.mark.parametrize("tuned", [0b10, 0b01, 0b101, 0b1110])
def test_shares_go_to_their_rows_and_nothing_to_the_others(tuned: int) -> None:
    rows, k, sizes, rank, pieces = 4, 4096, (4096, 1024), 16, 32
    weights = [weight for n in sizes if (weight := as_words(quantised(n, k)))]
    x = torch.randn(rows, k, device="cuda").bfloat16()
    parts = torch.randn(pieces, rows, 2 * rank, device="cuda")
    ups = [torch.randn(tuned.bit_count(), rank, n, device="cuda").bfloat16() for n in sizes]
    without = linear(x, weights)
    out = linear(x, weights, Shares(parts, ups, tuned))
    exact = torch.cat([x.double() @ unpack(w).double().T for w in weights], 1)
    number = 0
    for row in range(rows):
        if not tuned >> row & 1:
            assert torch.equal(out[row], without[row])
            continue
        sums = parts[:, row].double().sum(0)
        own = [sums[i * rank : (i + 1) * rank] @ ups[i][number].double() for i in range(2)]
        assert off(out[row], exact[row] + torch.cat(own)) <= TOLERANCE
        number += 1


def test_many_rows_and_other_dtypes_stay_with_bitsandbytes() -> None:
    layer = quantised(256, 512)
    many, wide = torch.randn(17, 512, device="cuda").bfloat16(), torch.randn(2, 512, device="cuda")
    before = layer(many), layer(wide)
    weight = as_words(layer)
    assert weight is not None
    patch([(layer, weight)])
    torch.testing.assert_close(layer(many), before[0])
    torch.testing.assert_close(layer(wide), before[1], rtol=1e-3, atol=1e-3)
    few = layer(many[None, :16])
    assert few.shape == (1, 16, 256) and off(few[0], before[0][:16].double()) <= 2 * TOLERANCE


def load(root: Path, architecture: str) -> tuple[Any, Adapter, Adapter]:
    base = make_model(root / "base", architecture, noise=0.03)
    reading = load_model(ModelFiles(str(base), base, None), True, torch.device("cuda:0"), kernels=False)
    while True:
        try:
            next(reading)
        except StopIteration as end:
            model = end.value
            break
    folders = [make_adapter(base, root / f"adapter{seed}", seed=seed, r=rank) for seed, rank in ((1, 4), (2, 16))]
    first, second = (read_adapter(folder, model, torch.bfloat16) for folder in folders)
    return model, first, second


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_step_of_ours_equals_one_of_transformers(tmp_path: Path, architecture: str) -> None:
    model, first, second = load(tmp_path, architecture)
    rows = [None, first, second, None, first]
    prompts = {0: SHORT, 1: LONG, 2: LONG, 3: LONG, 4: SHORT}
    plain = Decoder(model, rows).last_logits(LONG)
    kernels = prepare(model)
    assert kernels is not None and kernels.architecture is not None
    model.decode_kernels = kernels
    decoder = Decoder(model, rows)
    assert fused_step(model, rows) is not None
    ours = decoder.last_logits(LONG)
    for row in range(5):
        assert off(ours[row], plain[row].double()) <= 0.05, row
    assert torch.equal(ours[0], ours[3]) and torch.equal(ours[1], ours[4])
    check = check_panes(Decoder(model, rows), rows, LONG)
    assert check.base_error == check.adapter_error == 0
    for sampling in (GREEDY, VARIED, replace(VARIED, repetition_penalty=1.2)):
        steps = GraphSteps()
        answers = run(Decoder(model, rows, steps=steps), prompts, sampling)
        assert steps.ahead and len(steps._recorded) == 1
        assert answers == run(Decoder(model, rows, steps=EagerSteps()), prompts, sampling)
        if sampling is GREEDY:
            for row, prompt in prompts.items():
                _best_by_a_plain_forward(model, rows[row], prompt, answers[row])


def _best_by_a_plain_forward(model: Any, adapter: Adapter | None, prompt: list[int], answer: list[int]) -> None:
    """Every token is the plain forward's own choice, or so close to it that half precision decides."""
    ids = torch.tensor([[*prompt, *answer]], device="cuda")
    with torch.inference_mode(), RowAdapters(model, [adapter]).attached(0, 1):
        logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
    chosen = logits.gather(1, torch.tensor(answer, device="cuda")[:, None])[:, 0]
    assert float(((logits.max(1).values - chosen) / logits.std(1)).max()) <= 0.1


def test_an_adapter_of_the_head_goes_along(tmp_path: Path) -> None:
    model, first, _ = load(tmp_path, "llama_untied")
    head = Low(torch.randn(64, 4, device="cuda").bfloat16(), torch.randn(4, 512, device="cuda").bfloat16())
    rows = [None, Adapter("head", {**first.parts, "lm_head": head}, "", 0)]
    plain = Decoder(model, rows).last_logits(LONG)
    model.decode_kernels = prepare(model)
    ours = Decoder(model, rows)
    assert ours._fused is not None
    logits = ours.last_logits(LONG)
    assert max(off(logits[row], plain[row].double()) for row in range(2)) <= 0.05


def test_a_kernel_that_is_wrong_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _, _ = load(tmp_path, "llama")
    import compare.decode_gemm as gemm

    def wrong(x: torch.Tensor, weights: list[Nf4Weight], *_: Any) -> torch.Tensor:
        return linear(x, weights) * 1.01

    monkeypatch.setattr(gemm, "linear", wrong)
    assert prepare(model) is None
    assert all("forward" not in vars(m) for n, m in model.named_modules() if n.endswith("_proj"))
