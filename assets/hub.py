"""Where a model's files are: a folder, the starter, the Hub's cache or the Hub itself.

Covers: resolving an id to a local folder, fetching only the small files for a preview, and saying in one sentence why
it cannot be had. Does not cover: loading weights. Uses huggingface_hub and nothing heavier. Tokens stay in that
library's own store or in memory; they are never written here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assets.catalog import STARTER
from assets.errors import UserError
from assets.files import Workspace

SMALL = ["*.json", "*.jinja", "*.model", "*.txt"]
WEIGHTS = ["*.safetensors"]


@dataclass(frozen=True)
class ModelFiles:
    """A model on this disk. ``revision`` is the commit of a Hub snapshot, the starter's package version, or None."""

    id: str
    folder: Path
    revision: str | None

    @property
    def config(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "config.json").read_text(encoding="utf-8")))


def locate(workspace: Workspace, model_id: str, revision: str | None = None, *, weights: bool = True) -> ModelFiles:
    """The model's folder, downloading what is missing. UserError("hub.…") when it cannot be had or is not causal."""
    found = _local(workspace, model_id) or _snapshot(model_id, revision, weights)
    check_causal(found)
    return found


def _local(workspace: Workspace, model_id: str) -> ModelFiles | None:
    starter = workspace.models / STARTER.rsplit("/", 1)[-1]
    if model_id == STARTER and (starter / "source.json").exists():
        source = json.loads((starter / "source.json").read_text(encoding="utf-8"))
        return ModelFiles(model_id, starter, f"{source['package']} {source['package_version']}")
    try:
        folder = Path(model_id).expanduser()
        found = folder.is_dir()
    except (OSError, RuntimeError) as error:  # a name too long for a file, "~somebody" who is not here
        raise UserError("hub.no_folder", id=model_id) from error
    if found:
        if not (folder / "config.json").exists():
            raise UserError("hub.no_config", id=model_id)
        return ModelFiles(model_id, folder.resolve(), None)
    if model_id.startswith(("/", ".", "~")) or model_id.count("/") > 1:
        raise UserError("hub.no_folder", id=model_id)
    return None


def _snapshot(model_id: str, revision: str | None, weights: bool) -> ModelFiles:
    from huggingface_hub import snapshot_download

    with readable_errors(model_id):
        folder = Path(
            snapshot_download(model_id, revision=revision, allow_patterns=SMALL + (WEIGHTS if weights else []))
        )
    if not (folder / "config.json").exists():
        raise UserError("hub.no_config", id=model_id)
    if weights and not list(folder.glob("*.safetensors")):
        raise UserError("hub.no_weights", id=model_id)
    return ModelFiles(model_id, folder, folder.name)


@contextmanager
def readable_errors(what: str) -> Iterator[None]:
    """Turn the Hub library's exceptions into sentences."""
    from huggingface_hub import errors
    from huggingface_hub.utils import HFValidationError

    try:
        yield
    except errors.GatedRepoError as error:
        raise UserError("hub.gated", id=what) from error
    except errors.RevisionNotFoundError as error:
        raise UserError("hub.no_revision", id=what) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError("hub.not_found", id=what) from error
    except HFValidationError as error:
        raise UserError("hub.bad_id", id=what) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError) as error:
        raise UserError("hub.offline", id=what) from error
    except errors.HfHubHTTPError as error:
        raise UserError("hub.trouble", id=what, reason=str(error).splitlines()[0]) from error
    except errors.HTTPError as error:  # the transport's own: refused, timed out, no such host
        raise UserError("hub.offline", id=what) from error


def check_causal(files: ModelFiles) -> None:
    """UserError("hub.not_causal") unless the config names a model that writes text (multimodal Gemma 3 counts)."""
    names = files.config.get("architectures") or []
    if not any(n.endswith(("ForCausalLM", "LMHeadModel")) or n == "Gemma3ForConditionalGeneration" for n in names):
        raise UserError("hub.not_causal", id=files.id, found=", ".join(names) or "?")


def has_token() -> bool:
    """Whether the Hub library finds a token, in its store or in the environment."""
    from huggingface_hub import get_token

    return get_token() is not None


def who() -> str | None:
    """The account's name, None without a token. UserError("hub.…") when the Hub cannot be asked."""
    if not has_token():
        return None
    from huggingface_hub import HfApi

    with readable_errors("whoami"):
        return str(HfApi().whoami()["name"])


def sign_in(token: str) -> None:
    """Check a token with the Hub and keep it in that library's own store. UserError when it is refused."""
    from huggingface_hub import HfApi, login
    from huggingface_hub.errors import HfHubHTTPError

    if not re.fullmatch("[!-~]+", token):  # anything else cannot stand in a header, and the refusal would quote it
        raise UserError("train.hub.bad_token")
    try:
        with readable_errors("whoami"):
            HfApi().whoami(token=token)
    except UserError as error:
        if isinstance(error.__cause__, HfHubHTTPError):
            raise UserError("train.hub.bad_token") from error.__cause__
        raise
    login(token, add_to_git_credential=False)


def sign_out() -> None:
    """Forget the token that is kept; one from the environment stays."""
    from huggingface_hub import logout

    if has_token():
        logout()


def may_open(model_id: str) -> bool:
    """Whether this account may read a gated model's files. UserError when the Hub cannot be asked."""
    from huggingface_hub import auth_check
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    with readable_errors(model_id):
        try:
            auth_check(model_id)
        except (GatedRepoError, RepositoryNotFoundError):
            return False
    return True
