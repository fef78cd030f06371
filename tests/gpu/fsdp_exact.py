"""Is training over several processes exact, and what does it take? Real ranks on one card, against one process.

    python -m tests.gpu.fsdp_exact --cap 6                                   an 8B shape with random weights on a GPU
    python -m tests.gpu.fsdp_exact --cap 6 --quick                           the second half of it in about five minutes
    python -m tests.gpu.fsdp_exact --layers 2 --hidden 128 --intermediate 256 --heads 2 --kv-heads 1 --vocab 512 --length 64

Without a GPU the same runs go over gloo, offload, float16 and caps left out: a rehearsal. NCCL refuses two ranks on one
device of one host, so every rank is told another host name; traffic then goes over loopback: memory and numbers are
real, speed is not. Runs of the first wave go one by one, for their share of host memory; all others at the same time.
Needs no network, about 25 GB of disk for 8B, and prints every run as it ends.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from finetune.memory import Shape, estimate  # noqa: E402
from finetune.spec import HardwareSpec, TrainSpec  # noqa: E402
from tests.gpu.random_base import BATCH, STEPS, make_base, make_spec  # noqa: E402
from tests.gpu.ranks_run import Run, execute, folder_of, machine, spec_of  # noqa: E402

LOSS_CLOSE = 5e-3  # of about 9: bfloat16 keeps 8 bits, and gradients are added in another order
FLOAT16_CLOSE = 2e-2  # the first step against bfloat16: other rounding everywhere, then another path
FLOAT16 = "float16, one process"
HEAD = (
    "| run | exact | 4-bit layers | losses | difference | GPU peak per rank | allocated | estimate | host share | s |"
)
Chain = list[Run]


def waves(ranks: list[int], on_gpu: bool, cap: float) -> tuple[Chain, list[Chain]]:
    """What goes one by one, and chains of what may go beside each other; a chain's later runs need its earlier ones."""
    alone = [Run("one process", 0), *(Run(f"{n} ranks", n) for n in ranks if n > 1)]
    most = max(ranks)
    beside: list[Chain] = [[Run("data parallel, 2", 2, placement="ddp")]]
    beside += [
        [Run(f"{most} ranks, stopped", most, stop=True), Run("goes on with 2", 2, after=f"{most} ranks, stopped")]
    ]
    if on_gpu:
        beside += [[Run(f"{n} ranks, offload", n, offload=True)] for n in ranks]
        beside += [[Run(FLOAT16, 0, no_bf16=True), Run("float16, 2 ranks", 2, no_bf16=True)]]
    if on_gpu and cap:
        beside += [[Run(f"one process with {cap:g} GB", 0, cap=cap, fails="train.out_of_memory")]]
        beside += [[Run(f"{most} ranks with {cap:g} GB each", most, cap=cap)]]
    return alone, beside


def judge(run: Run, reference: Run) -> None:
    """Every byte compared, nothing left unsharded, losses those of one process; or the failure that was to be."""
    if run.fails:
        run.ok = run.fails in run.why
        run.why = "" if run.ok else run.why or "did not fail"
        return
    if not run.ok:
        return
    canary = run.record["canary"]
    if canary["modules"] != canary["of"] or canary["sha256"] != reference.record["canary"]["sha256"]:
        run.ok, run.why = False, "canary"
    if run.ranks and run.placement == "fsdp" and canary["sharded"] != canary["of"]:
        run.ok, run.why = False, "not sharded"
    if difference(run, reference) > (FLOAT16_CLOSE if run.no_bf16 and not reference.no_bf16 else LOSS_CLOSE):
        run.ok, run.why = False, "loss"
    wanted = [1] if run.stop else list(range(1, STEPS + 1))
    if sorted(run.losses) != wanted:
        run.ok, run.why = False, f"steps {sorted(run.losses)}"


def difference(run: Run, reference: Run) -> float:
    """The largest over the steps that both made; over the first alone where the number formats differ, since Adam's
    first update takes the sign of each gradient."""
    shared = run.losses.keys() & reference.losses.keys()
    if run.no_bf16 != reference.no_bf16:
        shared = {1} & shared
    return max((abs(run.losses[k] - reference.losses[k]) for k in shared), default=float("inf"))


def reopen(home: Path, spec: TrainSpec, run: Run, on_gpu: bool) -> tuple[bool, str]:
    """The adapter of a sharded run on the base in one process: its evaluation again, as that run wrote it down."""
    import torch
    from peft import PeftModel

    from assets.chat import ChatFormat
    from assets.files import Workspace
    from assets.hub import locate
    from assets.quantised import find_copy
    from finetune import sources
    from finetune.train import encode
    from finetune.train_model import load_base
    from finetune.train_save import verify_adapter
    from finetune.train_trainer import precision_of

    folder = folder_of(home, run) / "adapter"
    facts = verify_adapter(folder)
    files = locate(Workspace(home), spec.model.id)
    device = torch.device("cuda", 0) if on_gpu else torch.device("cpu")
    base = load_base(find_copy(Workspace(home), files) or files.folder, spec, precision_of(spec), device)
    model = PeftModel.from_pretrained(base, folder)
    source = sources.load(Workspace(home), spec.data)
    rows = encode(source.heldout[: spec.watch.examples], ChatFormat.from_folder(files.folder), spec)
    losses = []
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision_of(spec) == "bfloat16"):
        for row in rows:
            ids, labels = (torch.tensor([row[k]], device=device) for k in ("input_ids", "labels"))
            losses.append(float(model(input_ids=ids, labels=labels).loss))
    found, wrote = sum(losses) / len(losses), run.record["metrics"]["eval_loss"]["last"]
    return abs(found - wrote) < LOSS_CLOSE, f"{facts}, held-out loss {found:.4f}; the run wrote {wrote:.4f}"


def line(run: Run, reference: Run, guess: float) -> str:
    ranks, canary = run.record.get("ranks", []), run.record.get("canary", {})

    def each(key: str) -> str:
        return " ".join(f"{(r.get(key) or 0) / 1e9:.2f}" for r in ranks)

    losses = " ".join(f"{loss:.4f}" for _, loss in sorted(run.losses.items()))
    said = ("fails as it must" if run.fails else "yes") if run.ok else f"**no**: {run.why[:160]}"
    seen = f"{canary.get('modules', 0)}/{canary.get('of', 0)}"
    host = each("host_share_loaded") if run.alone else ""
    cells = [
        run.name,
        said,
        seen,
        losses,
        f"{difference(run, reference):.1e}",
        each("gpu_memory"),
        each("gpu_allocated"),
    ]
    return "| " + " | ".join([*cells, f"{guess:.2f}", host, f"{run.seconds:.0f}"]) + " |"


def guessed(run: Run, spec: TrainSpec, shape: Shape) -> float:
    """The planner's estimate, GB."""
    spec = spec_of(run, spec)
    if run.offload:
        spec = TrainSpec(**{**vars(spec), "hardware": HardwareSpec(offload=True)})
    sharded = bool(run.ranks) and run.placement == "fsdp"
    return estimate(shape, spec, max(1, run.ranks), sharded=sharded).total / 1e9


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shape = {"layers": 32, "hidden": 4096, "intermediate": 14336, "heads": 32, "kv-heads": 8, "vocab": 128256}
    for name, value in {**shape, "length": 1024, "budget": 500}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--cap", type=float, default=0.0, help="GB of the card that a rank may have in two more runs")
    parser.add_argument("--quick", action="store_true", help="leave out the sharded runs that go one by one")
    parser.add_argument("--only", nargs="*", default=[], help="words of the names of the runs to make")
    parser.add_argument("--home", type=Path, default=Path("/tmp/fsdp_exact"))
    return parser.parse_args()


def main() -> int:
    """0 when every run was exact; runs for which no time was left are named."""
    import torch

    options = arguments()
    on_gpu = torch.cuda.is_available()
    began = time.monotonic()
    home = options.home.resolve()
    shutil.rmtree(home, ignore_errors=True)
    print("making the base", flush=True)
    make_base(home / "base", options)
    print(f"{time.monotonic() - began:.0f} s; the copy in 4 bits", flush=True)
    spec = make_spec(home, options.length)
    copy(home, spec)
    shape = f"{options.layers} layers of {options.hidden}, {options.length} tokens, {BATCH} conversations a step"
    print(f"{machine(on_gpu)}; {shape}; {time.monotonic() - began:.0f} s")
    heads = (options.heads, options.kv_heads, options.hidden // options.heads)
    counted = Shape(options.hidden, options.layers, options.intermediate, *heads, options.vocab, False)
    alone, beside = waves(options.ranks, on_gpu, options.cap)
    alone = alone[:1] if options.quick or options.only else alone
    beside = [
        chain for chain in beside if not options.only or any(w in run.name for run in chain for w in options.only)
    ]
    reference = alone[0]
    done: list[Run] = []

    def go(chain: Chain) -> None:
        for run in chain:
            left = options.budget - (time.monotonic() - began)
            if left < 20 or (run.after and not done_ok(done, run.after)):
                print(f"left out for want of time or of what it goes on from: {run.name}", flush=True)
                continue
            run.alone = chain is alone
            execute(run, spec, home, on_gpu, left)
            against = next((r for r in done if r.name == FLOAT16 and run.no_bf16 and r.ok), reference)
            judge(run, against)
            done.append(run)
            print(line(run, against, guessed(run, spec, counted)), flush=True)

    print(HEAD + "\n|---|---|---|---|---|---|---|---|---|---|", flush=True)
    go(alone)
    with ThreadPoolExecutor(len(beside)) as pool:
        list(pool.map(go, beside))
    good = all(run.ok for run in done)
    for run in [r for r in done if r.ok and r.ranks > 1 and not (r.stop or r.no_bf16)][:1]:
        same, text = reopen(home, spec, run, on_gpu)
        good = good and same
        print(f"adapter of “{run.name}” reopened: {'the same' if same else 'DIFFERS'}, {text}")
    print(f"{time.monotonic() - began:.0f} s in all")
    return 0 if good else 1


def done_ok(done: list[Run], name: str) -> bool:
    return any(run.name == name and run.ok for run in done)


def copy(home: Path, spec: TrainSpec) -> None:
    """Made before the first run, so that one process loads the very same file."""
    from assets.files import Workspace
    from assets.hub import locate
    from finetune.train_quantise import ensure
    from finetune.train_watch import Report

    workspace = Workspace(home).prepare()
    ensure(workspace, locate(workspace, spec.model.id), spec, Report(home, False))


if __name__ == "__main__":
    sys.exit(main())
