"""The script that a training job runs; it runs by hand with the same YAML.

Covers: fine-tuning of an adapter (LoRA, QLoRA, DoRA) plainly or from preferences (DPO, KTO), or of a whole small model, in
one process or under ``accelerate launch``, resuming by itself from the last whole checkpoint in its folder. Does not
cover: starting it (supervise.py) or choosing hardware (plan.py).

    python -m finetune.train --spec my-run.yaml --out workspace/jobs/my-run

Exit codes: 0 finished, 3 saved and stopped as asked, 1 failed (error.json in the folder says why).
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

from assets.catalog import prompts
from assets.chat import ChatFormat
from assets.errors import UserError
from assets.files import Workspace, read_json, write_json
from assets.hub import ModelFiles, locate
from assets.leases import join
from assets.priority import step_back
from assets.quantised import find_copy, source_of
from finetune import needs, outcome, preference_data, rates, sources
from finetune import start as starting
from finetune.data import Example
from finetune.shortfall import out_of_memory
from finetune.spec import TrainSpec, from_yaml

STOPPED = 3
RANK_LOST_KEY = "train.rank_lost"
RANK_LOST = (
    "closed by peer",
    "reset by peer",
    "NCCL",
    "Gloo",
    "gloo",
    "DistBackendError",
    "DistNetworkError",
    "Broken pipe",
)
DISK_FULL = (
    "No space left on device",
    "PytorchStreamWriter failed writing",
)  # safetensors and torch.save hide the errno
GPU_LOST = (
    "CUDA error: unspecified launch failure",
    "no CUDA-capable device",
    "fallen off the bus",
    "CUDA-capable device(s) is/are busy",
)


def run(spec: TrainSpec, folder: Path, workspace: Workspace) -> int:
    """Train and save; the exit code. UserError and the libraries' errors pass through."""
    from finetune.train_memory import Marks

    with Marks(folder) as marks:
        return _run(spec, folder, workspace, marks)


def _run(spec: TrainSpec, folder: Path, workspace: Workspace, marks: Any) -> int:
    from finetune import train_ranks as ranks
    from finetune import train_resume as resuming
    from finetune import train_time
    from finetune.train_back import go_back
    from finetune.train_best import Best
    from finetune.train_forget import Forgetting
    from finetune.train_record import describe
    from finetune.train_samples import Samples
    from finetune.train_watch import Report, Watch, peaks

    _begin(spec)
    _join_lease(folder, workspace)
    report = Report(folder, ranks.rank() == 0)
    report.phase("start")
    report.phase("download")
    files = _fetch(spec, workspace, report)
    chat = ChatFormat.from_folder(files.folder, spec.model.template)
    source = sources.load(workspace, spec.data)
    start = starting.check(workspace, spec, chat.template_hash)
    origin = resuming.origin(spec, source_of(files), source.sha256, chat.template_hash)
    origin["same"] |= preference_data.identity(spec, start)
    spec, checkpoint = resuming.go_on(spec, folder, origin, report)
    spec = train_time.as_before(spec, checkpoint)
    rows = _rows(spec, source, chat, report)
    if spec.watch.keeps_best and not rows["heldout"]:
        raise UserError("train.best_needs_heldout")
    base = _base(spec, files, workspace, report)
    report.phase("load")
    trainer = build_trainer(spec, base, folder, rows, chat, report, start.folder if start else None)
    marks.attach(trainer)
    loaded = peaks().get("host_share")
    resuming.check_ranks(origin, checkpoint)
    samples = Samples(sample_prompts(spec, source.domain), chat, spec, report)
    watch = Watch(folder, report, samples, spec.watch.keep, origin, trainer.args.fp16)
    best, forgetting = Best(folder, spec.watch, watch, report), Forgetting(spec, source.domain, chat, report)
    for callback in (best, forgetting, watch):
        trainer.add_callback(callback)
    timed = _keep_time(trainer, spec, watch, report)
    began = time.time()
    loss, trouble = _train(trainer, checkpoint)
    report.phase("save")
    calmer = rates.calmer(spec, rates.shape_in(files.config))
    back = go_back(folder, trouble, calmer, report) if trouble else None
    kept = None
    if trouble is None and (watch.moved or not watch.stopped):
        kept = best.restore(trainer)
        trainer.save_model(str(folder / outcome.name_of(spec)))
        if not watch.stopped:
            forgetting.measure(trainer.model, trainer.args, kept["step"])
    record = describe(spec, files, chat, source, began, folder)
    record["metrics"] = {"train_loss": loss, "steps": trainer.state.global_step, "eval_loss": watch.best}
    record |= preference_data.record(workspace, spec, start)
    record["stopped"] = watch.stopped or back is not None
    record["went_back"] = back
    record["time_limit"] = (
        timed.ended(trainer.state.global_step) if timed and not trouble and best.early is None else None
    )
    record["kept"] = kept
    record["canary"] = trainer.canary.record()
    record["ranks"] = ranks.gathered({**peaks(), "host_share_loaded": loaded})
    if ranks.rank() == 0:
        _write(record, folder)
    ranks.leave()
    code = STOPPED if record["stopped"] else 0
    if ranks.world() > 1:
        marks.close()
        # A launcher takes any other code for a crash. And whoever goes on from here takes the model apart, whose gloo
        # threads may wait for the interpreter while it waits for them.
        _leave(0 if ranks.launched() else code)
    return code


def _fetch(spec: TrainSpec, workspace: Workspace, report: Any) -> ModelFiles:
    """The model's files; how long they took to come is told, for the forecasts of later runs."""
    here, began = needs.at_hand(spec.model), time.monotonic()
    files = locate(workspace, spec.model.id, spec.model.revision)
    if not here:
        size = sum(file.stat().st_size for file in files.folder.glob("*.safetensors"))
        report.write("facts", downloaded=size, download_seconds=time.monotonic() - began)
    return files


def _keep_time(trainer: Any, spec: TrainSpec, watch: Any, report: Any) -> Any:
    """Let the run end by its deadline; None without one."""
    from finetune.train_time import InTime, deadline_of

    until = deadline_of(spec)
    if until is None:
        return None
    timed = InTime(until, spec, watch, report)
    trainer.add_callback(timed)
    return timed


def _train(trainer: Any, checkpoint: Path | None) -> tuple[float | None, Any]:
    """The mean training loss, or what went wrong."""
    from finetune.train_back import GoneWrong

    try:
        return trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None).training_loss, None
    except GoneWrong as gone:
        return None, gone.trouble


def _begin(spec: TrainSpec) -> None:
    """Silence the libraries, seed everything, and refuse to go on without the GPUs that the plan counted on."""
    import datasets
    import torch
    from transformers import set_seed
    from transformers.utils import logging

    from finetune.train_watch import watch_parents

    if "NARANHI_SUPERVISOR" in os.environ:
        watch_parents()
        if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
            step_back()
    if os.environ.get("CUDA_VISIBLE_DEVICES") and not torch.cuda.is_available() and "NARANHI_JOB" in os.environ:
        raise UserError("train.gpu_lost")
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    set_seed(spec.schedule.seed)


def _join_lease(folder: Path, workspace: Workspace) -> None:
    """A rank that outlives its supervisor, stopped or stuck in the driver, still holds its GPU."""
    if "NARANHI_JOB" in os.environ and (folder / "plan.json").exists():
        join(workspace, tuple(read_json(folder / "plan.json")["devices"]))


def _rows(spec: TrainSpec, source: sources.Source, chat: ChatFormat, report: Any) -> dict[str, list[dict[str, Any]]]:
    if spec.objective != "sft":
        return preference_data.encode_all(spec, source, chat, report)
    train = encode(source.train, chat, spec)
    if not train:
        raise UserError("train.all_masked", length=spec.schedule.max_length)
    heldout = encode(source.heldout[: spec.watch.examples], chat, spec)
    report.write("facts", rows=len(train), heldout=len(heldout), tokens=sum(len(row["input_ids"]) for row in train))
    return {"train": train, "heldout": heldout}


def _base(spec: TrainSpec, files: ModelFiles, workspace: Workspace, report: Any) -> Path:
    """The folder to load. Shards come from a copy in 4 bits that is made once: every rank maps the same file."""
    from finetune import train_ranks as ranks
    from finetune.train_quantise import ensure

    if spec.method != "qlora" or not ranks.sharded() or "quantization_config" in files.config:
        return find_copy(workspace, files) or files.folder if spec.method == "qlora" else files.folder
    report.phase("quantise")
    return ensure(workspace, files, spec, report)


def _write(record: dict[str, Any], folder: Path) -> None:
    write_json(folder / "run.json", record)
    if (made := outcome.made(folder)) is not None:
        write_json(made / "run.json", record)


def encode(examples: list[Example], chat: ChatFormat, spec: TrainSpec) -> list[dict[str, list[int]]]:
    """Token ids and labels; -100 where nothing is learnt. A conversation cut so short that nothing is learnt is left out."""
    rows = []
    for example in examples:
        if example.text:
            ids = chat.tokenizer(example.text)["input_ids"][: spec.schedule.max_length]
            rows.append({"input_ids": ids, "labels": ids})
            continue
        if example.label is False:
            continue  # a bad answer has nothing to learn from without an objective that knows it is one
        said = [*example.messages, *example.chosen]
        trained = chat.encode_training(said, spec.data.system or None, spec.schedule.max_length)
        labels = [i if t else -100 for i, t in zip(trained.ids, trained.trained, strict=True)]
        if any(trained.trained):
            rows.append({"input_ids": trained.ids, "labels": labels})
    return rows


def build_trainer(
    spec: TrainSpec,
    base: Path,
    folder: Path,
    rows: dict[str, list[dict[str, Any]]],
    chat: ChatFormat,
    report: Any,
    start: Path | None = None,
) -> Any:
    """The model with a fresh adapter, with the one in the folder ``start``, or to be trained whole, in TRL's trainer."""
    from finetune.train_trainer import build

    return build(spec, base, folder, rows, chat, report, start)


def sample_prompts(spec: TrainSpec, domain: str) -> list[list[dict[str, str]]]:
    """The first prompts of the data's own domain; both domains for data of unknown kind."""
    known = [domain] if domain in ("emotion", "science") else ["emotion", "science"]
    found = [[dict(m) for m in p.messages] for d in known for p in prompts(d) if len(p.messages) == 1]
    step = max(1, len(found) // max(1, spec.watch.samples))
    return found[::step][: spec.watch.samples]


def explain(error: BaseException) -> dict[str, Any]:
    """The sentence for whatever ended the run."""
    if isinstance(error, UserError):
        return {"key": error.key, "values": error.values}
    text = f"{type(error).__name__}: {error}"
    if out_of_memory(error):
        return {"key": "train.out_of_memory", "values": {}}
    if (isinstance(error, OSError) and error.errno == errno.ENOSPC) or any(word in text for word in DISK_FULL):
        return {"key": "train.disk_full", "values": {}}
    if "EADDRINUSE" in text or "address already in use" in text:
        return {"key": "train.port_taken", "values": {}}
    if any(word in text for word in GPU_LOST):
        return {"key": "train.gpu_lost", "values": {}}
    if any(word in text for word in RANK_LOST):
        return {"key": RANK_LOST_KEY, "values": {}}
    return {"key": "train.crashed", "values": {"reason": text.splitlines()[0][:300]}}


def _leave(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


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
        rank = os.environ.get("RANK")
        write_json(
            options.out / (f"error.{rank}.json" if rank else "error.json"), {**explain(error), "time": time.time()}
        )
        _leave(1)  # leaving as usual would wait for ranks that are still in a collective


if __name__ == "__main__":
    sys.exit(main())
