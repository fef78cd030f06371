"""How fast votes open in the results view: cold (no index), warm (with one), after an append, a few full rows.

By hand: python -m tests.bench.bench_ratings [100000 1000000]     (2 kB a vote; a million take 2 GB in the temporary folder)
Each figure is of a process of its own, in seconds on the clock and of the
process's own work (the machine may be shared); "exact" is the reader that parses every row.
"""

from __future__ import annotations

import csv
import random
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

from compare.csv_store import to_json
from compare.ratings import COLUMNS, Rating, to_cells

ROOT = Path(__file__).resolve().parents[2]
TARGETS = {100_000: (4.0, 1.0), 1_000_000: (None, 5.0)}
# pandas, pyarrow and numpy are in the app's process before anybody looks at results: gradio brings them.
LOOK = """
import sys, time
from pathlib import Path
import numpy, pandas, pyarrow.compute, pyarrow.csv
from compare.ratings import RatingsFile
began, cpu = time.perf_counter(), time.process_time()
file = RatingsFile(Path(sys.argv[1]))
if sys.argv[2] == "exact":
    n = len(file.read().votes)
elif sys.argv[2] == "some":
    table = file.table()
    began, cpu = time.perf_counter(), time.process_time()
    n = len(file.read_some(table.data.column("rating_id")[-20:].to_pylist()))
elif sys.argv[2] == "again":
    file.table()
    row = file.read_some(file.table().data.column("rating_id")[-1:].to_pylist())[0]
    from dataclasses import replace
    file.append(replace(row, rating_id=f"new-{time.time_ns()}"))
    began, cpu = time.perf_counter(), time.process_time()
    n = len(file.table())
else:
    n = len(file.table())
print(time.perf_counter() - began, time.process_time() - cpu, n)
"""


TEXT = (
    '마음이 많이 무거우셨겠어요. 오늘은 어떤 일이 가장 힘드셨나요?\n그래도 여기까지 오신 것만으로 충분해요, "정말로". '
)
WINNERS = ("model_a", "model_b", "tie", "both_bad")


def votes(path: Path, count: int, seed: int = 1) -> None:
    """A file of ``count`` votes of about 2 kB: two answers, a conversation, marks, provenance, timing."""
    chance = random.Random(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writeheader()
        for number in range(count):
            writer.writerow(_same() | _different(number, chance))


@cache
def _same() -> dict[str, str]:
    """The cells that all rows share."""
    arm = {"base_revision": "0" * 40, "adapter_sha256": "f" * 64, "template_hash": "a" * 16}
    provenance = {"model_a": arm, "model_b": arm, "versions": {"torch": "2.13.0", "transformers": "5.23.0"}}
    rating = Rating(
        rating_id="x", study_id="20261125-aabbccdd", model_a="google/gemma-2-2b-it", model_b="공감@a1b2c3d4",
        left_is="model_a", winner="tie", prompt_set="builtin-emotion", layout="columns", blind=True,
        sampling={"temperature": 0.7, "top_p": 0.9}, provenance=provenance,
    )  # fmt: skip
    return to_cells(rating)


def _different(number: int, chance: random.Random) -> dict[str, str]:
    """The cells of one row."""
    prompt = f"emotion-{number % 200:03d}"
    return {
        "rating_id": f"{chance.getrandbits(128):032x}",
        "created_at": f"2026-11-25T10:{number // 60 % 60:02d}:{number % 60:02d}.000Z",
        "item_id": f"{prompt}:x1-x2",
        "prompt_id": prompt,
        "kind": ("main", "main", "main", "repeat", "aa")[number % 5],
        "rater": f"r-{number % 300:04d}",
        "domain": ("emotion", "science")[number % 2],
        "conversation": to_json([{"role": "user", "content": TEXT + str(number % 200)}]),
        "response_a": f"{number} " + TEXT * chance.randint(1, 5),
        "response_b": f"{number} " + TEXT * chance.randint(1, 5),
        "left_is": WINNERS[chance.getrandbits(1)],
        "winner": WINNERS[chance.getrandbits(2)],
        "criteria": f'{{"model_a":{{"empathy":{number % 5 - 2}}},"model_b":{{"empathy":{number % 3}}}}}',
        "seed": str(chance.getrandbits(31)),
        "timing": f'{{"seconds_to_vote":{chance.uniform(3, 90):.3f}}}',
    }


def measure(path: Path, kind: str) -> tuple[float, float]:
    """Seconds in a fresh process: on the clock, and of its own work."""
    out = subprocess.run(
        [sys.executable, "-c", LOOK, str(path), kind], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    return float(out[0]), float(out[1])


def main() -> None:
    counts = [int(text) for text in sys.argv[1:]] or [100_000]
    for count in counts:
        with tempfile.TemporaryDirectory() as home:
            path = Path(home) / "ratings" / "ratings.csv"
            votes(path, count)
            print(f"{count:,} votes, {path.stat().st_size / count / 1000:.2f} kB each", flush=True)
            figures = {"cold": measure(path, "table")}
            time.sleep(2.5)  # an index of a file that has just been written is proved by its digests
            figures |= {name: measure(path, kind) for name, kind in KINDS if count <= 100_000 or name != "exact"}
            for name, (seconds, work) in figures.items():
                print(f"  {name:>12}: {seconds:.2f} s, {work:.2f} s of work")
            for name, target in zip(("cold", "warm"), TARGETS.get(count, (None, None)), strict=True):
                if target is not None:
                    print(f"  {name} / target: {figures[name][0] / target:.2f}")


KINDS = (("warm", "table"), ("20 full rows", "some"), ("after a vote", "again"), ("exact", "exact"))

if __name__ == "__main__":
    main()
