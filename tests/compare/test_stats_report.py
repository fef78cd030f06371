from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from assets.words import LANGUAGES, Words
from compare import stats_report
from compare.stats_rates import Outcome, Rate, Tally, p_value, share, wilson
from compare.stats_report import Report, notes, report, sentence, sentences
from compare.stats_votes import Filter, Votes, from_frame, from_ratings
from tests.compare.rating_files import vote
from tests.simulated_votes import A, B, Truth, rows, simulate

PAIR = ("base", "tuned")


def independent(a: int, b: int, ties: int = 0, both_bad: int = 0) -> Outcome:
    n = a + b
    rate = Rate(b, n, b / n, wilson(b, n), p_value(b, n)) if n else Rate(0, 0)
    return Outcome(Tally(a, b, ties, both_bad), rate)


def said(found: Outcome, domain: str = "emotion", different: bool = False, tuned: Any = "model_b") -> Any:
    return sentence(found, domain, different, tuned, ("gemma", "koni"))


def test_the_sentence_for_a_difference() -> None:
    found = said(independent(83, 129, 40), different=True)
    assert found.say(Words("ko")) == (
        "감정 대화에서는 튜닝한 모델이 더 자주 선택되었어요 (결정된 212표 중 61 %, 95 % 구간 54–67 %)."
    )
    assert found.say(Words("en")) == (
        "On emotional conversations, the tuned model was chosen more often "
        "(61 % of 212 decided votes, 95 % interval 54–67 %)."
    )
    assert "원본이" in said(independent(129, 83), different=True).say(Words("ko"))
    assert "gemma 쪽이" in said(independent(129, 83), different=True, tuned=None).say(Words("ko"))


@pytest.mark.parametrize(
    ("counts", "key"),
    [
        ((0, 0), "none"),
        ((4, 0), "few"),
        ((0, 9), "few"),
        ((0, 0, 30, 4), "undecided"),
        ((10, 10), "even"),
        ((501, 499), "even"),
        ((45, 55), "open"),
        ((83, 129), "leaning"),
    ],
)
def test_no_claim_beyond_the_votes(counts: tuple[int, ...], key: str) -> None:
    for domain in ("", "emotion", "science", "general", "역사"):
        found = said(independent(*counts), domain)
        assert found.key == f"ratings.verdict.{key}"
        for language in LANGUAGES:
            assert "{" not in found.say(Words(language))


def test_about_how_many_more() -> None:
    found = said(independent(20, 27))
    assert found.values == {"decided": 47, "more": 310} and "약 310표가 더 필요해요" in found.say(Words("ko"))
    assert [stats_report.about(n) for n in (1, 9, 99, 101, 138, 1010)] == [1, 9, 99, 110, 140, 1100]


def study(emotion: float = 1.2, science: float = 0.05, **changes: Any) -> Report:
    rng = np.random.default_rng(1)
    frames = [
        simulate(Truth(60, 12, 30, t, 0.5, 0.3), rng, d).frame for d, t in (("emotion", emotion), ("science", science))
    ]
    return report(Votes(pd.concat(frames, ignore_index=True)), Filter((A, B)), tuned="model_b", **changes)


def test_domains_are_spoken_of_one_by_one_the_clear_ones_first() -> None:
    found = study()
    keys = [one.key.rsplit(".", 1)[1] for one in sentences(found, PAIR)]
    assert keys == ["better", "open"] and found.different["emotion"] and not found.different["science"]
    assert set(found.domains) == {"emotion", "science"} and list(found.different) == ["", *found.domains]
    only = study(emotion=0.0, science=0.0)
    assert not any(found.rate.p < 0.01 for found in only.domains.values())


def test_the_overall_figure_speaks_when_no_domain_can() -> None:
    found = study()
    alone = replace(found, different={"": True, "emotion": False, "science": False})
    assert [one.key.rsplit(".", 1)[1] for one in sentences(alone, PAIR)][0] == "better"
    assert sentences(alone, PAIR)[0].words["where"] == ("ratings.where.overall", {})


def test_notes_of_caution() -> None:
    found = study(target=5000)
    assert found.collecting and [note.key for note in notes(found)][0] == "stats.note.collecting"
    assert [note.key for note in notes(study(target=10, looks=2))] == ["stats.note.looked"]
    one = from_ratings(vote(str(i), prompt_id=str(i), blind=True) for i in range(12))
    keys = [note.key for note in notes(report(one, Filter(PAIR)))]
    assert keys == ["stats.note.one_rater", "stats.note.sides"]
    three = from_ratings(
        vote(str(i), prompt_id=str(i // 3), rater=str(i % 3), blind=True, winner="model_a" if i % 2 else "model_b")
        for i in range(30)
    )
    assert [note.key for note in notes(report(three, Filter(PAIR)))] == ["stats.note.few_raters"]
    for language in LANGUAGES:
        words = Words(language)
        for given in (found, study(target=10, looks=2), report(one, Filter(PAIR)), report(three, Filter(PAIR))):
            said = [note.say(words) for note in notes(given)]
            said += [stats_report.counted(given).say(words), stats_report.method(given.overall.rate).say(words)]
            assert all("{" not in text for text in said)


def test_every_way_to_make_an_interval_has_its_sentence() -> None:
    pairs, alone = np.repeat(np.arange(10), 2), np.arange(20)
    wins = np.tile([0.0, 1.0], 10)
    shares = [
        share(wins, p, r) for p, r in ((alone, alone), (pairs, alone), (alone, pairs), (pairs, np.tile([0, 1], 10)))
    ]
    assert len({found.method for found in shares}) == 4
    for language in LANGUAGES:
        assert all("{" not in stats_report.method(found).say(Words(language)) for found in shares)


def test_votes_over_time_end_where_the_figure_is() -> None:
    given = list(rows(200))
    found = report(from_ratings(given), Filter((A, B)))
    last = found.moments[-1]
    assert last.votes == found.overall.rate.n and last.rate == pytest.approx(found.overall.rate.rate)
    assert last.interval == pytest.approx(found.overall.rate.interval)
    assert all(a.time <= b.time and a.votes < b.votes for a, b in zip(found.moments, found.moments[1:], strict=False))
    broken = from_ratings([replace(row, created_at="yesterday") for row in given])
    assert report(broken, Filter((A, B))).moments == ()


def test_one_line_per_prompt_the_worst_first() -> None:
    given = [
        vote("1", prompt_id="p", winner="model_a"),
        vote("2", prompt_id="p", winner="tie"),
        vote("3", prompt_id="q", winner="model_b"),
        vote("4", prompt_id="q", winner="model_a"),
        vote("5", prompt_id="q", winner="model_b"),
        vote("6", winner="model_b"),
    ]
    worst, best = stats_report.by_prompt(from_ratings(given))
    assert (worst.prompt_id, worst.counts, worst.lost, worst.won, worst.any) == ("p", Tally(1, 0, 1, 0), "1", "", "1")
    assert (best.balance, best.won, best.lost) == (1, "3", "4") and best.share == pytest.approx(2 / 3)
    assert stats_report.by_prompt(from_ratings([])) == ()


def test_nothing_to_say_without_votes() -> None:
    found = report(from_ratings([]), Filter(PAIR))
    assert [one.key for one in sentences(found, PAIR)] == ["ratings.verdict.none"] and notes(found) == []
    assert found.moments == () and found.prompts == () and found.ranks == () and found.length is None


def test_three_models_are_ranked() -> None:
    given = [
        vote(str(i), model_a="x", model_b=b, winner=w, blind=True, prompt_id=str(i))
        for i, (b, w) in enumerate([("y", "model_b"), ("z", "model_a")] * 10)
    ]
    found = report(from_ratings(given), Filter(("x", "y")))
    assert [one.model for one in found.ranks] == ["y", "x", "z"]


def test_a_hundred_thousand_votes_take_less_than_a_second() -> None:
    frame = simulate(Truth(500, 200, 500), np.random.default_rng(0)).frame
    coded = ["study_id", "item_id", "kind", "rater", "domain", "prompt_id", "model_a", "model_b", "left_is", "winner"]
    votes = from_frame(frame.astype(dict.fromkeys(coded, "category")))
    began = time.process_time()
    found = report(votes, Filter((A, B)))
    assert time.process_time() - began < 1 and found.overall.tally.n == 100_000


def test_scipy_waits_until_it_is_asked_for() -> None:
    code = "import sys, compare.results, compare.trial; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).resolve().parents[2]).returncode == 0
