"""The model card of an adapter: what it is, how it came about, whether it is better, and under which terms.

Covers: the text of README.md in the Hub's format, what the licences of known bases ask for. Does not cover: files and
publishing (share.py), the votes (whoever calls passes the verdict's sentences in).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import yaml

from assets.catalog import datasets, find_model
from assets.words import Words, duration
from finetune.progress import Progress

POINTS = 12
SAMPLES = 4


@dataclass(frozen=True)
class Terms:
    """What a licence asks of adapters made from its models: how their names begin, what the card says, what stands in a
    file called NOTICE."""

    begins: str = ""
    built_with: str = ""
    notice: str = ""


# Llama 3 and 3.1 Community License, section 1.b; Gemma Terms of Use, section 3.1.
_TERMS: Mapping[str, Terms] = {
    "llama3": Terms(
        "Llama-3",
        "Built with Meta Llama 3",
        "Meta Llama 3 is licensed under the Meta Llama 3 Community License, Copyright © Meta Platforms, Inc. "
        "All Rights Reserved.",
    ),
    "llama3.1": Terms(
        "Llama",
        "Built with Llama",
        "Llama 3.1 is licensed under the Llama 3.1 Community License, Copyright © Meta Platforms, Inc. "
        "All Rights Reserved.",
    ),
    "gemma": Terms(
        notice="Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
    ),
}


def licence_of(base: str) -> str:
    """The licence of a base as the Hub names it; "" for a model that the catalogue does not know."""
    found = find_model(base)
    return found.licence if found else ""


def terms_of(base: str) -> Terms:
    return _TERMS.get(licence_of(base), Terms())


def on_hub(model_id: str) -> bool:
    """Whether an id is one of the Hub, and no folder of this machine."""
    return model_id.count("/") == 1 and not model_id.startswith(("/", ".", "~"))


def card(run: Mapping[str, Any], progress: Progress, verdict: Sequence[str], words: Words) -> str:
    """README.md of an adapter from its run.json, its curves and samples, and the sentences of a verdict, if any."""
    parts = [
        f"---\n{yaml.safe_dump(_head(run), allow_unicode=True, sort_keys=False)}---",
        f"# {_line(run['name'])}",
        _about(run, words),
        f"## {words('share.card.verdict')}",
        "\n".join(f"- {_line(one)}" for one in verdict) or words("share.card.no_verdict"),
        f"## {words('share.card.training')}",
        _settings(run, words),
        _curves(progress, words),
        _samples(progress, words),
        f"## {words('share.card.use')}",
        _use(run),
        f"## {words('share.card.licence')}",
        _licence(run, words),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(run: Mapping[str, Any]) -> dict[str, Any]:
    base, data = str(run["base"]["id"]), run["dataset"]
    known = next((one for one in datasets() if one.id == data.get("id")), None)
    head: dict[str, Any] = {
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "base_model": base if on_hub(base) else None,
        "license": licence_of(base) or None,
        "language": [known.language] if known else None,
        "datasets": [data["id"]] if data.get("kind") == "hub" and on_hub(str(data["id"])) else None,
        "tags": ["lora", str(run["spec"]["method"]), "naranhi"],
    }
    return {name: value for name, value in head.items() if value}


def _about(run: Mapping[str, Any], words: Words) -> str:
    built = terms_of(str(run["base"]["id"])).built_with
    text = words("share.card.about", base=_name(run["base"]["id"]), data=_data(run, words), n=run["dataset"]["train"])
    return text + (f"\n\n**{built}**" if built else "")


def _settings(run: Mapping[str, Any], words: Words) -> str:
    spec, data = run["spec"], run["dataset"]
    lora, schedule = spec["lora"], spec["schedule"]
    losses = (run.get("metrics") or {}).get("eval_loss") or {}
    rows = {
        "base": f"{_name(run['base']['id'])} ({run['base'].get('revision') or '–'})",
        "data": f"{_data(run, words)} (sha256 {str(data.get('sha256'))[:16]}…)",
        "rows": words("share.card.rows", train=data["train"], heldout=data["heldout"]),
        "method": f"{spec['method']}, LoRA r={lora['rank']} alpha={lora['alpha']}, {lora['targets']}",
        "steps": words(
            "share.card.steps",
            steps=(run.get("metrics") or {}).get("steps", "–"),
            batch=schedule["micro_batch"] * schedule["accumulation"],
            rate=f"{schedule['learning_rate']:g}",
            length=schedule["max_length"],
        ),
        "loss": f"{losses['first']:.3f} → {losses['last']:.3f}" if losses else "–",
        "time": duration(words, run["finished_at"] - run["started_at"]) if run.get("finished_at") else "–",
        "template": str(run.get("template_hash") or "–"),
        "system": run.get("system") or "–",
        "versions": ", ".join(f"{name} {version}" for name, version in (run.get("versions") or {}).items()),
    }
    lines = [f"| {words('share.card.f.' + name)} | {_cell(value)} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def _curves(progress: Progress, words: Words) -> str:
    """Training loss at up to POINTS steps, beside every evaluation."""
    losses = {int(row["step"]): row["loss"] for row in progress.steps if row.get("loss") is not None}
    evals = {int(row["step"]): row["loss"] for row in progress.evals if row.get("loss") is not None}
    kept = sorted(losses)[:: max(1, len(losses) // POINTS)]
    steps = sorted({*kept, *evals, *sorted(losses)[-1:]})
    if not steps:
        return ""
    head = f"| {words('share.card.step')} | {words('share.card.loss')} | {words('share.card.eval_loss')} |"
    lines = [f"| {step} | {_number(losses.get(step))} | {_number(evals.get(step))} |" for step in steps]
    return "\n".join([f"### {words('share.card.curves')}\n", head, "|---:|---:|---:|", *lines])


def _samples(progress: Progress, words: Words) -> str:
    """The newest answers to the fixed prompts."""
    last = max((row["step"] for row in progress.samples), default=None)
    rows = [row for row in progress.samples if row["step"] == last][:SAMPLES]
    if not rows:
        return ""
    said = [f"> {_quote(row['prompt'])}\n\n{_quote(row['answer'].rstrip(chr(0xFFFD)))}" for row in rows]
    return "\n\n".join([f"### {words('share.card.samples', step=last)}", *said])


def _use(run: Mapping[str, Any]) -> str:
    base = _name(run["base"]["id"])
    return f"""```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained({base!r}, dtype="auto", device_map="auto")
model = PeftModel.from_pretrained(base, "THIS_REPOSITORY")
tokenizer = AutoTokenizer.from_pretrained({base!r})
```"""


def _licence(run: Mapping[str, Any], words: Words) -> str:
    base = str(run["base"]["id"])
    licence, terms = licence_of(base), terms_of(base)
    if not licence:
        lines = [words("share.card.unknown_licence", base=_name(base))]
    else:
        lines = [words("share.card.base_licence", base=_name(base), licence=words(f"catalog.licence.{licence}"))]
    if terms.notice:
        lines.append(terms.notice)
    known = next((one for one in datasets() if one.id == run["dataset"].get("id")), None)
    if known:
        lines.append(words("share.card.data_licence", licence=words(f"catalog.licence.{known.licence}")))
    else:
        lines.append(words("share.card.own_data"))
    return "\n\n".join(lines)


def _data(run: Mapping[str, Any], words: Words) -> str:
    data = run["dataset"]
    known = next((one for one in datasets() if one.id == data.get("id")), None)
    return words(known.title) if known else _name(str(data.get("id") or "–"))


def _name(text: str) -> str:
    """A Hub id as it is; of a path only its last part: a card names no folder of somebody's machine."""
    return text if on_hub(text) else PurePath(text).name


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _line(text: object) -> str:
    return " ".join(str(text).split())


def _cell(text: object) -> str:
    return _line(text).replace("|", "\\|")


def _quote(text: str) -> str:
    return text.strip().replace("\n", "\n> ")
