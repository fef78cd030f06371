"""A dataset of the Hugging Face Hub by its id, to a table.

Covers: the Parquet copy that the Hub makes of a dataset (branch refs/convert/parquet) or, where there is none or a
revision is asked for, the dataset's own files. Does not cover: datasets that are programs; they are never run. The
``datasets`` library is not used: loading with it imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from assets.errors import UserError
from finetune.data_read import SUFFIXES, read_file
from finetune.data_table import Note, Table

PARQUET_BRANCH = "refs/convert/parquet"
MAX_DOWNLOAD = 2 << 30
_NAMED = 20


@dataclass(frozen=True)
class Listing:
    """A dataset at one commit: its files with their sizes in bytes."""

    commit: str
    files: dict[str, int]


class Fetch(Protocol):
    """Where datasets come from. Errors are those of huggingface_hub."""

    def listing(self, dataset: str, revision: str | None) -> Listing: ...

    def download(self, dataset: str, file: str, commit: str) -> Path: ...


@dataclass(frozen=True)
class HubFetch:
    """The Hub itself. The token is used and never shown."""

    token: str | None = field(default=None, repr=False)

    def listing(self, dataset: str, revision: str | None) -> Listing:
        from huggingface_hub import HfApi

        info = HfApi(token=self.token).dataset_info(dataset, revision=revision, files_metadata=True, timeout=20)
        return Listing(str(info.sha), {item.rfilename: item.size or 0 for item in info.siblings or []})

    def download(self, dataset: str, file: str, commit: str) -> Path:
        from huggingface_hub import HfApi

        path = HfApi(token=self.token).hf_hub_download(dataset, file, repo_type="dataset", revision=commit)
        return Path(path)


def read_hub(
    dataset: str,
    split: str,
    revision: str | None = None,
    token: str | None = None,
    limit: int | None = None,
    subset: str | None = None,
    fetch: Fetch | None = None,
) -> Table:
    """The rows of one split, the first ``limit`` if given; a note names the commit.

    UserError: data.hub_not_found, data.hub_gated, data.hub_offline, data.hub_no_split, data.hub_choose_subset,
    data.hub_no_files, data.hub_large, data.hub_failed, and those of read_file.
    """
    source: Fetch = fetch or HubFetch(token)
    with _told(dataset):
        listing, files = _files(source, dataset, split, revision, subset)
        size = sum(listing.files[file] for file in files)
        if limit is None and size > MAX_DOWNLOAD:
            raise UserError("data.hub_large", dataset=dataset, gb=round(size / (1 << 30), 1))
        tables: list[Table] = []
        missing = limit
        for file in files:
            tables.append(read_file(source.download(dataset, file, listing.commit), missing, uploaded=False))
            if missing is not None:
                missing -= len(tables[-1].rows)
                if missing <= 0:
                    break
    return _joined(tables, Note("data.hub_commit", {"dataset": dataset, "commit": listing.commit}))


def _joined(tables: list[Table], note: Note) -> Table:
    columns = dict.fromkeys(name for table in tables for name in table.columns)
    rows = [row for table in tables for row in table.rows]
    return Table(list(columns), rows, tables[0].encoding, [note, *(note for table in tables for note in table.notes)])


def _files(
    source: Fetch, dataset: str, split: str, revision: str | None, subset: str | None
) -> tuple[Listing, list[str]]:
    from huggingface_hub.errors import RevisionNotFoundError

    if revision is None:
        try:
            listing = source.listing(dataset, PARQUET_BRANCH)
        except RevisionNotFoundError:
            pass
        else:
            if any(file.endswith(".parquet") for file in listing.files):
                return listing, _converted_files(dataset, listing, split, subset)
    listing = source.listing(dataset, revision)
    return listing, _own_files(dataset, listing, split, subset)


def _converted_files(dataset: str, listing: Listing, split: str, subset: str | None) -> list[str]:
    """Files are named <subset>/<split>/<number>.parquet; of a split too large to convert, <subset>/partial-<split>/…"""
    tree: dict[str, dict[str, list[str]]] = {}
    for file in sorted(listing.files):
        parts = file.split("/")
        if len(parts) == 3 and file.endswith(".parquet"):
            tree.setdefault(parts[0], {}).setdefault(parts[1].removeprefix("partial-"), []).append(file)
    if subset is None:
        subset = "default" if "default" in tree or len(tree) != 1 else next(iter(tree))
    if subset not in tree:
        raise UserError("data.hub_choose_subset", dataset=dataset, subsets=", ".join(list(tree)[:_NAMED]))
    if split not in tree[subset]:
        raise UserError(
            "data.hub_no_split", dataset=dataset, split=split, splits=", ".join(list(tree[subset])[:_NAMED])
        )
    return tree[subset][split]


def _own_files(dataset: str, listing: Listing, split: str, subset: str | None) -> list[str]:
    """Data files with the split's name in theirs; the only data file there is counts as "train"."""
    data = [file for file in sorted(listing.files) if file.lower().endswith(SUFFIXES) and not file.startswith(".")]
    if subset is not None:
        data = [file for file in data if subset in file.split("/")]
    if not data:
        raise UserError("data.hub_no_files", dataset=dataset)
    named = re.compile(rf"(^|[/_.\-]){re.escape(split)}([/_.\-]|$)")
    found = [file for file in data if named.search(file)]
    if not found and split == "train" and len(data) == 1:
        found = data
    if not found:
        raise UserError("data.hub_no_split", dataset=dataset, split=split, splits=", ".join(data[:_NAMED]))
    suffix = Path(found[0]).suffix
    return [file for file in found if Path(file).suffix == suffix]


@contextmanager
def _told(dataset: str) -> Iterator[None]:
    """The Hub's errors as sentences."""
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx

    try:
        yield
    except errors.GatedRepoError as error:
        raise UserError("data.hub_gated", dataset=dataset) from error
    except errors.RevisionNotFoundError as error:
        raise UserError("data.hub_no_revision", dataset=dataset) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise UserError("data.hub_not_found", dataset=dataset) from error
    except errors.HfHubHTTPError as error:
        raise UserError("data.hub_failed", dataset=dataset, status=error.response.status_code) from error
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, httpx.TransportError) as error:
        raise UserError("data.hub_offline", dataset=dataset) from error
