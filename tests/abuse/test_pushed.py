"""What leaves for the Hub: the ratings' copy and a published adapter hold no token, no password and no folder of this disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from assets.words import Words
from compare.ratings import RatingsFile
from compare.sync import Sync
from compare.sync_hub import HubRepo
from finetune import share
from tests.abuse.site import PASSWORD, vote
from tests.fake_hub import TOKEN, FakeHub, hub_serving
from tests.finetune.test_share import record, write_run


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NARANHI_PASSWORD", PASSWORD)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    close_session()
    with hub_serving() as running:
        yield running
    close_session()


def test_what_is_pushed_holds_no_secret(hub: FakeHub, tmp_path: Path) -> None:
    ratings = RatingsFile(tmp_path / "work" / "ratings" / "ratings.csv", "abuse")
    ratings.append(*map(vote, range(4)))
    Sync(ratings.path, tmp_path / "work" / "studies", HubRepo("me/ratings", hub.url, 2.0), 0.05).round()
    share.publish(share.collect(write_run(tmp_path / "run", record()), (), Words("ko")), "me/lora", endpoint=hub.url)
    pushed = {(repo, name): data for repo, kept in hub.repos.items() for name, data in kept.files.items()}
    assert {repo for repo, _ in pushed} == {"me/ratings", "me/lora"} and all(
        repo.private for repo in hub.repos.values()
    )
    secrets = [one.encode() for one in (TOKEN, PASSWORD, str(tmp_path))]
    assert [where for where, data in pushed.items() if any(secret in data for secret in secrets)] == []
    assert any(b"=1+1" in data for data in pushed.values()), "the votes are really there"
