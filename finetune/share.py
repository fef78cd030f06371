"""An adapter on its way to others: which files, without a trace of this machine, as a zip or in a Hub repository.

Covers: collecting and cleaning, the zip, publishing with the licence's demands met. Does not cover: the card's text
(card.py), components (tab_share.py). The token is the Hub library's own.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path, PurePath
from typing import Any

from assets.errors import UserError
from assets.files import read_json
from assets.hub import has_token, readable_errors
from assets.words import Words
from finetune import outcome
from finetune.card import card, on_hub, terms_of
from finetune.progress import read

WEIGHTS = "adapter_model.safetensors"
KEPT = (WEIGHTS, "chat_template.jinja")
# What says where and on what it ran: of no use elsewhere, and full of paths.
_PRIVATE = ("plan", "environment", "ranks", "cluster")
_TEXTS = ("system", "template", "name")


@dataclass(frozen=True)
class Shared:
    """Files by name, as bytes or where they are. ``begins`` is how the licence wants the repository's name to begin."""

    name: str
    files: Mapping[str, bytes | Path]
    begins: str = ""


def collect(folder: Path, verdict: Sequence[str], words: Words) -> Shared:
    """What of a run's folder can be given away. UserError("share.no_adapter") before there is an adapter,
    ("share.whole") for a model that was trained whole."""
    adapter = folder / "adapter"
    if (whole := folder / outcome.MODEL).is_dir():
        raise UserError("share.whole", folder=f"jobs/{folder.name}/{whole.name}")
    if not (adapter / WEIGHTS).is_file() or not (folder / "run.json").is_file():
        raise UserError("share.no_adapter")
    run = cleaned(read_json(folder / "run.json"))
    base = str(run["base"]["id"])
    config = cleaned(read_json(adapter / "adapter_config.json"))
    config["base_model_name_or_path"] = base
    files: dict[str, bytes | Path] = {name: adapter / name for name in KEPT if (adapter / name).is_file()}
    files["adapter_config.json"] = _json(config)
    files["run.json"] = _json(run)
    files["README.md"] = card(run, read(folder), verdict, words).encode("utf-8")
    terms = terms_of(base)
    if terms.notice:
        files["NOTICE"] = f"{terms.notice}\n".encode()
    return Shared(str(run["name"]), files, terms.begins)


def digest(folder: Path) -> str | None:
    """sha256 of the adapter's weights, by which votes name it; None without an adapter."""
    weights = folder / "adapter" / WEIGHTS
    if not weights.is_file():
        return None
    with weights.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def cleaned(value: Any) -> Any:
    """A record without what is private, and of every path only its last part."""
    if isinstance(value, dict):
        kept = {name: one for name, one in value.items() if name not in _PRIVATE}
        return {name: one if name in _TEXTS else cleaned(one) for name, one in kept.items()}
    if isinstance(value, list):
        return [cleaned(one) for one in value]
    if isinstance(value, str) and value.startswith(("/", "~", "./", "../")):
        return PurePath(value).name
    return value


def write_zip(shared: Shared, path: Path) -> Path:
    """All files in one archive; weights are stored as they are, they do not get smaller."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in shared.files.items():
            if isinstance(content, Path):
                kind = zipfile.ZIP_STORED if name == WEIGHTS else None
                archive.write(content, name, kind)
            else:
                archive.writestr(name, content)
    return path


def publish(shared: Shared, repo: str, private: bool = True, endpoint: str | None = None) -> str:
    """Put the files into a model repository of the owner, made if it is not there; gives its address.

    UserErrors: "share.sign_in", "share.bad_name", "share.begins" when the licence wants another name, "share.public" for
    a repository that everybody can read although a private one was asked for, "hub.…".
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    repo = repo.strip()
    if not has_token():
        raise UserError("share.sign_in")
    if not on_hub(repo) or " " in repo:
        raise UserError("share.bad_name")
    if shared.begins and not repo.split("/")[1].lower().startswith(shared.begins.lower()):
        raise UserError("share.begins", begins=shared.begins)
    added = [CommitOperationAdd(name, content) for name, content in shared.files.items()]
    api = HfApi(endpoint=endpoint)
    with readable_errors(repo):
        address = api.create_repo(repo, private=private, exist_ok=True)
        if private and api.model_info(repo).private is not True:
            raise UserError("share.public", repo=repo)
        api.create_commit(repo, added, commit_message=f"{shared.name} (Naranhi)")
    return str(address)


def _json(value: object) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode("utf-8")
