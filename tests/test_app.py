"""What app.py settles before anything else is imported."""

from __future__ import annotations

import gradio as gr
import pytest

import app


@pytest.mark.usefixtures("one_loop")
def test_no_event_waits_for_a_summary_of_those_before_it() -> None:
    with gr.Blocks() as demo:
        queue = demo.queue(max_size=app.QUEUE)._queue
    queue.events_recorded = 10**6
    record = {"function": "listed", "status": "success", "process_time": 1.0}
    assert queue.compute_analytics_summary([record]) == {"functions": {}}
    assert queue.ANALYTICS_MAX_EVENTS == 1
