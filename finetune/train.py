"""The script that a training job runs; it runs by hand with the same YAML.

Covers: supervised fine-tuning of a LoRA or QLoRA adapter, in one process or under ``accelerate launch``, resuming by
itself from the last whole checkpoint in its folder. Does not cover: starting it (supervise.py) or choosing hardware
(plan.py).

    python -m finetune.train --spec my-run.yaml --out workspace/jobs/my-run

Exit codes: 0 finished, 3 saved and stopped as asked, 1 failed (error.json in the folder says why).
"""

from __future__ import annotations

import argparse
import errno
import os
import platform
import sys
import time
import traceback
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from assets.catalog import prompts
from assets.chat import DATE, ChatFormat
from assets.errors import UserError
from assets.files import Workspace, read_json, write_json
from assets.hub import ModelFiles, locate
from finetune import sources
from finetune.data import Example
from finetune.gpu import cpu_bfloat16
from finetune.spec import TrainSpec, from_yaml

STOPPED = 3
PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "datasets")


def run(spec: TrainSpec, folder: Path, workspace: Workspace) -> int:
    """Train and save; the exit code. UserError and the libraries' errors pass through."""
    from finetune import train_ranks as ranks
    from finetune import train_resume as resuming
    from finetune.train_save import last_checkpoint
    from finetune.train_watch import Report, Watch

    _quiet()
    report = Report(folder, ranks.rank() == 0)
    report.phase("start")
    report.phase("download")
    files = locate(workspace, spec.model.id, spec.model.revision)
    chat = ChatFormat.from_folder(files.folder, spec.model.template)
    source = sources.load(workspace, spec.data)
    origin = resuming.origin(spec, source_of(files), source.sha256, chat.template_hash)
    checkpoint, broken = last_checkpoint(folder / "checkpoints")
    if checkpoint is not None:
        resuming.check_origin(checkpoint, origin)
        spec = resuming.same_batch(spec, checkpoint)
    rows = _rows(spec, source, chat)
    report.write("facts", rows=len(rows["train"]), heldout=len(rows["heldout"]), tokens=sum(len(r["input_ids"]) for r in rows["train"]))
    base = _base(spec, files, workspace, report)
    report.phase("load")
    trainer = build_trainer(spec, base, folder, rows, chat, report)
    watch = Watch(folder, report, sample_prompts(spec, source.domain), chat, spec, {**origin, "batch": _batch(spec)})
    trainer.add_callback(watch)
    began = time.time()
    result = train(trainer, checkpoint, broken, report, origin)
    report.phase("save")
    if watch.moved or not watch.stopped:
        trainer.save_model(str(folder / "adapter"))
    record = describe(spec, files, chat, source, began)
    record["metrics"] = {"train_loss": result.training_loss, "steps": result.global_step, "eval_loss": watch.best}
    record["stopped"] = watch.stopped
    record["canary"] = trainer.canary.record()
    record["ranks"] = ranks.gathered(peaks())
    _write(record, folder)
    ranks.leave()
    return STOPPED if watch.stopped else 0


def encode(examples: list[Example], chat: ChatFormat, spec: TrainSpec) -> list[dict[str, list[int]]]:
    """Token ids and labels; -100 where nothing is learnt. Conversations in which truncation left nothing to learn are left out."""
    rows = []
    for example in examples:
        if example.text:
            ids = chat.tokenizer(example.text)["input_ids"][: spec.schedule.max_length]
            rows.append({"input_ids": ids, "labels": ids})
            continue
        trained = chat.encode_training(list(example.messages), spec.data.system or None, spec.schedule.max_length)
        labels = [i if t else -100 for i, t in zip(trained.ids, trained.trained, strict=True)]
        if any(trained.trained):
            rows.append({"input_ids": trained.ids, "labels": labels})
    return rows


def build_trainer(
    spec: TrainSpec, base: Path, folder: Path, rows: dict[str, list[dict[str, list[int]]]], chat: ChatFormat, report: Any
) -> Any:
    """The model in 4 bits with a fresh adapter, inside TRL's trainer."""
    from finetune.train_trainer import build

    return build(spec, base, folder, rows, chat, report)


def train(trainer: Any, folder: Path, report: Any) -> Any:
    """Run or go on from the last whole checkpoint."""
    from finetune.train_save import last_checkpoint

    checkpoint, broken = last_checkpoint(folder / "checkpoints")
    for name in broken:
        report.note("train.broken_checkpoint", name=name)
    if checkpoint is not None:
        report.note("train.resumed", name=checkpoint.name)
    return trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def sample_prompts(spec: TrainSpec, domain: str) -> list[list[dict[str, str]]]:
    """The first prompts of the data's own domain; both domains for data of unknown kind."""
    known = [domain] if domain in ("emotion", "science") else ["emotion", "science"]
    found = [[dict(m) for m in p.messages] for d in known for p in prompts(d) if len(p.messages) == 1]
    step = max(1, len(found) // max(1, spec.watch.samples))
    return found[::step][: spec.watch.samples]


def describe(
    spec: TrainSpec, files: ModelFiles, chat: ChatFormat, source: sources.Source, began: float
) -> dict[str, Any]:
    """run.json: what anybody needs to repeat or to load this run."""
    return {
        "version": 1,
        "name": spec.name,
        "base": {"id": files.id, "revision": files.revision},
        "template_hash": chat.template_hash,
        "template": spec.model.template,
        "date": DATE,
        "system": spec.data.system,
        "dataset": {
            **asdict(spec.data),
            "sha256": source.sha256,
            "train": len(source.train),
            "heldout": len(source.heldout),
        },
        "spec": spec.to_dict(),
        "versions": {package: version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "started_at": began,
        "finished_at": time.time(),
    }


def explain(error: BaseException) -> dict[str, Any]:
    """The sentence for whatever ended the run."""
    if isinstance(error, UserError):
        return {"key": error.key, "values": error.values}
    text = f"{type(error).__name__}: {error}"
    if "out of memory" in text.lower() or isinstance(error, MemoryError):
        return {"key": "train.out_of_memory", "values": {}}
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return {"key": "train.disk_full", "values": {}}
    if "EADDRINUSE" in text or "address already in use" in text:
        return {"key": "train.port_taken", "values": {}}
    return {"key": "train.crashed", "values": {"reason": text.splitlines()[0][:300]}}


def main() -> int:
    parser = argparse.ArgumentParser(description="Fine-tune a model as a YAML file says.")
    parser.add_argument("--spec", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if (options.out / "run.json").exists() and not read_json(options.out / "run.json")["stopped"]:
        print("already finished", file=sys.stderr)
        return 0
    try:
        spec = from_yaml(options.spec.read_text(encoding="utf-8"))
        return run(spec, options.out.resolve(), Workspace.from_environment().prepare())
    except Exception as error:
        traceback.print_exc()
        if os.environ.get("RANK", "0") == "0":
            write_json(options.out / "error.json", explain(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
