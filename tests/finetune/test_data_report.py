"""Counts, histogram and fingerprint of converted data."""

from __future__ import annotations

from finetune.data import Bin, Converted, Dropped, Example, Reason, data_sha256, describe
from tests.finetune.data_samples import assistant, system, user


def pair(size: int) -> Example:
    return Example((user("가" * (size - 1)), assistant("나")))


def test_report_counts_everything() -> None:
    dropped = [Dropped(2, "data.drop.duplicate"), Dropped(3, "data.drop.empty_user"), Dropped(5, "data.drop.duplicate")]
    two = Example((system("가"), user("나"), assistant("다"), user("라"), assistant("마")))
    report = describe(Converted([pair(10), pair(24), two, pair(120)], dropped))
    assert (report.kept, report.dropped, report.characters, report.longest) == (4, 3, 159, 120)
    assert report.reasons == (Reason("data.drop.duplicate", 2, 2), Reason("data.drop.empty_user", 1, 3))
    assert report.turns == {1: 3, 2: 1}
    assert report.lengths == (Bin(0, 25, 3), Bin(25, 50, 0), Bin(50, 100, 0), Bin(100, 200, 1))


def test_the_last_bin_is_open() -> None:
    assert describe(Converted([Example(text="가" * 20_000)], [])).lengths == (Bin(12_800, None, 1),)


def test_a_preference_pair_counts_its_longer_side() -> None:
    example = Example((user("안녕"),), (assistant("네"),), (assistant("아니요"),))
    report = describe(Converted([example], []))
    assert report.characters == 5 and report.turns == {1: 1}


def test_nothing_at_all() -> None:
    report = describe(Converted([], []))
    assert report.lengths == () and report.turns == {} and report.longest == 0


def test_fingerprint_tells_apart_what_differs() -> None:
    prompt, one, other = (user("가"),), (assistant("나"),), (assistant("다"),)
    examples = [
        [],
        [Example(prompt + one)],
        [Example(prompt + other)],
        [Example(prompt + one), Example(prompt + other)],
        [Example(prompt + other), Example(prompt + one)],
        [Example(prompt, one, other)],
        [Example(prompt, other, one)],
        [Example(text="가나")],
    ]
    hashes = [data_sha256(each) for each in examples]
    assert len(set(hashes)) == len(hashes)
    assert all(len(value) == 64 for value in hashes)
    assert data_sha256([Example(prompt + one)]) == hashes[1]
