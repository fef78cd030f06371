"""A study in one file for a machine without GPU, models or names; and its votes on their way home.

Covers: packing, opening a pack safely, the votes of a study as a CSV, merging such a CSV. Does not cover: serving
(study_serve.py works on an opened pack as on any other study), the Hub.

A pack holds no model name, no path, no system prompt, no provenance and no timing: arms are opaque keys, and what they
stand for stays in the home study. Merging puts it back, and takes a vote only when it is about the home study's answers.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from assets.errors import UserError
from assets.files import lock, write_atomic
from compare.csv_store import BOM, to_json, to_line
from compare.rating import COLUMNS, Rating, now, to_cells
from compare.ratings import Mark, RatingsFile, Refused, read_rows
from compare.study import Study, StudyArm, check_id, from_record
from compare.study_items import Answer, Answers, Item, Task, missing, parse_items
from compare.study_store import Studies
from compare.study_text import plain, restored

FORMAT = "naranhi-study"
VERSION = 1
FILES = ("study.json", "items.jsonl")
LARGEST = 200 << 20
BATCH = 500


@dataclass(frozen=True)
class Merged:
    """``added`` rows are new, ``known`` were here before, ``other`` belong to other studies; ``refused`` say why."""

    added: int
    known: int
    other: int
    refused: tuple[Refused, ...] = field(default_factory=tuple)


def pack(studies: Studies, study_id: str, target: Path) -> Path:
    """Write the pack. UserError("study.not_generated") while answers are missing."""
    study = studies.get(study_id)
    answers = studies.items(study_id).read()
    if left := len(missing(study, answers)):
        raise UserError("study.not_generated", missing=left)
    bodies = {
        "study.json": to_json(plain(asdict(_anonymous(study)))).encode(),
        "items.jsonl": "".join(to_json(_bare(a)) + "\n" for a in answers.values() if not a.named).encode(),
    }
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "study": study.id,
        "made_at": now(),
        "files": {name: hashlib.sha256(body).hexdigest() for name, body in bodies.items()},
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("manifest.json", to_json(manifest))
            for name, body in bodies.items():
                file.writestr(name, body)
    except OSError as error:
        target.unlink(missing_ok=True)
        raise UserError("ratings.not_saved", reason=error.strerror or str(error)) from error
    return target


def unpack(studies: Studies, file: Path) -> Study:
    """Open a pack as a study that can be rated at once; the same pack opened again is the study that is there.

    UserErrors: "study.pack_bad", "study.pack_newer", "study.exists" when a study of that id is here and is no copy.
    """
    bodies = _bodies(file)
    try:
        record = restored(json.loads(bodies["study.json"]))
    except (ValueError, RecursionError) as error:
        raise UserError("study.pack_bad", reason="study.json") from error
    study = replace(_anonymous(from_record(record)), state="open")
    answers = parse_items(bodies["items.jsonl"])
    if not set(answers) <= {Task(p.id, a.key, s) for p in study.prompts for a in study.arms for s in (0, 1)}:
        raise UserError("study.pack_bad", reason="items.jsonl")
    folder = studies.folder(study.id)
    with lock(folder / "study.yaml"):
        if (folder / "study.yaml").exists():
            there = studies.get(study.id)
            if there.packed and there.prompts == study.prompts and there.arms == study.arms:
                return there
            raise UserError("study.exists", study=there.name)
        write_atomic(folder / "items.jsonl", "".join(to_json(_bare(answer)) + "\n" for answer in answers.values()))
        write_atomic(folder / "study.yaml", study.to_yaml())  # last: a folder without it is no study
    return study


def votes_csv(ratings: RatingsFile, study_id: str, target: Path) -> int:
    """The study's rows (votes and what took them back) as an exact CSV to send home; how many."""
    check_id(study_id)
    rows = [row for row in ratings.rows() if row.study_id == study_id]
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        file.write(to_line(COLUMNS))
        for row in rows:
            cells = to_cells(row)
            file.write(to_line(cells[name] for name in COLUMNS))
    return len(rows)


def merge(studies: Studies, ratings: RatingsFile, study_id: str, file: Path) -> Merged:
    """Add the votes in ``file`` that are not here yet, with the models' names put back. Merging again adds nothing.

    Rows that cannot be read, or that are about other answers than the home study's, are refused one by one.
    """
    study = studies.get(study_id)
    if study.packed:
        raise UserError("study.merge_at_home")
    answers = studies.items(study_id).read()
    _, _, here = ratings.since(Mark(), study_id)
    known = {(row.rating_id, row.rater) for row in here}
    votes = {row.rating_id for row in here if row.action == "vote"}
    refused: list[Refused] = []
    fresh: list[Rating] = []
    already = other = 0
    for record, found in read_rows(file):
        if isinstance(found, UserError):
            refused.append(Refused(record.line, found.key, found.values))
            continue
        if found.study_id != study_id and not (found.action != "vote" and found.target_rating_id in votes):
            other += 1
            continue
        if (found.rating_id, found.rater) in known:
            already += 1
            continue
        try:
            row = replace(found, study_id=study_id) if found.action != "vote" else _at_home(study, answers, found)
        except UserError as error:
            refused.append(Refused(record.line, error.key, error.values))
            continue
        known.add((row.rating_id, row.rater))
        votes.add(row.rating_id)
        fresh.append(row)
    waiting = iter(fresh)
    while batch := list(islice(waiting, BATCH)):
        ratings.append(*batch)
    return Merged(len(fresh), already, other, tuple(refused))


def _at_home(study: Study, answers: Answers, vote: Rating) -> Rating:
    """The vote as it would have been stored here. UserErrors: "study.merge_unknown_item", "study.merge_other_answers"."""
    if vote.kind == "practice":
        return vote
    item = _item(vote.item_id)
    keys = {arm.key: arm for arm in study.arms}
    if item is None or not all(task in answers for task in item.tasks) or vote.kind == "free":
        raise UserError("study.merge_unknown_item", item=vote.item_id[:80])
    one, two = (answers[task] for task in item.tasks)
    if (vote.response_a, vote.response_b) != (one.text, two.text):
        raise UserError("study.merge_other_answers", item=vote.item_id[:80])
    for side, key in (("model_a", item.a), ("model_b", item.b)):
        if getattr(vote, side) not in (key, keys[key].model):
            raise UserError("study.merge_unknown_item", item=vote.item_id[:80])
    prompt = study.prompt(item.prompt_id)
    told = [{"role": "system", "content": study.system}] if study.system else []
    shared = {k: v for k, v in one.provenance.items() if k != "arm"}
    sides = {"model_a": one.provenance.get("arm", {}), "model_b": two.provenance.get("arm", {})}
    return replace(
        vote,
        model_a=keys[item.a].model,
        model_b=keys[item.b].model,
        domain=prompt.domain,
        prompt_set=prompt.set,
        prompt_id=prompt.id,
        conversation=[*told, *map(dict, prompt.messages)],
        sampling=dict(one.sampling),
        seed=one.seed,
        provenance=shared | sides,
        timing=dict(vote.timing) | {"model_a": dict(one.timing), "model_b": dict(two.timing)},
    )


def _item(item_id: str) -> Item | None:
    try:
        return Item.of(item_id)
    except ValueError:
        return None


def _anonymous(study: Study) -> Study:
    """Without anything that tells a model; the title stands in for the name."""
    arms = tuple(StudyArm(arm.key, arm.key) for arm in study.arms)
    return replace(study, name=study.title or study.id, arms=arms, system="", state="open", packed=True)


def _bare(answer: Answer) -> dict[str, Any]:
    return {
        "prompt_id": answer.prompt_id,
        "arm": answer.arm,
        "sample": answer.sample,
        "text": answer.text,
        "reason": answer.reason,
    }


def _bodies(file: Path) -> Mapping[str, bytes]:
    """The pack's files, each as its manifest says. Nothing is extracted to a path that a pack names."""
    try:
        with zipfile.ZipFile(file) as archive:
            manifest = json.loads(b"".join(_limited(archive, "manifest.json")))
            if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
                raise UserError("study.pack_bad", reason="manifest.json")
            if type(manifest.get("version")) is not int or manifest["version"] > VERSION:
                raise UserError("study.pack_newer", version=str(manifest.get("version"))[:20])
            bodies = {name: b"".join(_limited(archive, name)) for name in FILES}
            for name, body in bodies.items():
                if hashlib.sha256(body).hexdigest() != manifest["files"][name]:
                    raise UserError("study.pack_bad", reason=name)
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError, RuntimeError, NotImplementedError) as error:
        raise UserError("study.pack_bad", reason=str(error)[:200] or type(error).__name__) from error
    return {name: body.removeprefix(BOM) for name, body in bodies.items()}


def _limited(archive: zipfile.ZipFile, name: str) -> Iterator[bytes]:
    """A member's bytes, however much its header says they are. UserError beyond LARGEST."""
    size = 0
    with archive.open(name) as member:
        while part := member.read(1 << 20):
            size += len(part)
            if size > LARGEST:
                raise UserError("study.pack_large", limit=LARGEST >> 20)
            yield part
