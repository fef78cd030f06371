from __future__ import annotations

import torch

from compare.decode_lora import Adapter, Low
from compare.decode_stack import stack


def low(k: int, rank: int, n: int) -> Low:
    return Low(torch.randn(k, rank), torch.randn(rank, n))


def adapter(**parts: Low) -> Adapter:
    return Adapter("a", parts, "", 0)


def shares(own: object, row: int, first: int, x: torch.Tensor) -> list[torch.Tensor]:
    """What the kernels compute from a stack, plainly."""
    rank = own.ups[0].shape[1]
    inner = x @ own.down[row - first]
    return [inner[i * rank : (i + 1) * rank] @ up[row - first] for i, up in enumerate(own.ups)]


def test_a_stack_gives_each_row_what_its_adapter_adds() -> None:
    torch.manual_seed(0)
    one, two = adapter(q=low(32, 4, 48), v=low(32, 20, 16)), adapter(v=low(32, 3, 16))
    own = stack([None, one, two], ["q", "k", "v"], [48, 16, 16], 32)
    assert own is not None and own.tuned == 0b110 and own.width == 3 * 32 and own.down.shape == (2, 32, 96)
    x = torch.randn(32)
    for row, parts in ((1, one.parts), (2, two.parts)):
        for name, n, share in zip("qkv", (48, 16, 16), shares(own, row, 1, x), strict=True):
            expected = x @ parts[name].down @ parts[name].up if name in parts else torch.zeros(n)
            torch.testing.assert_close(share, expected, rtol=1e-4, atol=1e-4)


def test_a_batch_of_some_rows_sees_theirs() -> None:
    one, two = adapter(o=low(16, 8, 16)), adapter(o=low(16, 8, 16))
    own = stack([one, None, two, None], ["o"], [16], 16)
    assert own is not None and own.tuned == 0b101
    assert own.rows(1, 2) is None and own.rows(3, 4) is None
    last = own.rows(1, 4)
    assert last is not None and last.tuned == 0b010
    assert torch.equal(last.down[0, :, :8], two.parts["o"].down) and torch.equal(last.ups[0][0], two.parts["o"].up)
    both = own.rows(0, 3)
    assert both is not None and both.tuned == 0b101 and both.down.shape[0] == 2


def test_rows_without_adapters_have_no_stack() -> None:
    assert stack([None, None], ["q"], [16], 16) is None
    assert stack([adapter(v=low(16, 4, 16))], ["q"], [16], 16) is None
