from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from assets.errors import UserError
from compare.decode import Decoder
from compare.decode_check import check_panes, combine
from compare.decode_lora import Adapter, read_adapter
from compare.engine import PaneCheck
from tests.models import make_adapter, make_model

PROMPT = [1, 3, *range(40, 75), 4, 3, 9]


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def parts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Adapter, Adapter]:
    root = tmp_path_factory.mktemp("check")
    base = make_model(root / "base", "llama")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=request.param).eval()
    first, second = (read_adapter(make_adapter(base, root / str(s), seed=s), model, torch.float32) for s in (1, 2))
    return model, first, second


def test_honest_rows_pass_without_any_error(parts: tuple[Any, Adapter, Adapter]) -> None:
    model, first, second = parts
    check = check_panes(Decoder(model, [None, first, second]), [None, first, second], PROMPT)
    assert check.base_error == check.adapter_error == 0
    assert check.difference is not None and check.difference > 0.1
    alone = check_panes(Decoder(model, [None]), [None], PROMPT)
    assert (alone.adapter_error, alone.difference) == (None, None)


@pytest.mark.parametrize("planted", [(1, 0), (1, 1), (0, 0), (0, 2)])
def test_rows_with_the_wrong_weights_are_caught(parts: tuple[Any, Adapter, Adapter], planted: tuple[int, int]) -> None:
    model, first, second = parts
    choices = [None, first, second]
    decoder = Decoder(model, [choices[i] for i in planted])
    with pytest.raises(UserError, match="check_failed"):
        check_panes(decoder, [None, first], PROMPT)


def test_even_a_slight_adapter_cannot_hide_in_the_base_pane(parts: tuple[Any, Adapter, Adapter]) -> None:
    model, first, _ = parts
    slight = Adapter(
        "slight", {name: type(p)(p.down, p.up * 0.02) for name, p in first.parts.items()}, "", first.parameters
    )
    check = check_panes(Decoder(model, [None, slight]), [None, slight], PROMPT)
    assert check.difference is not None and check.tolerance <= check.difference / 2
    with pytest.raises(UserError, match="check_failed"):
        check_panes(Decoder(model, [slight, slight]), [None, slight], PROMPT)


def test_several_bases_give_the_worst_of_all() -> None:
    combined = combine([PaneCheck(0.1, None, None, 0.2), PaneCheck(None, 0.3, 0.9, 0.4)])
    assert combined == PaneCheck(0.1, 0.3, 0.9, 0.4)
