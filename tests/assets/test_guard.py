from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from assets.access import Access, Door, for_visitors, for_visitors_limited
from assets.guard import GuardedBlocks, caller
from assets.limits import Limit, Limits

HERE = SimpleNamespace(client=SimpleNamespace(host="127.0.0.1"), headers={"host": "localhost"})
AWAY = SimpleNamespace(client=SimpleNamespace(host="192.0.2.7"), headers={"host": "naranhi"})


def answer(kind: str) -> Any:
    def handler() -> str:
        if kind == "breaks":
            raise OSError("/home/ann/secret")
        return kind

    return {"limited": for_visitors_limited, "open": for_visitors, "breaks": for_visitors}.get(kind, lambda f: f)(
        handler
    )


@pytest.fixture
def blocks(one_loop: None) -> GuardedBlocks:
    limits = Limits(Limit(1 / 60, 1), Limit(1, 100), Limit(1, 100), Limit(1, 1))
    with GuardedBlocks(Access(Door(public=True)), limits, analytics_enabled=False) as demo:
        text, button, timer = gr.Textbox(), gr.Button(), gr.Timer()
        for kind in ("closed", "open", "limited", "breaks"):
            button.click(answer(kind), None, text)
        timer.tick(answer("closed"), None, text)
    return demo


def ask(demo: GuardedBlocks, number: int, request: Any) -> Any:
    return asyncio.run(demo.process_api(number, [], request=request))["data"]


def test_the_owner_calls_anything(blocks: GuardedBlocks) -> None:
    assert [ask(blocks, n, HERE) for n in (0, 1, 2, 2, 2, 4)] == [["closed"], ["open"], *[["limited"]] * 3, ["closed"]]


@pytest.mark.parametrize("request_", [AWAY, None, [AWAY], [HERE, AWAY]])
def test_others_call_what_is_open(blocks: GuardedBlocks, request_: Any) -> None:
    with pytest.raises(gr.Error, match="주인") as refusal:
        ask(blocks, 0, request_)
    assert refusal.value.visible and not refusal.value.print_exception
    assert ask(blocks, 1, request_) == ["open"]


def test_nobody_is_told_of_what_they_did_not_press(blocks: GuardedBlocks) -> None:
    with pytest.raises(gr.Error) as refusal:
        ask(blocks, 4, AWAY)
    assert not refusal.value.visible


def test_answers_are_counted(blocks: GuardedBlocks) -> None:
    assert ask(blocks, 2, AWAY) == ["limited"]
    with pytest.raises(gr.Error, match="뒤에"):
        ask(blocks, 2, AWAY)


def test_strangers_learn_no_more_of_an_error_than_that_there_was_one(blocks: GuardedBlocks) -> None:
    with pytest.raises(gr.Error) as told:
        ask(blocks, 3, AWAY)
    assert "secret" not in str(told.value.message)
    with pytest.raises(OSError, match="secret"):
        ask(blocks, 3, HERE)


@pytest.mark.parametrize(
    ("forwarded", "found"),
    [
        ("203.0.113.7, 8.8.8.8, 10.0.0.2", "8.8.8.8"),
        ("1.2.3.4, nonsense", "1.2.3.4"),
        ("10.0.0.9", "192.0.2.7"),
        ("", "192.0.2.7"),
        ("2606:4700::1", "2606:4700::1"),
    ],
)
def test_the_address_behind_the_hubs_proxy(forwarded: str, found: str) -> None:
    asked = SimpleNamespace(client=AWAY.client, headers={"x-forwarded-for": forwarded})
    assert caller(asked, behind_proxy=True) == found
    assert caller(asked, behind_proxy=False) == "192.0.2.7"
