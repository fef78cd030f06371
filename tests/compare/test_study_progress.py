from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from compare.study_items import needed
from compare.study_progress import estimate
from compare.study_serve import StudyService
from tests.compare.studies import answer, practised, rate, seat, service, study


def test_the_owner_sees_counts_and_no_result(tmp_path: Path) -> None:
    found, made = service(tmp_path)
    one, two, _ = (seat(found, made, consent=n < 2) for n in range(3))
    shown = rate(found, one)
    rate(found, two, "tie", most=4)
    item = found.next_item(two)
    assert item is not None
    found.undo(two, item.token)
    found.studies.look(made.id, 3)
    seen = found.progress(made.id)
    first, second, third = seen.raters
    assert (first.stage, first.done, first.total) == ("done", len(shown) - 2, len(shown) - 2)
    assert (second.stage, second.done, second.undone) == ("rating", 1, 1)
    assert (third.stage, third.done, third.median_seconds) == ("consent", 0, None)
    assert (
        first.median_seconds == 9.0 and first.minutes_left == 0 and second.minutes_left == 9.0 * (second.total - 1) / 60
    )
    assert seen.choices["left"] + seen.choices["tie"] == seen.votes < len(shown)
    assert (seen.undone, seen.target, [look["votes"] for look in seen.looks]) == (1, 200, [3])
    assert first.code == found.finished(one).code and second.code == third.code == ""
    assert not any(arm.model in str(asdict(seen)) for arm in made.arms)
    assert "winner" not in str(asdict(seen))


@pytest.mark.parametrize(
    ("choices", "seconds", "flags"),
    [
        (["left"] * 16, 20.0, ("study.flag.straight",)),
        (["left", "right", "tie"] * 6, 1.0, ("study.flag.fast",)),
        (["tie"] * 16, 1.0, ("study.flag.straight", "study.flag.fast")),
        (["left", "right", "tie", "both_bad"] * 4, 20.0, ()),
        (["left"] * 3, 1.0, ()),
    ],
)
def test_straight_lining_and_haste(tmp_path: Path, choices: list[str], seconds: float, flags: tuple[str, ...]) -> None:
    found, made = service(tmp_path, count=30, list_length=20)
    sat = seat(found, made)
    practised(found, sat)
    for choice in choices:
        item = found.next_item(sat)
        assert item is not None
        found.vote(sat, item.token, choice, seconds=seconds)
    [seen] = found.progress(made.id).raters
    assert seen.flags == flags
    if choices == ["left"] * 16:
        assert (seen.same_choice_share, seen.longest_run) == (1.0, 16)


def test_a_rater_who_has_stopped_and_one_who_was_revoked(tmp_path: Path) -> None:
    found, made = service(tmp_path)
    sat, other = seat(found, made), seat(found, made)
    old = "2020-01-01T00:00:00.000Z"
    found.raters(made.id).update(sat.rater, lambda book, rater: replace(rater, consented_at=old))
    rate(found, other, most=4)
    found.raters(made.id).revoke(other.rater)
    idle, revoked = found.progress(made.id).raters
    assert idle.flags == ("study.flag.idle",) and revoked.done == 2


def test_the_estimate_before_starting(tmp_path: Path) -> None:
    made = study(count=40, list_length=40, overlap=10, repeat_gap=8, target=200)
    found = estimate(made, {})
    assert (found.votes_per_rater, found.items_per_rater, found.raters_needed) == (34, 40, 6)
    assert found.decided == 160 and found.detectable == pytest.approx(0.61, abs=0.01)
    answers = {task: replace(answer(made, task), text="가" * 2000) for task in needed(made)}
    longer = estimate(made, answers)
    assert longer.minutes_per_rater > 2 * found.minutes_per_rater
    assert estimate(made, answers, [10.0] * 20).minutes_per_rater == 10.0 * 42 / 60
    assert estimate(replace(made, target=5), {}).detectable is None


def test_the_estimate_says_how_long_a_list_really_is(tmp_path: Path) -> None:
    for changes in ({"count": 12}, {"count": 4, "list_length": 40, "overlap": 2}, {"count": 60, "list_length": 40}):
        found, made = service(tmp_path / str(len(list(tmp_path.iterdir()))), **changes)
        assert isinstance(found, StudyService)
        sat = seat(found, made)
        assert abs(found.estimate(made).items_per_rater - found.welcome(sat).total) <= 1
