"""A private dataset repository of the owner, as a folder of small files.

Covers: making it, what is in it, fetching and committing files, the Hub's answers as sentences. Does not cover: which
files (sync.py). The token is the Hub library's own (its store, or HF_TOKEN), read anew at every call.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assets.errors import UserError

PATIENCE = 30.0


def blob_id(data: bytes) -> str:
    """What git, and so the Hub, calls a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass(frozen=True)
class HubRepo:
    """``repo`` is "owner/name"; ``endpoint`` another Hub than the library's own, ``patience`` seconds for a sign of life.

    The patience is set on the library's one client, which by itself waits for ever for a server that says nothing.
    """

    repo: str
    endpoint: str | None = None
    patience: float = PATIENCE

    def files(self) -> dict[str, str]:
        """Path -> blob id of everything in it; a repository that is not there is made, private.

        UserErrors: "sync.public" for one that everybody can read, and those of the Hub.
        """
        from huggingface_hub.errors import RepositoryNotFoundError

        api = self._api()
        with readable(self.repo):
            try:
                info = api.dataset_info(self.repo, files_metadata=True, timeout=self.patience)
            except RepositoryNotFoundError as error:
                if error.response.status_code != 404:
                    raise
                api.create_repo(self.repo, repo_type="dataset", private=True, exist_ok=True)
                info = api.dataset_info(self.repo, files_metadata=True, timeout=self.patience)
        if info.private is not True:
            raise UserError("sync.public", repo=self.repo)
        return {file.rfilename: file.blob_id or "" for file in info.siblings or ()}

    def fetch(self, path: str) -> bytes:
        """One file's content."""
        with readable(self.repo), tempfile.TemporaryDirectory(prefix="naranhi-sync-") as folder:
            file = self._api().hf_hub_download(self.repo, path, repo_type="dataset", local_dir=folder)
            return Path(file).read_bytes()

    def push(self, files: Mapping[str, bytes], message: str) -> None:
        """All files in one commit, or none."""
        from huggingface_hub import CommitOperationAdd

        added = [CommitOperationAdd(path, data) for path, data in files.items()]
        with readable(self.repo):
            self._api().create_commit(self.repo, added, commit_message=message, repo_type="dataset")

    def _api(self) -> Any:
        from huggingface_hub import HfApi, get_session

        get_session().timeout = self.patience
        return HfApi(endpoint=self.endpoint)


@contextmanager
def readable(repo: str) -> Iterator[None]:
    """The Hub library's exceptions as sentences."""
    from huggingface_hub import errors
    from huggingface_hub.utils import HFValidationError

    try:
        yield
    except HFValidationError as error:
        raise UserError("sync.bad_name", repo=repo) from error
    except errors.HfHubHTTPError as error:
        raise UserError(_key(error.response.status_code), repo=repo) from error
    except errors.LocalTokenNotFoundError as error:
        raise UserError("sync.refused", repo=repo) from error
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, errors.HTTPError, OSError) as error:
        raise UserError("sync.away", repo=repo) from error


def _key(status: int) -> str:
    if status in (401, 403, 404):
        return "sync.refused"
    if status == 429:
        return "sync.busy"
    return "sync.trouble"
