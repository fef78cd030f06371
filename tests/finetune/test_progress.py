"""From the lines of a run to numbers."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from finetune.progress import phase_of, read, tail


def write(folder: Path, *rows: dict[str, Any], name: str = "metrics.jsonl") -> Path:
    with (folder / name).open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return folder


def step(number: int, loss: float | None = 1.0, seconds: float = 2.0, **more: Any) -> dict[str, Any]:
    return {"event": "step", "step": number, "loss": loss, "seconds": seconds, **more}


def phase(name: str) -> dict[str, Any]:
    return {"event": "phase", "phase": name}


def facts(**values: Any) -> dict[str, Any]:
    return {"event": "facts", "time": 1.0, **values}


def test_nothing_yet(tmp_path: Path) -> None:
    seen = read(tmp_path)
    assert (seen.phase, seen.step, seen.total, seen.eta, seen.share, seen.latest("loss")) == (
        None,
        0,
        0,
        None,
        0.0,
        None,
    )
    assert phase_of(tmp_path) is None


def test_a_run_in_full(tmp_path: Path) -> None:
    write(tmp_path, phase("start"), phase("load"), facts(rows=9), facts(total_steps=10, eval_every=5), phase("train"))
    write(tmp_path, {"event": "eval", "step": 0, "loss": 3.0, "seconds": 10.0})
    write(tmp_path, *(step(n, 3 - n / 10, tokens_per_second=100.0 * n) for n in range(1, 6)))
    write(tmp_path, {"event": "note", "key": "train.resumed", "values": {"name": "x"}}, phase("evaluate"))
    write(tmp_path, {"step": 0, "prompt": "p", "answer": "a\u2028b"}, name="samples.jsonl")
    seen = read(tmp_path)
    assert (seen.phase, seen.step, seen.total, seen.share) == ("evaluate", 5, 10, 0.5)
    assert seen.facts == {"rows": 9, "total_steps": 10, "eval_every": 5}
    assert seen.latest("loss") == 2.5 and seen.latest("tokens_per_second") == 500.0 and seen.latest("nothing") is None
    assert seen.eta == 2.0 * 5 + 10.0
    assert [row["loss"] for row in seen.evals] == [3.0] and seen.notes[0]["key"] == "train.resumed"
    assert seen.samples[0]["answer"] == "a\u2028b"
    assert phase_of(tmp_path) == "evaluate"


def test_a_torn_last_line_waits_for_its_end(tmp_path: Path) -> None:
    write(tmp_path, phase("train"), step(1))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"event": "step", "step": 2, "lo')
    assert read(tmp_path).step == 1 and phase_of(tmp_path) == "train"
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('ss": 0.5, "seconds": 1}\n')
    assert read(tmp_path).step == 2


def test_a_resumed_run_repeats_steps_and_the_later_ones_count(tmp_path: Path) -> None:
    write(tmp_path, facts(total_steps=8, eval_every=8), phase("start"), *(step(n, 9.0) for n in range(1, 6)))
    write(tmp_path, {"event": "eval", "step": 5, "loss": 9.0, "seconds": 1.0})
    write(tmp_path, phase("start"), phase("load"))
    assert (read(tmp_path).step, read(tmp_path).eta) == (5, None)
    write(tmp_path, step(4, 1.0, 3.0), {"event": "eval", "step": 4, "loss": 1.0, "seconds": 1.0}, step(5, 1.0, 3.0))
    seen = read(tmp_path)
    assert [(row["step"], row["loss"]) for row in seen.steps] == [(1, 9.0), (2, 9.0), (3, 9.0), (4, 1.0), (5, 1.0)]
    assert [(row["step"], row["loss"]) for row in seen.evals] == [(4, 1.0)]
    assert seen.eta is None  # the first step of an attempt warms up and one more is no measurement
    write(tmp_path, step(6, 1.0, 3.0))
    assert read(tmp_path).eta == pytest.approx(3.0 * 2 + 1.0)  # this attempt's speed alone


def test_the_time_left(tmp_path: Path) -> None:
    write(tmp_path, phase("start"), step(1, seconds=60.0), step(2), step(3))
    assert read(tmp_path).eta is None  # nobody said how many there will be
    write(tmp_path, facts(total_steps=10))
    assert read(tmp_path).eta == 2.0 * 7
    write(tmp_path, *(step(n) for n in range(4, 11)))
    assert read(tmp_path).eta == 0 and read(tmp_path).share == 1.0


def test_one_slow_step_does_not_move_the_end(tmp_path: Path) -> None:
    write(
        tmp_path,
        phase("start"),
        facts(total_steps=100),
        *(step(n, seconds=500.0 if n == 7 else 1.0) for n in range(1, 11)),
    )
    assert read(tmp_path).eta == 90.0


def test_a_loss_that_is_no_number_is_left_out_of_the_latest(tmp_path: Path) -> None:
    write(tmp_path, step(1, 2.0), step(2, None))
    assert read(tmp_path).latest("loss") == 2.0 and read(tmp_path).step == 2


def test_ten_thousand_steps_are_read_fast(tmp_path: Path) -> None:
    more = {"learning_rate": 1e-4, "grad_norm": 0.5, "tokens_per_second": 150.0, "host_memory": 2**31, "epoch": 0.5}
    write(tmp_path, phase("start"), facts(total_steps=10_000, eval_every=100))
    write(tmp_path, *(step(n, **more) for n in range(1, 10_001)))
    began = time.process_time()
    seen = read(tmp_path)
    assert time.process_time() - began < 1.0
    assert (seen.step, len(seen.steps), seen.eta) == (10_000, 10_000, 0)


def test_the_end_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    assert tail(log) == ""
    log.write_bytes("첫 줄\r\n진행 1\r진행 2\r진행 3\n마지막".encode())
    assert tail(log) == "첫 줄\n진행 3\n마지막"
    log.write_text("".join(f"{n:05d} 가나다라\n" for n in range(10_000)), encoding="utf-8")
    seen = tail(log, 1000)
    assert seen.endswith("09999 가나다라") and len(seen.encode()) <= 1000
    assert all(line.endswith(" 가나다라") and len(line) == 10 for line in seen.split("\n"))
    log.write_bytes(b"\xff\xfe broken \n")
    assert "broken" in tail(log)
