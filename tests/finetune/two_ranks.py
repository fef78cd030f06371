"""Runs of two real processes on the CPU, started by accelerate's launcher from the files that a plan would write."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from finetune.plan import LaunchPlan, _accelerate, _argv
from finetune.progress import read
from finetune.spec import ClusterSpec, DataSpec, HardwareSpec, LoraSpec, ModelSpec, ScheduleSpec, TrainSpec, WatchSpec

ROOT = Path(__file__).resolve().parent.parent.parent
PATH = f"{Path(__file__).parent / 'cpu_ranks'}{os.pathsep}{ROOT}"
TALKS = [
    [{"role": "user", "content": f"질문 {n}"}, {"role": "assistant", "content": f"답 {n} 이에요" + "." * (n % 5)}]
    for n in range(16)
]


def a_spec(
    home: Path, model: Path, watch: dict[str, Any] | None = None, precision: Any = "auto", **schedule: Any
) -> TrainSpec:
    """Four steps on short talks; ``watch`` and ``schedule`` change what they name."""
    rows = "\n".join(json.dumps({"messages": talk}, ensure_ascii=False) for talk in TALKS)
    (home / "uploads").mkdir(parents=True, exist_ok=True)
    (home / "uploads" / "talks.jsonl").write_text(rows, encoding="utf-8")
    values = {"steps": 4, "accumulation": 1, "learning_rate": 5e-3, "max_length": 128, **schedule}
    return TrainSpec(
        ModelSpec(str(model)),
        DataSpec("talks.jsonl", "file", heldout=0.25),
        name="tiny",
        lora=LoraSpec(rank=4, alpha=8),
        schedule=ScheduleSpec(**values),
        watch=WatchSpec(**{"every": 2, "samples": 1, "sample_tokens": 4, **(watch or {})}),
        hardware=HardwareSpec(precision=precision),
    )


def own_environment(home: Path, accident: str = ":") -> dict[str, str]:
    return {
        "NARANHI_HOME": str(home),
        "NARANHI_TEST_CPU_FSDP": "1",
        "NARANHI_TEST_ACCIDENT": accident,
        "PYTHONPATH": PATH,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def a_plan(home: Path, folder: Path, accident: str = ":") -> LaunchPlan:
    """For a supervisor: two ranks under FSDP2."""
    files = {"accelerate.yaml": _accelerate("fsdp", 2, False, ClusterSpec())}
    env = own_environment(home, accident)
    return LaunchPlan("fsdp", 2, (), ("cpu",), "bfloat16", False, _argv(folder, launcher=True), env, files, "fits")


def launch(
    spec: TrainSpec, folder: Path, home: Path, placement: str = "fsdp", processes: int = 2, accident: str = ":"
) -> subprocess.CompletedProcess[str]:
    """Run to the end; the launcher's exit code and output."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.yaml").write_text(spec.to_yaml(), encoding="utf-8")
    (folder / "accelerate.yaml").write_text(_accelerate(placement, processes, False, spec.cluster), encoding="utf-8")
    argv = _argv(folder, launcher=placement != "single")
    env = {**os.environ, **own_environment(home, accident)}
    return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=400)


def losses(folder: Path) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in read(folder).steps}
