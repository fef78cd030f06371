from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from assets.errors import UserError
from compare.study_items import Item
from tests.compare.studies import SECRETS, again, practised, rate, ratings, seat, service


def test_a_rater_goes_through_the_whole_list(tmp_path: Path) -> None:
    found, made = service(tmp_path)
    sat = seat(found, made, consent=False)
    assert found.welcome(sat).stage == "consent"
    with pytest.raises(UserError, match=r"study\.consent_first"):
        found.next_item(sat)
    found.consent(sat)
    welcome = found.welcome(sat)
    assert (welcome.stage, welcome.practice, welcome.done, welcome.title) == ("practice", 2, 0, made.title)
    shown = rate(found, sat)
    assert [(s.practice, s.number, s.total) for s in shown[:3]] == [
        (True, 1, 2),
        (True, 2, 2),
        (False, 1, welcome.total),
    ]
    assert [s.number for s in shown[2:]] == list(range(1, welcome.total + 1))
    assert found.welcome(sat).stage == "done" and found.next_item(sat) is None
    rows = ratings(tmp_path).read().votes
    assert len(rows) == welcome.total + 2 == found.finished(sat).votes
    assert Counter(r.kind for r in rows)["practice"] == 2
    assert all(r.blind and r.study_id == made.id and r.rater == sat.rater for r in rows)
    assert found.raters(made.id).all()[0].done_at


def test_a_page_gets_no_hint_of_a_model(tmp_path: Path) -> None:
    found, made = service(tmp_path)
    sat = seat(found, made)
    texts = json.dumps([asdict(item) for item in rate(found, sat)], ensure_ascii=False).lower()
    texts += json.dumps(
        [asdict(found.welcome(sat)), asdict(sat), asdict(found.finished(sat))], ensure_ascii=False
    ).lower()
    for secret in (*SECRETS, *(arm.key for arm in made.arms), "x1-", "emotion-00:"):
        assert secret.lower() not in texts
    kinds = {"repeat", '"aa"', "overlap"}
    assert not any(kind in texts for kind in kinds)


def test_the_row_says_what_was_shown(tmp_path: Path) -> None:
    found, made = service(tmp_path)
    sat = seat(found, made)
    practised(found, sat)
    item = found.next_item(sat)
    assert item is not None
    key = item.questions[0].key
    found.vote(sat, item.token, "right", {"left": {key: 1}, "right": {key: 2}}, " 메모 ", "stacked", 12.3456)
    row = ratings(tmp_path).read().votes[-1]
    assert row.rating_id == item.token and row.layout == "stacked" and row.comment == "메모"
    left, right = ("model_a", "model_b") if row.left_is == "model_a" else ("model_b", "model_a")
    assert row.winner == right and row.criteria == {left: {key: 1}, right: {key: 2}}
    assert (row.response(left), row.response(right)) == (item.left, item.right)
    assert row.conversation == [{"role": "system", "content": made.system}, *item.turns]
    assert Item.of(row.item_id).prompt_id == row.prompt_id and row.domain == item.domain
    if row.kind != "aa":
        assert (row.model_a, row.model_b) == tuple(arm.model for arm in made.arms)
        assert row.provenance["model_b"]["model"] == made.arms[1].model and row.provenance["versions"]
    assert row.timing["seconds_to_vote"] == 12.346 and row.sampling == {"temperature": 0.7} and row.seed


def test_leaving_and_coming_back_on_another_device(tmp_path: Path) -> None:
    found, made = service(tmp_path)
    [link] = found.raters(made.id).add()
    sat = found.enter(link.code)
    found.consent(sat)
    rate(found, sat, most=5)
    here = found.next_item(sat)
    other = again(found)
    there = other.next_item(other.enter(link.code))
    assert there == here is not None
    other.vote(sat, there.token, "tie")
    following = found.next_item(sat)
    assert following is not None and following.token != here.token
    assert following.number == here.number + 1


def test_a_vote_sent_twice_is_one(tmp_path: Path) -> None:
    found, made = service(tmp_path)
    sat = seat(found, made)
    practised(found, sat)
    item = found.next_item(sat)
    assert item is not None
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda n: found.vote(sat, item.token, "left" if n % 2 else "right"), range(8)))
    assert len({r.token for r in results if r}) == 1
    assert again(found).vote(sat, item.token, "tie") == results[0]
    read = ratings(tmp_path).read()
    assert (len(read.votes), read.repeated) == (3, 0)
    assert found.vote(sat, "0" * 32, "left") == results[0]
    assert len(ratings(tmp_path).read().votes) == 3


def test_nothing_is_stored_for_what_is_no_choice(tmp_path: Path) -> None:
    found, made = service(tmp_path)
    sat = seat(found, made)
    item = found.next_item(sat)
    assert item is not None
    for choice, marks, key in (
        ("", None, "study.choose_first"),
        ("model_a", None, "study.choose_first"),
        ("left", {"left": {"nothing": 1}}, "ratings.unknown_criterion"),
        ("left", {"left": {"empathy": 9}}, "ratings.off_scale"),
        ("left", {"middle": {"empathy": 1}}, "ratings.bad_value"),
    ):
        with pytest.raises(UserError) as caught:
            found.vote(sat, item.token, choice, marks)
        assert caught.value.key == key
    assert ratings(tmp_path).read().rows == 0


def test_undo_is_a_row_and_the_item_comes_again(tmp_path: Path) -> None:
    found, made = service(tmp_path)
    sat = seat(found, made)
    first = found.next_item(sat)
    assert first is not None and not first.can_undo
    with pytest.raises(UserError, match=r"study\.nothing_to_undo"):
        found.undo(sat, first.token)
    second = found.vote(sat, first.token, "left")
    assert second is not None and second.can_undo
    back = found.undo(sat, second.token)
    assert back is not None and back.token != first.token
    assert replace(back, token="") == replace(first, token="")
    assert found.undo(sat, second.token) == back  # a double click takes one vote back, not two
    found.vote(sat, back.token, "right")
    read = ratings(tmp_path).read()
    assert (read.rows, read.undone, [v.rating_id for v in read.votes]) == (3, 1, [back.token])
    assert found.vote(sat, first.token, "left") == found.next_item(sat)  # the undone vote cannot be sent again
    assert ratings(tmp_path).read().rows == 3


def test_undo_at_the_end_and_not_after_the_reveal(tmp_path: Path) -> None:
    found, made = service(tmp_path, list_length=3, same_share=0.0, overlap=0)
    sat = seat(found, made)
    with pytest.raises(UserError, match=r"study\.not_finished"):
        found.reveal(sat)
    rate(found, sat)
    last = found.undo(sat, "")
    assert last is not None and last.number == 3
    with pytest.raises(UserError, match=r"study\.not_finished"):
        found.finished(sat)
    found.vote(sat, last.token, "both_bad")
    code = found.finished(sat)
    assert code.may_reveal and code == again(found).finished(sat)
    seen = found.reveal(sat)
    assert [(r.number, r.choice) for r in seen] == [(1, "left"), (2, "left"), (3, "both_bad")]
    for revealed, row in zip(seen, ratings(tmp_path).read().votes[2:], strict=True):
        names = {arm.model: arm.name for arm in made.arms}
        assert revealed.left == names[row.model_a if row.left_is == "model_a" else row.model_b]
    with pytest.raises(UserError, match=r"study\.undo_revealed"):
        found.undo(sat, "")


def test_the_owner_may_choose_never_to_reveal(tmp_path: Path) -> None:
    found, made = service(tmp_path, reveal="never", list_length=2, overlap=0, same_share=0.0)
    sat = seat(found, made)
    rate(found, sat)
    assert not found.finished(sat).may_reveal
    with pytest.raises(UserError, match=r"study\.never_revealed"):
        found.reveal(sat)


def test_withdrawal_takes_every_vote_out_and_leaves_the_rows(tmp_path: Path) -> None:
    found, made = service(tmp_path)
    one, other = seat(found, made), seat(found, made)
    rate(found, one, most=5)
    rate(found, other, most=4)
    undone = found.next_item(one)
    assert undone is not None
    found.undo(one, undone.token)
    assert found.withdraw(one) == 4
    assert found.withdraw(one) == 0
    read = ratings(tmp_path).read()
    assert {v.rater for v in read.votes} == {other.rater} and len(read.votes) == 4
    assert (read.withdrawn, read.undone) == (5, 0)
    assert found.welcome(one).stage == "withdrawn" and found.next_item(one) is None
    for call in (lambda: found.vote(one, undone.token, "left"), lambda: found.undo(one), lambda: found.consent(one)):
        with pytest.raises(UserError, match=r"study\.withdrawn"):
            call()


def test_links(tmp_path: Path) -> None:
    found, made = service(tmp_path)
    raters = found.raters(made.id)
    one, two = raters.add(2)
    assert (one.number, two.number) == (1, 2) and one.rater != two.rater
    for code in (
        "",
        "x",
        made.id,
        f"{made.id}.",
        f"{made.id}.{'x' * 24}",
        f"../{one.code}",
        f"no-such.{one.code}",
        "a" * 999,
    ):
        with pytest.raises(UserError, match=r"study\.link_unknown"):
            found.enter(code)
    sat = found.enter(one.code)
    found.consent(sat)
    fresh = raters.renew(one.rater)
    with pytest.raises(UserError, match=r"study\.link_unknown"):
        found.enter(one.code)
    assert found.enter(fresh.code) == sat and again(found).enter(fresh.code) == sat
    raters.revoke(one.rater)
    for call in (lambda: found.enter(fresh.code), lambda: found.next_item(sat)):
        with pytest.raises(UserError, match=r"study\.link_revoked"):
            call()
    assert found.enter(two.code).rater == two.rater


def test_a_closed_study_and_one_that_has_not_begun(tmp_path: Path) -> None:
    found, made = service(tmp_path)
    sat, done = seat(found, made), seat(found, made)
    item = found.next_item(sat)
    assert item is not None
    rate(found, done)
    found.studies.set_state(made.id, "closed")
    assert found.welcome(sat).stage == "closed" and found.next_item(sat) is None
    with pytest.raises(UserError, match=r"study\.closed"):
        found.vote(sat, item.token, "left")
    assert found.welcome(done).stage == "done" and found.finished(done).code
    draft = found.studies.create(replace(made, id="draft", state="draft"))
    [link] = found.raters(draft.id).add()
    early = found.enter(link.code)
    assert found.welcome(early).stage == "not_open"
    for call in (lambda: found.next_item(early), lambda: found.consent(early)):
        with pytest.raises(UserError, match=r"study\.not_open"):
            call()


def test_several_raters_in_two_processes(tmp_path: Path) -> None:
    found, made = service(tmp_path, count=24, list_length=16, overlap=4)
    sides = (found, again(found))
    seats = [seat(found, made) for _ in range(12)]
    with ThreadPoolExecutor(12) as threads:
        shown = list(threads.map(lambda n: rate(sides[n % 2], seats[n]), range(12)))
    read = ratings(tmp_path).read()
    assert len(read.votes) == sum(map(len, shown)) == read.rows and read.refused == []
    mains = [v for v in read.votes if v.kind == "main"]
    assert max(Counter((v.rater, v.item_id) for v in mains).values()) == 1
    prompts = Counter(v.prompt_id for v in mains)
    everyone = [p for p, n in prompts.items() if n == 12]
    rest = [n for p, n in prompts.items() if p not in everyone]
    assert len(everyone) >= 4 and max(rest) - min(rest) <= 4


def test_later_raters_fill_what_an_idle_one_left(tmp_path: Path) -> None:
    found, made = service(tmp_path, count=20, list_length=8, overlap=0, same_share=0.0, repeat_share=0.0)
    idle = seat(found, made)
    practised(found, idle)
    found.next_item(idle)
    held = {slot.item_id for slot in found.raters(made.id).all()[0].slots}
    old = "2020-01-01T00:00:00.000Z"
    found.raters(made.id).update(idle.rater, lambda book, rater: replace(rater, drawn_at=old))
    for _ in range(3):
        rate(found, seat(found, made))
    rated = {v.item_id for v in ratings(tmp_path).read().votes if v.kind == "main"}
    assert held <= rated and len(rated) == 20


def test_a_study_whose_adapter_is_gone_still_runs_and_shows(tmp_path: Path) -> None:
    found, made = service(tmp_path)
    assert made.arms[1].adapter == "/jobs/x/adapter"  # a folder that is not there
    sat = seat(found, made)
    rate(found, sat)
    other = again(found)
    assert other.progress(made.id).votes > 0 and other.reveal(sat)
    assert len(ratings(tmp_path).table().where(study_id=made.id)) == len(ratings(tmp_path).read().votes)


def test_the_file_is_replaced_while_people_rate(tmp_path: Path) -> None:
    found, made = service(tmp_path)
    sat = seat(found, made)
    rate(found, sat, most=5)
    path = ratings(tmp_path).path
    lines = path.read_bytes()
    path.write_bytes(b"")  # somebody starts a new file
    item = found.next_item(sat)
    assert item is not None and item.practice and item.number == 1
    path.write_bytes(lines)
    item = found.next_item(sat)
    assert item is not None and item.number == 4


def test_each_rater_is_kept_with_the_text_they_agreed_to(tmp_path: Path) -> None:
    found, made = service(tmp_path)
    first = seat(found, made, consent=False)
    found.consent(first)
    later = found.studies.save(replace(made, consent="더 쉬운 동의서"))
    found.consent(first)
    found.consent(seat(found, later, consent=False))
    one, two = found.raters(made.id).all()
    texts = found.studies.folder(made.id) / "consents"
    assert (texts / f"{one.consented_to}.txt").read_text(encoding="utf-8") == made.consent
    assert (texts / f"{two.consented_to}.txt").read_text(encoding="utf-8") == "더 쉬운 동의서"
    assert len(list(texts.iterdir())) == 2
