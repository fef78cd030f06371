from __future__ import annotations

from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit

from compare.decode_gemm import (
    NF4,
    Nf4Weight,
    as_words,
    available,
    patch,
    power_of_two,
    reference,
    takes,
    tile_for,
    unpack,
)
from compare.decode_gemm import linear as small_linear


def quantised(n: int, k: int, **options: Any) -> Linear4bit:
    torch.manual_seed(0)
    plain = torch.nn.Linear(k, n, bias=options.pop("bias", False)).bfloat16()
    settings = {"quant_type": "nf4", "compute_dtype": torch.bfloat16, **options}
    layer = Linear4bit(k, n, bias=plain.bias is not None, **settings)
    layer.load_state_dict(plain.state_dict())
    return layer.to("cpu").eval().requires_grad_(False)


@pytest.mark.parametrize("storage", [torch.uint8, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("nested", [False, True])
def test_the_layout_is_bitsandbytes_own(nested: bool, storage: torch.dtype) -> None:
    layer = quantised(48, 192, compress_statistics=nested, quant_storage=storage)
    weight = as_words(layer)
    assert weight is not None and (weight.n, weight.k) == (48, 192)
    assert weight.words.data_ptr() == layer.weight.data.data_ptr()  # read where it lies, not copied
    expected = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    assert torch.equal(unpack(weight).bfloat16(), expected.reshape(48, 192).bfloat16())


def test_the_byte_tables_of_the_kernel_hold_the_sixteen_values() -> None:
    """The kernel's source cannot be run without a GPU, but its constants can be read."""
    import re
    from pathlib import Path

    import compare.decode_gemm as gemm

    source = Path(gemm.__file__).with_name("decode_triton_gemm.py").read_text(encoding="utf-8")

    def table(plane: str) -> bytes:
        words = [
            re.search(pattern.format(plane), source)[1]
            for half in "01"
            for pattern in (f"xor.b32 {{}}{half}, zero, 0x(\\w{{{{8}}}})", f"{{}}{half}, 0x(\\w{{{{8}}}}), s;")
        ]
        return b"".join(bytes.fromhex(word)[::-1] for word in words)

    high, low = table("h"), table("l")
    octets = torch.tensor([byte for pair in zip(low, high, strict=True) for byte in pair], dtype=torch.uint8)
    assert torch.equal(octets.view(torch.bfloat16), torch.tensor(NF4).bfloat16())


@pytest.mark.parametrize(
    "layer",
    [
        torch.nn.Linear(64, 64, bias=False),
        quantised(64, 64, quant_type="fp4"),
        quantised(64, 64, bias=True),
        quantised(40, 64),
        quantised(64, 64, compute_dtype=torch.float16),
    ],
    ids=["not quantised", "fp4", "bias", "shape", "float16"],
)
def test_other_layers_stay_with_bitsandbytes(layer: torch.nn.Module) -> None:
    assert as_words(layer) is None


def test_a_layer_that_waits_for_its_weights_stays() -> None:
    assert as_words(Linear4bit(64, 64, bias=False, quant_type="nf4")) is None


def test_cpus_have_no_kernel() -> None:
    assert not available(torch.device("cpu"))


def test_shapes_and_tiles() -> None:
    assert takes(4096, 14336) and takes(192, 576) and not takes(4100, 4096) and not takes(64, 96)
    for n, k in ((6144, 4096), (28672, 4096), (4096, 14336), (3584, 14336), (192, 576), (64, 64)):
        tile = tile_for(n, k)
        assert n % tile.rows == 0 and (k // 64) % (tile.warps * tile.blocks) == 0
    assert [power_of_two(count) for count in (1, 2, 3, 48, 64)] == [1, 2, 4, 64, 64]


def test_patched_layers_give_many_rows_to_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = quantised(64, 128)
    layer.support_avx512bf16_for_cpu = False  # would repack the weight at its first use
    weight = as_words(layer)
    assert weight is not None
    asked = []

    def few(x: torch.Tensor, weights: list[Nf4Weight]) -> torch.Tensor:
        asked.append(x.shape)
        return reference(x, weights[0])

    monkeypatch.setattr("compare.decode_gemm.linear", few)
    many, wide = torch.randn(1, 17, 128).bfloat16(), torch.randn(2, 128)
    before = layer(many), layer(wide)
    patch([(layer, weight)])
    assert torch.equal(layer(many), before[0]) and torch.equal(layer(wide), before[1]) and not asked
    assert layer(many[:, :16]).shape == (1, 16, 64) and asked == [(16, 128)]


def test_without_triton_the_kernel_cannot_be_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "triton", None)
    weight = as_words(quantised(64, 64))
    assert weight is not None
    with pytest.raises(ImportError):
        small_linear(torch.zeros(1, 64, dtype=torch.bfloat16), [weight])
