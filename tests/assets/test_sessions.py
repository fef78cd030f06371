from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import gradio as gr
import pytest
from gradio.state_holder import SessionState

from assets.sessions import Sessions


@pytest.fixture
def blocks(one_loop: None) -> Iterator[gr.Blocks]:
    with gr.Blocks(analytics_enabled=False) as demo:
        gr.State(["new"])
        gr.Textbox("settings that a deep link would need")
    yield demo


def test_a_page_keeps_its_own_and_no_copy_of_everything(blocks: gr.Blocks) -> None:
    sessions = Sessions(blocks)
    state = next(n for n, block in blocks.blocks.items() if isinstance(block, gr.State))
    sessions["a"][state].append("mine")
    assert sessions["a"][state] == ["new", "mine"] and sessions["b"][state] == ["new"]
    box = next(n for n, block in blocks.blocks.items() if isinstance(block, gr.Textbox))
    sessions["a"][box] = gr.Textbox("changed", render=False)
    sessions["a"]._update_value_in_config(box, "again")
    assert sessions["a"].config_values == {} and vars(sessions["a"]).keys() == vars(SessionState(blocks)).keys()
    assert sessions["a"][box].value == "changed" and sessions["b"][box].value != "changed"
    assert sessions["a"] is blocks.state_holder["a"]


def test_closed_pages_are_forgotten_after_a_while(blocks: gr.Blocks) -> None:
    sessions = Sessions(blocks, stays=60)
    for name in ("open", "just closed", "closed", "back", "silent"):
        sessions[name].is_closed = name not in ("open", "silent")
        sessions.time_last_used[name] = datetime.now() - timedelta(seconds=0 if name == "just closed" else 120)
    sessions.time_last_used["silent"] -= timedelta(seconds=300)
    assert not sessions["back"].is_closed, "whoever comes back is there again"
    sessions.delete_all_expired_state()
    assert set(sessions.session_data) == {"open", "just closed", "back"} == set(sessions.time_last_used)


def test_there_are_only_so_many(blocks: gr.Blocks) -> None:
    sessions = Sessions(blocks, pages=3)
    for number in range(10):
        _ = sessions[str(number)]
    assert list(sessions.session_data) == ["7", "8", "9"] == list(sessions.time_last_used)
