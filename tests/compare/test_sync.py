"""Ratings that outlive a disk, against a Hub over real HTTP."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from assets.errors import UserError
from assets.words import LANGUAGES, Words
from compare import sync as module
from compare import sync_parts, sync_view
from compare.ratings import RatingsFile
from compare.study_raters import Raters
from compare.sync import Sync, SyncStatus, card
from compare.sync_hub import HubRepo
from tests.compare.rating_files import vote, write
from tests.fake_hub import TOKEN, FakeHub, Fault, Repo, hub_serving

REPO = "owner/ratings"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    close_session()
    with hub_serving() as running:
        yield running
    close_session()


Disk = Callable[[str], "Place"]


class Place:
    """A workspace with a Sync on it."""

    def __init__(self, root: Path, hub: FakeHub, patience: float = 2.0) -> None:
        self.root = root
        self.ratings = RatingsFile(root / "ratings" / "ratings.csv")
        self.sync = Sync(self.ratings.path, root / "studies", HubRepo(REPO, hub.url, patience), 0.05)

    def add(self, *ids: str) -> None:
        self.ratings.append(*(vote(one, comment=f"쉼표, “따옴표”\n줄 {one}") for one in ids))

    def ids(self) -> list[str]:
        return [rating.rating_id for rating in self.ratings.rows()]

    def round(self) -> SyncStatus:
        return self.sync.round()


@pytest.fixture
def disk(tmp_path: Path, hub: FakeHub) -> Disk:
    return lambda name: Place(tmp_path / name, hub)


def parts(hub: FakeHub) -> list[str]:
    return sorted(name for name in hub.repos[REPO].files if name.startswith("data/"))


def test_a_new_repository_is_private_and_says_what_it_holds(disk: Disk, hub: FakeHub) -> None:
    here = disk("a")
    here.add("r1", "r2")
    status = here.round()
    assert (status.saved, status.backlog, status.error, status.restored) == (2, 0, None, 0) and status.last
    repo = hub.repos[REPO]
    assert repo.private and len(repo.commits) == 1 and set(repo.files) == {"README.md", *parts(hub)}
    assert repo.files["README.md"] == card() and b'data_files: "data/*.csv"' in card() and "투표" in card().decode()


def test_rows_come_back_on_an_empty_disk_exactly_as_they_were(disk: Disk) -> None:
    one = disk("a")
    one.ratings.append(vote("r1", response_a='=1+1, "네"\r\n둘', comment="\ud83d 반쪽", domain="emotion"))
    one.round()
    one.add("r2", "r3")
    one.ratings.undo("r2", "kim")
    one.round()
    other = disk("b")
    assert other.round().restored == 4
    assert [*other.ratings.rows()] == [
        *one.ratings.rows()
    ] and other.ratings.path.read_bytes() == one.ratings.path.read_bytes()
    assert other.ratings.read().undone == 1 and other.round().backlog == 0


def test_only_new_rows_are_pushed_and_parts_never_change(disk: Disk, hub: FakeHub) -> None:
    here = disk("a")
    here.add("r1")
    here.round()
    before = dict(hub.repos[REPO].files)
    here.round()
    assert len(hub.repos[REPO].commits) == 1
    here.add("r2", "r3")
    here.round()
    new = set(hub.repos[REPO].files) - set(before)
    assert len(new) == 1 and {k: hub.repos[REPO].files[k] for k in before} == before
    assert [i for i, _ in sync_parts.rows_of(hub.repos[REPO].files[new.pop()])] == ["r2", "r3"]


def test_a_start_on_a_lasting_disk_fetches_nothing_twice(disk: Disk, hub: FakeHub) -> None:
    disk("a").add("r1")
    disk("a").round()
    disk("a").round()
    hub.asked.clear()
    again = disk("a").round()
    assert "get" not in hub.asked and (again.saved, again.restored, again.backlog) == (1, 0, 0)


def test_a_part_that_was_damaged_on_disk_is_fetched_again(disk: Disk, hub: FakeHub) -> None:
    disk("a").add("r1")
    disk("a").round()
    disk("a").round()
    [kept] = (disk("a").root / "ratings" / "parts").iterdir()
    kept.write_bytes(kept.read_bytes()[:40])
    assert disk("a").round().saved == 1


def test_two_programs_on_one_repository_end_up_with_the_same_rows(disk: Disk, hub: FakeHub) -> None:
    a, b = disk("a"), disk("b")
    a.add("r1", "both")
    b.add("r2", "both")
    threads = [threading.Thread(target=place.round) for place in (a, b)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place in (a, b, a):
        assert place.round().error is None
    assert sorted(a.ids()) == sorted(b.ids()) == ["both", "r1", "r2"]
    assert len(a.ratings.read().votes) == 3 and len(parts(hub)) >= 2


def test_programs_on_one_workspace_take_turns(disk: Disk, hub: FakeHub) -> None:
    a, b = disk("a"), disk("a")
    a.add("r1")
    hub.faults["info"] = [Fault(stall=0.5)]
    thread = threading.Thread(target=a.round)
    thread.start()
    time.sleep(0.2)
    assert b.round() == SyncStatus(REPO) and hub.asked.count("info") == 1
    thread.join()
    assert b.round().saved == 1 and len(hub.repos[REPO].commits) == 1


@pytest.mark.parametrize(
    ("kind", "fault", "key"),
    [
        ("info", Fault(status=500), "sync.trouble"),
        ("info", Fault(status=503), "sync.trouble"),
        ("info", Fault(status=429, headers=(("Retry-After", "1"),)), "sync.busy"),
        ("info", Fault(status=0), "sync.away"),
        ("info", Fault(stall=5), "sync.away"),
        ("commit", Fault(status=500), "sync.trouble"),
        ("commit", Fault(status=429), "sync.busy"),
        ("commit", Fault(status=412), "sync.trouble"),
        ("commit", Fault(status=0), "sync.away"),
        ("commit", Fault(stall=5), "sync.away"),
    ],
)
def test_the_backlog_waits_while_the_hub_is_away(disk: Disk, hub: FakeHub, kind: str, fault: Fault, key: str) -> None:
    here = disk("a")
    here.add("r1")
    here.round()
    here.add("r2", "r3")
    hub.faults[kind] = [fault]
    status = here.round()
    assert status.error is not None and status.error.key == key
    assert (status.saved, status.backlog) == (1, 2)
    here.add("r4")
    status = here.round()
    assert (status.saved, status.backlog, status.error) == (4, 0, None)
    assert sorted(disk("b").round() and disk("b").ids()) == ["r1", "r2", "r3", "r4"]


def test_a_hub_that_is_away_at_the_start(disk: Disk, hub: FakeHub) -> None:
    here = disk("a")
    here.add("r1")
    hub.faults["info"] = [Fault(status=0)]
    status = here.round()
    assert (status.saved, status.backlog, status.last) == (0, None, None) and here.ids() == ["r1"]
    assert here.round().saved == 1


@pytest.mark.parametrize(
    "fault", [Fault(status=0, late=True), Fault(twice=True), Fault(status=0, late=True, twice=True)]
)
def test_a_delivery_whose_answer_is_lost_or_that_comes_twice(disk: Disk, hub: FakeHub, fault: Fault) -> None:
    here = disk("a")
    here.add("r1", "r2")
    hub.faults["commit"] = [fault]
    here.round()
    status = here.round()
    assert (status.saved, status.backlog, status.error) == (2, 0, None) and len(parts(hub)) == 1
    other = disk("b")
    other.round()
    assert other.ids() == ["r1", "r2"]


def test_the_same_rows_in_two_parts_are_one_vote_each(disk: Disk, hub: FakeHub) -> None:
    here = disk("a")
    here.add("r1", "r2")
    here.round()
    [name] = parts(hub)
    hub.repos[REPO].files["data/copy.csv"] = hub.repos[REPO].files[name]
    other = disk("b")
    assert other.round().restored == 2 and other.ids() == ["r1", "r2"]


def test_a_token_that_is_revoked_in_between(disk: Disk, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    here = disk("a")
    here.add("r1")
    here.round()
    hub.tokens = {"hf_" + "n" * 34}
    here.add("r2")
    status = here.round()
    assert status.error is not None and status.error.key == "sync.refused" and status.backlog == 1
    assert TOKEN not in repr(status) + repr(vars(here.sync))
    monkeypatch.setenv("HF_TOKEN", "hf_" + "n" * 34)
    assert here.round().backlog == 0
    monkeypatch.setenv("HF_TOKEN", "")
    here.add("r3")
    assert here.round().error is not None


def test_nothing_goes_to_a_repository_that_everybody_can_read(disk: Disk, hub: FakeHub) -> None:
    hub.repos[REPO] = Repo(private=False)
    here = disk("a")
    here.add("r1")
    status = here.round()
    assert status.error is not None and status.error.key == "sync.public" and hub.repos[REPO].files == {}


def test_a_name_that_is_none(tmp_path: Path, hub: FakeHub) -> None:
    sync = Sync(tmp_path / "ratings" / "ratings.csv", tmp_path / "studies", HubRepo("no name at all/!", hub.url))
    assert sync.round().error.key == "sync.bad_name"  # type: ignore[union-attr]


def test_the_switch_that_forbids_the_network(disk: Disk, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert disk("a").round().error.key == "sync.away"  # type: ignore[union-attr]
    assert hub.asked == []


def test_files_that_are_none_of_ours(disk: Disk, hub: FakeHub) -> None:
    here = disk("a")
    here.add("r1")
    here.round()
    good = hub.repos[REPO].files[parts(hub)[0]]
    hub.repos[REPO].files |= {
        "data/junk.csv": b"\x00\xff not a table",
        "data/torn.csv": good.replace(b'"r1"', b'"r9"')[:-30],
        "data/newer.csv": good.replace(b'"r1"', b'"r8"').replace(b'"1","r8"', b'"99","r8"'),
        "data/../evil.csv": good,
        "data/sub/deep.csv": good.replace(b'"r1"', b'"r7"'),
        "notes.txt": b"x",
    }
    other = disk("b")
    status = other.round()
    assert status.unreadable == ("data/junk.csv",) and status.error is None
    read = other.ratings.read()
    assert [v.rating_id for v in read.votes] == ["r1"] and [r.reason_key for r in read.refused] == ["ratings.newer"]
    assert other.round().unreadable == ("data/junk.csv",)


def test_rows_that_have_no_id_stay_and_are_counted(disk: Disk, hub: FakeHub) -> None:
    here = disk("a")
    here.add("r1")
    here.ratings.path.write_bytes(
        here.ratings.path.read_bytes().replace(b'"r1"', b'""') + b'"1","torn in the middle\n' + _row(here, "r2")
    )
    status = here.round()
    assert (status.saved, status.nameless, status.backlog) == (1, 2, 0)


def _row(place: Place, rating_id: str) -> bytes:
    other = RatingsFile(place.root / "one.csv")
    other.append(vote(rating_id))
    return other.path.read_bytes().split(b"\n", 1)[1]


def test_a_row_that_is_being_written_waits(disk: Disk, hub: FakeHub) -> None:
    here = disk("a")
    here.add("r1")
    row = _row(here, "r2")
    with here.ratings.path.open("ab") as file:
        file.write(row[:50])
        file.flush()
        assert here.round().saved == 1
        file.write(row[50:])
    assert (here.round().saved, here.sync.status.nameless) == (2, 0)


def test_a_file_that_was_replaced(disk: Disk, hub: FakeHub) -> None:
    here = disk("a")
    here.add("r1", "r2")
    here.round()
    new = RatingsFile(here.root / "new.csv")
    new.append(vote("r5"))
    new.path.replace(here.ratings.path)
    here.round()
    assert sorted(disk("b").round() and disk("b").ids()) == ["r1", "r2", "r5"]


def test_a_file_that_is_no_table(disk: Disk, hub: FakeHub) -> None:
    here = disk("a")
    write(here.ratings, b'"rating_id","rating_id"\n"a","b"\n')
    status = here.round()
    assert status.error is not None and status.error.key == "ratings.columns_twice"


def test_large_backlogs_go_in_several_parts(disk: Disk, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART_BYTES", 600)
    monkeypatch.setattr(module, "PARTS", 2)
    here = disk("a")
    here.add(*(f"r{n:03}" for n in range(40)))
    assert here.round().backlog == 0
    assert len(parts(hub)) > 4 and len(hub.repos[REPO].commits) > 2
    other = disk("b")
    assert other.round().restored == 40 and sorted(other.ids()) == [f"r{n:03}" for n in range(40)]


def test_what_arrived_before_a_failure_counts(disk: Disk, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART_BYTES", 300)
    monkeypatch.setattr(module, "PARTS", 1)
    here = disk("a")
    here.add(*(f"r{n}" for n in range(9)))
    hub.faults["commit"] = [Fault(), Fault(), Fault(status=500)]
    status = here.round()
    assert status.error is not None and 0 < status.saved < 9 and status.saved + (status.backlog or 0) == 9
    assert here.round().backlog == 0


# Studies


def study(place: Place, name: str, **files: str) -> Path:
    folder = place.root / "studies" / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        (folder / file.replace("_", ".")).write_text(text, encoding="utf-8")
    return folder


def test_studies_come_back(disk: Disk, hub: FakeHub) -> None:
    here = disk("a")
    study(here, "20261125-ab", study_yaml="version: 1\n", items_jsonl='{"안": 1}\n', raters_json="{}", other_txt="no")
    here.round()
    other = disk("b")
    other.round()
    found = {path.name: path.read_text() for path in (other.root / "studies" / "20261125-ab").iterdir()}
    assert found == {"study.yaml": "version: 1\n", "items.jsonl": '{"안": 1}\n', "raters.json": "{}"}
    commits = len(hub.repos[REPO].commits)
    for place in (here, other):
        place.round()
    assert len(hub.repos[REPO].commits) == commits
    study(other, "20261125-ab", study_yaml="version: 1\nstate: open\n")
    for _ in range(3):
        assert other.round().error is None and here.round().error is None
    assert len(hub.repos[REPO].commits) == commits + 1
    assert hub.repos[REPO].files["studies/20261125-ab/study.yaml"].endswith(b"open\n")
    assert (here.root / "studies" / "20261125-ab" / "study.yaml").read_text() == "version: 1\n"


def test_raters_links_open_after_the_disk_was_lost(disk: Disk) -> None:
    here = disk("a")
    [link] = Raters(study(here, "s1", study_yaml="version: 1\n")).add()
    here.round()
    other = disk("b")
    other.round()
    raters = Raters(other.root / "studies" / "s1")
    assert raters.find(link.code.split(".")[1]).rater == link.rater
    assert raters.path.stat().st_mode & 0o777 == 0o600


def test_a_study_that_is_here_is_never_overwritten_and_paths_do_not_escape(disk: Disk, hub: FakeHub) -> None:
    hub.repos[REPO] = Repo(
        files={
            "studies/../../evil/study.yaml": b"x",
            "studies/Bad Name/study.yaml": b"x",
            "studies/ok/study.yaml": b"far",
        }
    )
    here = disk("a")
    study(here, "ok", study_yaml="near")
    assert here.round().error is None
    assert (here.root / "studies" / "ok" / "study.yaml").read_text() == "near"
    assert hub.repos[REPO].files["studies/ok/study.yaml"] == b"near"
    assert not (here.root.parent / "evil").exists() and sorted(p.name for p in (here.root / "studies").iterdir()) == [
        "ok"
    ]


# The thread


def wait_for(what: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_in_the_background(disk: Disk, hub: FakeHub) -> None:
    one = disk("a")
    one.add("r1")
    one.round()
    here = disk("b")
    here.sync.start(wait=5)
    assert here.ids() == ["r1"]
    here.add("r2")
    wait_for(lambda: here.sync.status.saved == 2)
    hub.faults["info"] = [Fault(status=500)] * 3
    here.add("r3")
    wait_for(lambda: here.sync.status.error is not None)
    wait_for(lambda: here.sync.status.saved == 3)
    here.add("r4")
    here.sync.stop()
    assert here.sync.status.backlog == 0 and not here.sync._thread.is_alive()  # type: ignore[union-attr]
    other = disk("c")
    other.round()
    assert sorted(other.ids()) == ["r1", "r2", "r3", "r4"]


def test_what_nobody_expects_is_said_and_ends_nothing(tmp_path: Path) -> None:
    class Broken:
        repo = REPO
        asked = 0

        def files(self) -> dict[str, str]:
            self.asked += 1
            if self.asked == 1:
                raise RuntimeError("oops")
            return {}

    broken = Broken()
    sync = Sync(tmp_path / "ratings" / "ratings.csv", tmp_path / "studies", broken, 0.05)  # type: ignore[arg-type]
    sync.start(wait=5)
    wait_for(lambda: broken.asked > 1 and sync.status.error is None)
    sync.stop()


KILLED = """
import sys, time
from pathlib import Path
from compare.ratings import RatingsFile
from compare.sync import Sync
from compare.sync_hub import HubRepo
from tests.compare.rating_files import vote

home = Path(sys.argv[1])
ratings = RatingsFile(home / "ratings" / "ratings.csv")
Sync(ratings.path, home / "studies", HubRepo("owner/ratings"), 0.05).start(wait=10)
for number in range(100000):
    ratings.append(vote(f"r{number:05}"))
    print(number, flush=True)
    time.sleep(0.01)
"""


def test_killed_between_pushes(tmp_path: Path, hub: FakeHub, disk: Disk) -> None:
    """The endpoint comes from the environment here, as it does in an app. Killed at no special moment."""
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": TOKEN,
        "HF_HUB_OFFLINE": "0",
        "PYTHONPATH": str(ROOT),
    }
    hub.faults["commit"] = [Fault(), Fault(stall=0.1), Fault(status=0, late=True), Fault(status=500)]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "a")],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 60 and hub.repos.get(REPO) and len(hub.repos[REPO].commits) > 4:
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    written = disk("a").ids()
    lost_disk = disk("b")
    lost_disk.round()
    kept = lost_disk.ids()
    assert kept == written[: len(kept)] and len(kept) > 20  # only the newest rows, those since the last push
    lasting = disk("a")
    lasting.ratings.recover()
    assert lasting.round().backlog == 0
    after = disk("c")
    after.round()
    assert sorted(after.ids()) == sorted(lasting.ids()) and len(set(after.ids())) == len(after.ids()) >= len(kept)


# What the owner sees


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_line(language: str) -> None:
    words = Words(language)
    assert sync_view.line(None, words) == ""
    begun = SyncStatus("o/<b>")
    assert "o/&lt;b&gt;" in sync_view.line(begun, words)
    good = replace(begun, saved=7, backlog=0, last=1000.0, restored=2, nameless=1, unreadable=("data/x.csv",))
    shown = sync_view.line(good, words, 1300.0)
    assert all(text in shown for text in ("7", words("sync.restored", n=2), "data/x.csv")) and "warn" not in shown
    for key in ("away", "busy", "trouble", "refused", "public", "bad_name"):
        bad = replace(good, backlog=3, error=UserError(f"sync.{key}", repo="o/r"))
        assert "warn" in sync_view.line(bad, words) and words("sync.backlog", n=3) in sync_view.line(bad, words)
        assert sync_view.warning(bad, words) == sync_view.line(bad, words)
    assert sync_view.warning(good, words) == ""
    never = replace(begun, error=UserError("sync.away", repo="o/r"))
    assert words("sync.away") in sync_view.line(never, words)
