"""Datasets of the Hub, from a Hub that lives in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import errors
from huggingface_hub.utils import httpx

from finetune import data_hub, data_read
from finetune.data import HubFetch, Listing, guess, read_hub
from finetune.data_hub import PARQUET_BRANCH
from tests.finetune.data_samples import PAIRS, refused, told, write


class FolderHub:
    """Branches are folders. Counts downloads."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.downloads: list[str] = []

    def put(self, branch: str, file: str, rows: list[dict[str, Any]]) -> None:
        path = self.root / branch.replace("/", "-") / file
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, rows)

    def listing(self, dataset: str, revision: str | None) -> Listing:
        folder = self.root / (revision or "main").replace("/", "-")
        if not folder.is_dir():
            raise errors.RevisionNotFoundError("no such revision", response=response(404))
        files = {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
        return Listing(folder.name, files)

    def download(self, dataset: str, file: str, commit: str) -> Path:
        self.downloads.append(file)
        return self.root / commit / file


class FailingHub:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def listing(self, dataset: str, revision: str | None) -> Listing:
        raise self.error

    def download(self, dataset: str, file: str, commit: str) -> Path:
        raise self.error


def response(status: int) -> Any:
    return httpx.Response(status, request=httpx.Request("GET", "https://hub"))


@pytest.fixture
def hub(tmp_path: Path) -> FolderHub:
    return FolderHub(tmp_path)


def test_the_parquet_copy_is_read(hub: FolderHub) -> None:
    hub.put(PARQUET_BRANCH, "default/train/0000.parquet", PAIRS[:2])
    hub.put(PARQUET_BRANCH, "default/train/0001.parquet", PAIRS[2:])
    hub.put(PARQUET_BRANCH, "default/partial-test/0000.parquet", PAIRS[:1])
    table = read_hub("누구/자료", "train", fetch=hub)
    assert table.rows == PAIRS and guess(table).shape == "qa"
    assert told(table.notes) == ["data.hub_commit"]
    assert len(read_hub("a/b", "test", fetch=hub).rows) == 1


def test_a_limit_downloads_no_more_than_it_needs(hub: FolderHub) -> None:
    for number in range(3):
        hub.put(PARQUET_BRANCH, f"default/train/000{number}.parquet", PAIRS)
    assert len(read_hub("a/b", "train", limit=4, fetch=hub).rows) == 4
    assert len(hub.downloads) == 2


def test_shards_may_be_larger_than_uploads(hub: FolderHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.put("main", "train.jsonl", PAIRS)
    monkeypatch.setattr(data_read, "MAX_BYTES", 10)
    assert read_hub("a/b", "train", fetch=hub).rows == PAIRS


def test_too_much_without_a_limit(hub: FolderHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.put(PARQUET_BRANCH, "default/train/0000.parquet", PAIRS)
    monkeypatch.setattr(data_hub, "MAX_DOWNLOAD", 10)
    assert refused(read_hub, "a/b", "train", fetch=hub).key == "data.hub_large"
    assert hub.downloads == []
    assert read_hub("a/b", "train", limit=9, fetch=hub).rows == PAIRS


def test_subsets_and_splits_are_named(hub: FolderHub) -> None:
    hub.put(PARQUET_BRANCH, "ko/train/0000.parquet", PAIRS)
    hub.put(PARQUET_BRANCH, "en/train/0000.parquet", PAIRS[:1])
    choose = refused(read_hub, "a/b", "train", fetch=hub)
    assert (choose.key, choose.values["subsets"]) == ("data.hub_choose_subset", "en, ko")
    assert read_hub("a/b", "train", subset="ko", fetch=hub).rows == PAIRS
    missing = refused(read_hub, "a/b", "test", subset="en", fetch=hub)
    assert (missing.key, missing.values["splits"]) == ("data.hub_no_split", "train")


def test_own_files_where_there_is_no_copy(hub: FolderHub) -> None:
    hub.put("main", "data/train-00000-of-00001.parquet", PAIRS)
    hub.put("main", "data/test-00000-of-00001.parquet", PAIRS[:1])
    assert read_hub("a/b", "train", fetch=hub).rows == PAIRS
    assert refused(read_hub, "a/b", "dev", fetch=hub).key == "data.hub_no_split"


def test_a_revision_is_read_from_its_own_files(hub: FolderHub) -> None:
    hub.put(PARQUET_BRANCH, "default/train/0000.parquet", PAIRS[:1])
    hub.put("v2", "chat.jsonl", PAIRS)
    assert read_hub("a/b", "train", revision="v2", fetch=hub).rows == PAIRS
    assert refused(read_hub, "a/b", "train", revision="v3", fetch=hub).key == "data.hub_no_revision"


def test_no_data_files(hub: FolderHub) -> None:
    hub.put("main", "README.md", PAIRS)
    assert refused(read_hub, "a/b", "train", fetch=hub).key == "data.hub_no_files"


@pytest.mark.parametrize(
    ("error", "key"),
    [
        (errors.GatedRepoError("gated", response=response(403)), "data.hub_gated"),
        (errors.RepositoryNotFoundError("gone", response=response(404)), "data.hub_not_found"),
        (errors.HFValidationError("bad id"), "data.hub_not_found"),
        (errors.HfHubHTTPError("broken", response=response(503)), "data.hub_failed"),
        (errors.OfflineModeIsEnabled("offline"), "data.hub_offline"),
        (errors.LocalEntryNotFoundError("not cached"), "data.hub_offline"),
        (httpx.ConnectError("no route"), "data.hub_offline"),
        (httpx.ReadTimeout("slow"), "data.hub_offline"),
    ],
)
def test_errors_of_the_hub_are_sentences(error: Exception, key: str) -> None:
    assert refused(read_hub, "a/b", "train", fetch=FailingHub(error)).key == key


@pytest.mark.parametrize("dataset", ["../etc/passwd", "a/b/c", "한글 이름", "", "/"])
def test_an_id_that_is_none_never_reaches_the_network(dataset: str) -> None:
    assert refused(read_hub, dataset, "train").key == "data.hub_not_found"


def test_the_token_is_not_shown() -> None:
    assert "hf_secret" not in repr(HubFetch("hf_secret"))
