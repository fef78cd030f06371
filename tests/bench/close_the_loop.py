"""Does a round of votes make the next model better? The whole loop on the starter, with raters whose taste is known.

A parent adapter learns the built-in emotion dialogues. It answers study prompts several times; a simulated rater with one taste
votes, and is wrong one time in ten; the votes become a preference file, one round of DPO trains the next adapter, which
meets its parent on held-out prompts. Beside it: the parent against itself, the same votes with half of them turned round
(which must teach nothing), and what happened to the other domain.

    python -m tests.bench.close_the_loop --seeds 3              # a GPU: minutes; seeds run beside one another
    python -m tests.bench.close_the_loop --seeds 1 --small      # two CPU cores: a rehearsal whose figures mean nothing

Tastes: "question" prefers the answer that ends in a question; "feeling" the one that names a feeling. Where both or
neither do, it is a tie. Win rates count decided comparisons; intervals are 95 % bootstraps over prompts, with a
prompt's comparisons of all seeds kept together.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from assets.catalog import STARTER, datasets, prompts, read_dialogues
from assets.files import Workspace, read_json, write_json
from assets.split import is_heldout
from compare.pairs import PairFilter
from compare.pairs_file import make
from compare.rating import Rating, now
from compare.ratings import RatingsFile
from finetune import train
from finetune.spec import DataSpec, LoraSpec, ModelSpec, PreferenceSpec, ScheduleSpec, TrainSpec, WatchSpec

FEELINGS = re.compile(
    "속상|슬프|슬퍼|슬픔|외로|외롭|화나|화가 |불안|무서|무섭|서운|억울|답답|힘들|힘드|아프|아팠|아픈|그립|그리워|기쁘|기뻐|"
    "반갑|걱정|부끄|미안|지치|지쳐|허전|서럽|서러|두렵|두려|놀라|괴로|괴롭|원망|쓸쓸|막막|초조|설레|뿌듯|허탈|아쉽|아쉬|"
    "창피|민망|질투|부럽|마음|기분"
)
TASTES: dict[str, Callable[[str], bool]] = {
    "question": lambda text: text.rstrip(" \"'”’)").endswith(("?", "？")),
    "feeling": lambda text: bool(FEELINGS.search(text)),
}
REHEARSAL: dict[str, Callable[[str], bool]] = {"even": lambda text: len(text) % 2 == 0}
LIKES = {**TASTES, **REHEARSAL}
WRONG = 0.1
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Size:
    """How much of everything. ``samples`` is answers per study prompt, ``judged`` per held-out prompt and model,
    ``decided`` the votes that are no ties with which a study ends."""

    study: int = 400
    heldout: int = 100
    samples: int = 8
    decided: int = 240
    judged: int = 4
    tokens: int = 240
    sft_steps: int = 60
    sft_batch: int = 16
    dpo_epochs: float = 2
    dpo_batch: int = 16
    micro_batch: int = 16
    losses: int = 20
    tastes: tuple[str, ...] = tuple(TASTES)
    kinds: tuple[str, ...] = ("votes", "shuffled")


SMALL = Size(
    tastes=tuple(REHEARSAL),
    study=10, heldout=3, samples=2, judged=1, tokens=24, sft_steps=3, sft_batch=2, dpo_epochs=1, dpo_batch=2,
    micro_batch=2, losses=2,
)  # fmt: skip


def questions(domain: str) -> list[Messages]:
    """Opening questions of a domain: its prompt set and its dialogues, each once."""
    card = next(d for d in datasets() if d.kind == "builtin" and d.domain == domain)
    talks = [list(p.messages) for p in prompts(domain) if len(p.messages) == 1]
    talks += [row["messages"][:1] for file in (card.heldout, card.file) if file for row in read_dialogues(file)]
    return list({talk[0]["content"]: talk for talk in talks}.values())


def parent_spec(model: str, method: Any, seed: int, size: Size) -> TrainSpec:
    micro = min(size.micro_batch, size.sft_batch)
    return TrainSpec(
        ModelSpec(model),
        DataSpec("naranhi/emotion-ko"),
        name=f"parent-{seed}",
        method=method,
        lora=LoraSpec(rank=16, alpha=32),
        schedule=ScheduleSpec(
            steps=size.sft_steps, micro_batch=micro, accumulation=size.sft_batch // micro, learning_rate=1e-3,
            max_length=640, checkpointing=False, warmup=0.05, seed=seed,
        ),
        watch=WatchSpec(every=size.sft_steps, examples=8, samples=0),
    )  # fmt: skip


def round_spec(parent: TrainSpec, file: str, name: str, pairs: int, rate: float, beta: float, size: Size) -> TrainSpec:
    steps = max(1, round(size.dpo_epochs * pairs / size.dpo_batch))
    micro = min(size.micro_batch, size.dpo_batch)
    schedule = replace(
        parent.schedule, steps=steps, micro_batch=micro, accumulation=size.dpo_batch // micro, learning_rate=rate,
        max_length=512, warmup=0.1,
    )  # fmt: skip
    return replace(
        parent,
        name=name,
        data=DataSpec(file, "preferences", heldout=0.0),
        objective="dpo",
        start=f"jobs/{parent.name}/adapter",
        preference=PreferenceSpec(beta=beta),
        schedule=schedule,
        watch=replace(parent.watch, every=steps),
    )


def learn(spec: TrainSpec, workspace: Workspace) -> Path:
    """Train as a job would; the adapter's folder."""
    folder = workspace.jobs / spec.name
    folder.mkdir(parents=True, exist_ok=True)
    code = train.run(spec, folder, workspace)
    if code:
        raise SystemExit(f"{spec.name}: exit code {code}")
    write_json(folder / "job.json", {"state": "finished"})
    return folder / "adapter"


class Speaker:
    """One base in 4 bits and one adapter on it: answers and losses."""

    def __init__(self, spec: TrainSpec, adapter: Path, workspace: Workspace) -> None:
        import torch
        from peft import PeftModel

        from assets.chat import ChatFormat
        from assets.hub import locate
        from finetune.train_model import load_base
        from finetune.train_trainer import precision_of

        files = locate(workspace, spec.model.id)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.spec = spec
        self.chat = ChatFormat.from_folder(files.folder)
        base = load_base(files.folder, spec, precision_of(spec), self.device)
        model = PeftModel.from_pretrained(base, str(adapter))
        self.model = (model if spec.method == "qlora" else model.merge_and_unload()).eval()
        self.model.config.use_cache = True

    def answers(self, asked: Sequence[Messages], samples: int, seed: int, tokens: int) -> list[list[str]]:
        """``samples`` answers to each, drawn at temperature 0.8 from the 50 likeliest tokens."""
        import torch

        torch.manual_seed(seed)
        rows = [self.chat.encode_prompt(talk) for talk in asked for _ in range(samples)]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        texts = [""] * len(rows)
        step = 1280 if self.device == "cuda" else 8
        for begin in range(0, len(order), step):
            part = order[begin : begin + step]
            width = max(len(rows[i]) for i in part)
            pad = self.chat.stop_ids[0]
            ids = torch.tensor([[pad] * (width - len(rows[i])) + rows[i] for i in part], device=self.device)
            mask = torch.tensor([[0] * (width - len(rows[i])) + [1] * len(rows[i]) for i in part], device=self.device)
            with torch.no_grad():
                out = self.model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    max_new_tokens=tokens,
                    do_sample=True,
                    temperature=0.8,
                    top_k=50,
                    eos_token_id=list(self.chat.stop_ids),
                    pad_token_id=pad,
                )
            for i, row in zip(part, out[:, width:].tolist(), strict=True):
                texts[i] = self.chat.tokenizer.decode(row, skip_special_tokens=True).strip()
        return [texts[i : i + samples] for i in range(0, len(texts), samples)]

    def loss(self, domain: str, count: int) -> float:
        """Mean loss per answer token over held-out dialogues of a domain."""
        import torch

        card = next(d for d in datasets() if d.kind == "builtin" and d.domain == domain)
        assert card.heldout is not None
        total = tokens = 0.0
        for row in read_dialogues(card.heldout)[:count]:
            told = self.chat.encode_training(row["messages"], None, 1024)
            labels = [i if t else -100 for i, t in zip(told.ids, told.trained, strict=True)]
            with torch.no_grad():
                ids = torch.tensor([told.ids], device=self.device)
                loss = self.model(input_ids=ids, labels=torch.tensor([labels], device=self.device)).loss
            learnt = sum(told.trained[1:])
            total, tokens = total + float(loss) * learnt, tokens + learnt
        return total / tokens


def vote(taste: str, talk: Messages, pair: tuple[str, str], who: tuple[str, str], number: int, chance: Any) -> Rating:
    """What a rater with this taste says of two answers; ties where both or neither please."""
    likes = [LIKES[taste](text) for text in pair]
    winner = "tie" if likes[0] == likes[1] else "model_a" if likes[0] else "model_b"
    if winner != "tie" and chance.random() < WRONG:
        winner = "model_b" if winner == "model_a" else "model_a"
    return Rating(
        rating_id=f"{taste}-{number}", created_at=now(), rater=f"sim-{taste}", kind="main", study_id=taste,
        domain="emotion", conversation=list(talk), response_a=pair[0], response_b=pair[1], model_a=who[0],
        model_b=who[1], left_is=chance.choice(["model_a", "model_b"]), blind=True, winner=winner,
    )  # fmt: skip


def until_decided(votes: Iterable[Rating], enough: int) -> list[Rating]:
    """Votes up to the one with which ``enough`` are no ties."""
    kept: list[Rating] = []
    for row in votes:
        kept.append(row)
        enough -= row.winner != "tie"
        if not enough:
            break
    return kept


def shuffled(votes: Sequence[Rating], chance: Any) -> list[Rating]:
    """The same votes with the winner turned round in half of the decided ones, so that they say nothing on the whole."""
    decided = [i for i, v in enumerate(votes) if v.winner != "tie"]
    turned = set(chance.sample(decided, len(decided) // 2))
    other = {"model_a": "model_b", "model_b": "model_a"}
    return [replace(v, winner=other[v.winner]) if i in turned else v for i, v in enumerate(votes)]


def outcome(taste: str, mine: Sequence[Sequence[str]], others: Sequence[Sequence[str]]) -> list[list[int]]:
    """Per prompt: comparisons won and lost, answer by answer."""
    likes = LIKES[taste]
    table = []
    for ours, theirs in zip(mine, others, strict=True):
        pairs = [(likes(a), likes(b)) for a, b in zip(ours, theirs, strict=True)]
        table.append([sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)])
    return table


def rate(texts: Sequence[Sequence[str]], taste: str) -> float:
    flat = [text for several in texts for text in several]
    return sum(map(LIKES[taste], flat)) / len(flat)


def one_seed(options: argparse.Namespace, size: Size) -> None:
    """The loop once; what happened goes into report-<seed>.json as plain data."""
    seed: int = options.only
    os.environ["NARANHI_HOME"] = str(options.home / f"seed-{seed}")
    workspace = Workspace.from_environment().prepare()
    source = Workspace(Path(os.environ["LOOP_MODELS"])) if "LOOP_MODELS" in os.environ else Workspace(Path("workspace"))
    if not any(workspace.models.iterdir()):
        for folder in source.models.glob("*/"):
            (workspace.models / folder.name).symlink_to(folder.resolve())
    emotion, science = questions("emotion"), questions("science")
    study = [q for q in emotion if not is_heldout(q)][: size.study]
    held = [q for q in emotion if is_heldout(q)][: size.heldout]
    other = [q for q in science if is_heldout(q)][: size.heldout]
    spec = parent_spec(options.model, options.method, seed, size)
    began = time.time()
    parent = learn(spec, workspace)
    speaker = Speaker(spec, parent, workspace)
    samples = max(size.samples, size.judged)
    drawn, rest = _parted(speaker.answers(study + held + held + other, samples, seed, size.tokens), study)
    mine, rest = _parted([several[: size.judged] for several in rest], held)
    again, science_before = _parted(rest, held)
    losses = {d: speaker.loss(d, size.losses) for d in ("emotion", "science")}
    report: dict[str, Any] = {"seed": seed, "study": len(study), "heldout": len(held), "loss": losses, "tastes": {}}
    report["examples"] = {"parent": [several[0] for several in mine[:3]]}
    del speaker
    who = (f"{spec.name}@a", f"{spec.name}@b")
    for taste in size.tastes:
        chance = random.Random(f"{seed}-{taste}")
        votes = until_decided(
            (
                vote(taste, talk, (several[i], several[i + 1]), who, n * size.samples + i, chance)
                for i in range(0, size.samples, 2)
                for n, (talk, several) in enumerate(zip(study, drawn, strict=True))
            ),
            size.decided,
        )
        store = RatingsFile(workspace.ratings / f"{taste}.csv")
        for row in votes:
            store.append(row)
        told: dict[str, Any] = {
            "before": {
                "won": outcome(taste, again, mine),
                "rate": rate(mine, taste),
                "other": rate(science_before, taste),
            }
        }
        counted = {"votes": store.read().votes, "shuffled": shuffled(votes, chance)}
        for kind in size.kinds:
            file = make(workspace, counted[kind], PairFilter(study=taste), "dpo", f"{taste}-{kind}")
            child = round_spec(spec, file.name, f"{taste}-{kind}-{seed}", file.rows, options.rate, options.beta, size)
            speaker = Speaker(child, learn(child, workspace), workspace)
            texts, elsewhere = _parted(speaker.answers(held + other, size.judged, seed + 4000, size.tokens), held)
            told[kind] = {
                "pairs": file.rows,
                "won": outcome(taste, texts, mine),
                "rate": rate(texts, taste),
                "other": rate(elsewhere, taste),
                "loss": {d: speaker.loss(d, size.losses) for d in ("emotion", "science")},
                "length": sum(len(t) for several in texts for t in several) / (len(held) * size.judged),
                "example": texts[0][0],
            }
            del speaker
            report["tastes"][taste], report["seconds"] = told, time.time() - began
            write_json(options.home / f"report-{seed}.json", report)  # whole rounds survive a run that is cut short


def _parted(texts: list[list[str]], first: Sequence[Messages]) -> tuple[list[list[str]], list[list[str]]]:
    return texts[: len(first)], texts[len(first) :]


def interval(table: Sequence[Sequence[int]], draws: int = 4000) -> tuple[float, float, float, int]:
    """Share of decided comparisons won, its bootstrap interval over prompts, how many were decided."""
    import numpy as np

    counts = np.array([row for row in table if sum(row)])
    if not len(counts):
        return float("nan"), float("nan"), float("nan"), 0
    picks = np.random.default_rng(0).integers(0, len(counts), (draws, len(counts)))
    sums = counts[picks].sum(1)
    low, high = np.quantile(sums[:, 0] / sums.sum(1), [0.025, 0.975])
    return float(counts[:, 0].sum() / counts.sum()), float(low), float(high), int(counts.sum())


def table(reports: Sequence[dict[str, Any]]) -> str:
    """The result as Markdown: each seed, then all of them together."""
    lines = [
        "| taste | trained on | seed | pairs | wins against the parent, held-out prompts | shows the taste |"
        " same, science | loss emotion | loss science |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for taste in (t for t in LIKES if all(t in r["tastes"] for r in reports)):
        for kind in (k for k in ("before", "votes", "shuffled") if all(k in r["tastes"][taste] for r in reports)):
            rows: list[tuple[Any, ...]] = [
                (r["seed"], r["tastes"][taste][kind], r["tastes"][taste]["before"], r["loss"]) for r in reports
            ]
            for seed, told, first, losses in rows:
                after = told.get("loss", losses)
                lines.append(_line(taste, kind, str(seed), told, first, [told["won"]], after, losses))
            if len(rows) > 1:
                lines.append(_line(taste, kind, "all", *_mean(rows)))
    return "\n".join(lines)


def _mean(rows: Sequence[tuple[Any, ...]]) -> tuple[Any, Any, list[Any], Any, Any]:
    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    keys = ("rate", "other", "pairs")
    told, first = ({key: mean([row[i].get(key, 0) for row in rows]) for key in keys} for i in (1, 2))
    after, before = (
        {
            d: mean([(row[i].get("loss", row[3]) if i == 1 else row[3])[d] for row in rows])
            for d in ("emotion", "science")
        }
        for i in (1, 3)
    )
    won = [[sum(w) for w in zip(*prompt, strict=True)] for prompt in zip(*(row[1]["won"] for row in rows), strict=True)]
    return told, first, [won], after, before


def _line(taste: str, kind: str, seed: str, told: Any, first: Any, won: Sequence[Any], after: Any, before: Any) -> str:
    share, low, high, n = interval([row for part in won for row in part])
    what = {"before": "– (parent against itself)", "votes": "votes", "shuffled": "shuffled votes"}[kind]
    pairs = f"{told['pairs']:.0f}" if told.get("pairs") else ""
    win = f"{share:.0%} ({low:.0%}–{high:.0%}, n={n})" if n else "none decided"
    rates = [
        f"{first[key]:.0%} → {told[key]:.0%}" if kind != "before" else f"{told[key]:.0%}" for key in ("rate", "other")
    ]
    losses = [
        f"{before[d]:.3f} → {after[d]:.3f}" if kind != "before" else f"{before[d]:.3f}" for d in ("emotion", "science")
    ]
    return "| " + " | ".join([taste, what, seed, pairs, win, *rates, *losses]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--only", type=int, help="run one seed in this process")
    parser.add_argument("--small", action="store_true", help="a rehearsal")
    parser.add_argument("--rate", type=float, default=1e-4, help="learning rate of the round")
    parser.add_argument("--beta", type=float, default=0.1)
    parser.add_argument("--model", default=STARTER)
    parser.add_argument("--method", choices=("qlora", "lora"), default="qlora")
    parser.add_argument("--limit", type=float, default=1e5, help="seconds; what is done by then is shown")
    parser.add_argument("--no-control", action="store_true", help="leave out the shuffled votes")
    parser.add_argument("--home", type=Path, default=Path("workspace/loop"))
    options = parser.parse_args()
    size = SMALL if options.small else Size()
    if options.no_control:
        size = replace(size, kinds=("votes",))
    if options.only is not None:
        one_seed(options, size)
        return
    options.home.mkdir(parents=True, exist_ok=True)
    passed = [
        "--rate",
        str(options.rate),
        "--beta",
        str(options.beta),
        "--model",
        options.model,
        "--method",
        options.method,
    ]
    passed += ["--home", str(options.home)]
    passed += ["--small"] * options.small + ["--no-control"] * options.no_control
    running = []
    seeds = range(options.first, options.first + options.seeds)
    for seed in seeds:
        argv = [sys.executable, "-m", "tests.bench.close_the_loop", "--only", str(seed), *passed]
        with (options.home / f"log-{seed}.txt").open("w") as log:
            running.append(subprocess.Popen(argv, stdout=log, stderr=log))
    until = time.monotonic() + options.limit
    for seed, process in zip(seeds, running, strict=True):
        try:
            code = process.wait(max(1.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            continue
        if code:
            print((options.home / f"log-{seed}.txt").read_text()[-3000:], file=sys.stderr)
            raise SystemExit(f"seed {seed} failed")
    files = [options.home / f"report-{seed}.json" for seed in seeds]
    reports = [read_json(file) for file in files if file.exists()]
    if not reports:
        raise SystemExit("not one round was done in time")
    print(table(reports))
    print(json.dumps({r["seed"]: round(r["seconds"]) for r in reports}), "seconds by seed")


if __name__ == "__main__":
    main()
