"""Hugging Face Jobs and a private repository, asked through huggingface_hub; its answers as sentences.

Covers: whose token, hardware with prices, starting, looking, logs, cancelling, listing by label, files of a repository.
Does not cover: what a run is (remote_jobs.py). A token is held in memory here, or is the Hub library's own; it is sent
to the Hub, and to a job as its secret, and written nowhere.
"""

from __future__ import annotations

import errno
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from assets.errors import UserError

PATIENCE = 30.0
PRICES = "https://huggingface.co/docs/hub/jobs-pricing"
APP = "naranhi"
ENDED = ("COMPLETED", "CANCELED", "ERROR", "DELETED")
MOST_LISTED = 200
T = TypeVar("T")


class Account:
    """Whose account pays. Tokens given here stay in this process, by the name they belong to; for any other name it is
    the Hub library's own, unless ``library`` is False: on a Space that one is the host's, not the visitor's."""

    def __init__(self, library: bool = True) -> None:
        self._tokens: dict[str, str] = {}
        self._library = library

    def __repr__(self) -> str:
        return f"Account({sorted(self._tokens)})"

    def keep(self, name: str, token: str) -> None:
        self._tokens[name] = token

    def token(self, name: str) -> str:
        """UserError("elsewhere.no_token")."""
        from huggingface_hub import get_token

        token = self._tokens.get(name) or (get_token() if self._library else None)
        if not token:
            raise UserError("elsewhere.no_token")
        return token


@dataclass(frozen=True)
class Flavor:
    """Hardware by its name there. ``hourly`` is US dollars, None when the Hub does not say; memory in GB of all GPUs."""

    name: str
    label: str
    gpus: int = 0
    memory: float = 0.0
    hourly: float | None = None


@dataclass(frozen=True)
class Seen:
    """A job as the service tells it. Times are seconds since 1970."""

    id: str
    namespace: str
    stage: str
    message: str = ""
    url: str = ""
    run: str = ""
    flavor: str = ""
    created: float | None = None
    started: float | None = None
    ended: float | None = None

    @property
    def over(self) -> bool:
        return self.stage in ENDED


@dataclass(frozen=True)
class Service:
    """``endpoint`` is another Hub than the library's own; ``patience`` seconds are waited for a sign of life."""

    account: Account = field(default_factory=Account)
    endpoint: str | None = None
    patience: float = PATIENCE

    def sign_in(self, token: str) -> str:
        """Keep a token in memory; the name of its account. UserError("elsewhere.bad_token"), ("elsewhere.refused") …"""
        from huggingface_hub import HfApi

        if not re.fullmatch("[!-~]+", token):  # anything else cannot stand in a header, and the refusal would quote it
            raise UserError("elsewhere.bad_token")
        with readable():
            name = str(patiently(lambda: HfApi(endpoint=self.endpoint, token=token).whoami())["name"])
        self.account.keep(name, token)
        return name

    def name(self, account: str = "") -> str:
        """Who pays: the account of that name, or the one that is signed in. UserErrors of ``readable``."""
        with readable():
            return str(patiently(lambda: self._api(account).whoami())["name"])

    def hardware(self) -> list[Flavor]:
        """What can be rented, as the service lists it; without prices, from the library's names, when it does not."""
        from huggingface_hub import JobHardware

        try:
            with readable():
                found = [_flavor(one) for one in self._public().list_jobs_hardware()]
        except (UserError, KeyError, TypeError, ValueError):  # answered in another shape counts as not answered
            found = []
        return found or [Flavor(str(one.value), str(one.value), gpus=_gpus(str(one.value))) for one in JobHardware]

    def run(self, order: Mapping[str, Any], namespace: str) -> Seen:
        """Start a job. Never repeated by itself: two jobs would cost twice."""
        with readable(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the library calls run_uv_job experimental
            token = self.account.token(namespace)
            secrets = {"HF_TOKEN": token}
            return _seen(self._api(namespace).run_uv_job(**order, secrets=secrets, namespace=namespace, token=token))

    def look(self, namespace: str, job_id: str) -> Seen:
        with readable():
            return _seen(self._api(namespace).inspect_job(job_id=job_id, namespace=namespace))

    def listed(self, namespace: str, run: str = "") -> list[Seen]:
        """Jobs that carry this program's label, or those of one run; newest first as the service gives them."""
        labels = {"app": APP, **({"run": run} if run else {})}
        with readable():
            found = self._api(namespace).list_jobs(labels=labels, namespace=namespace, timeout=int(self.patience))
            return [_seen(one) for one in islice(found, MOST_LISTED)]

    def logs(self, namespace: str, job_id: str, lines: int = 400) -> str:
        """The last lines of what the job printed."""
        with readable():
            found = self._api(namespace).fetch_job_logs(job_id=job_id, namespace=namespace, tail=lines)
            return "".join(line if line.endswith("\n") else f"{line}\n" for line in found)

    def cancel(self, namespace: str, job_id: str) -> None:
        with readable():
            self._api(namespace).cancel_job(job_id=job_id, namespace=namespace)

    def make(self, repo: str) -> None:
        """A private dataset repository. UserError("elsewhere.public") for one of that name that everybody can read."""
        with readable():
            patiently(
                lambda: self._api(_owner(repo)).create_repo(repo, repo_type="dataset", private=True, exist_ok=True)
            )
            info = patiently(lambda: self._api(_owner(repo)).dataset_info(repo, timeout=self.patience))
        if info.private is not True:
            raise UserError("elsewhere.public", repo=repo)

    def files(self, repo: str) -> tuple[str, dict[str, str]]:
        """The commit, and path -> what names the content, of everything in a repository."""
        with readable():
            info = self._api(_owner(repo)).dataset_info(repo, files_metadata=True, timeout=self.patience)
        return str(info.sha), {file.rfilename: _content(file) for file in info.siblings or ()}

    def fetch(self, repo: str, path: str, commit: str, into: Path) -> Path:
        """One file below the folder ``into``."""
        with readable():
            found = self._api(_owner(repo)).hf_hub_download(
                repo, path, repo_type="dataset", revision=commit, local_dir=into
            )
        return Path(found)

    def push(
        self, repo: str, files: Mapping[str, bytes | Path], message: str, gone: Sequence[str] = (), tries: int = 4
    ) -> None:
        """All files in one commit, or none; the folders ``gone`` are removed in it."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        def commit() -> Any:  # operations remember what was sent of them, so each try has its own
            added = [CommitOperationAdd(path, content) for path, content in files.items()]
            removed = [CommitOperationDelete(f"{path}/", is_folder=True) for path in gone]
            return self._api(_owner(repo)).create_commit(
                repo, [*removed, *added], commit_message=message, repo_type="dataset"
            )

        with readable():
            patiently(commit, tries)

    def _api(self, account: str) -> Any:
        from huggingface_hub import HfApi, get_session

        get_session().timeout = self.patience
        return HfApi(endpoint=self.endpoint, token=self.account.token(account))

    def _public(self) -> Any:
        """For what the service tells everybody."""
        from huggingface_hub import HfApi, get_session

        get_session().timeout = self.patience
        return HfApi(endpoint=self.endpoint, token=False)


def _owner(repo: str) -> str:
    return repo.split("/")[0]


def patiently(call: Callable[[], T], tries: int = 4, wait: float = 1.0) -> T:
    """Ask again after 429, a fault of the server or a cut; only for what may be done twice."""
    from huggingface_hub import errors

    for left in range(tries - 1, -1, -1):
        try:
            return call()
        except errors.HfHubHTTPError as error:
            status = error.response.status_code
            if not left or not (status in (408, 409, 412, 429) or status >= 500):
                raise
            after = error.response.headers.get("Retry-After", "")
            time.sleep(min(30.0, float(after)) if after.isdigit() else wait)
        except errors.HTTPError:
            if not left:
                raise
            time.sleep(wait)
        wait *= 2
    raise AssertionError


@contextmanager
def readable() -> Iterator[None]:
    """The Hub library's exceptions as sentences: no token, refused (401), not allowed (403), no credit (402), gone (404),
    busy (429), trouble (5xx), away."""
    from huggingface_hub import errors

    try:
        yield
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        raise UserError(_key(status), status=status, reason=_reason(error)) from error
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, errors.HTTPError, OSError) as error:
        cause = error.__cause__
        if isinstance(cause, errors.HfHubHTTPError):
            status = cause.response.status_code
            raise UserError(_key(status), status=status, reason=_reason(cause)) from error
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise UserError("train.disk_full") from error
        raise UserError("elsewhere.away") from error


def _key(status: int) -> str:
    known = {401: "refused", 402: "no_credit", 403: "not_allowed", 404: "gone", 429: "busy"}
    return f"elsewhere.{known.get(status, 'trouble')}"


def _reason(error: Any) -> str:
    """What the server said, in a line; the request, which carries the token, is not part of it."""
    said = getattr(error, "server_message", None) or ""
    return str(said).strip().splitlines()[0][:160] if said and str(said).strip() else "–"


def _content(file: Any) -> str:
    lfs = getattr(file, "lfs", None)
    return str((lfs.get("sha256") if isinstance(lfs, dict) else getattr(lfs, "sha256", None)) or file.blob_id or "")


def _flavor(one: Any) -> Flavor:
    units = {"minute": 60.0, "hour": 1.0, "second": 3600.0}
    unit = units.get(str(one.unit_label).lower())
    card = one.accelerator
    vram = re.match(r"[\d.]+", str(card.vram)) if card else None
    return Flavor(
        str(one.name),
        str(one.pretty_name),
        gpus=int(card.quantity) if card else 0,
        memory=float(vram[0]) if vram else 0.0,
        hourly=float(one.unit_cost_usd) * unit if unit and one.unit_cost_usd else None,
    )


def _gpus(name: str) -> int:
    if name.startswith("cpu"):
        return 0
    many = re.search(r"x(\d+)$", name)
    return int(many[1]) if many else 1


def _seen(job: Any) -> Seen:
    stage = getattr(job.status.stage, "value", job.status.stage)
    return Seen(
        id=str(job.id),
        namespace=str(job.owner.name),
        stage=str(stage),
        message=str(job.status.message or ""),
        url=str(job.url),
        run=str((job.labels or {}).get("run", "")),
        flavor=str(getattr(job.flavor, "value", job.flavor) or ""),
        created=_seconds(job.created_at),
        started=_seconds(job.started_at),
        ended=_seconds(job.finished_at),
    )


def _seconds(when: datetime | None) -> float | None:
    return when.timestamp() if when else None
