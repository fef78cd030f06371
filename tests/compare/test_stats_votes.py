from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from assets.words import LANGUAGES, Words
from compare.ratings_table import light, to_arrow
from compare.stats_votes import COLUMNS, REASONS, Filter, Votes, from_frame, from_ratings, select
from tests.compare.rating_files import vote
from tests.simulated_votes import A, B, rows

PAIR = ("base", "tuned")


def winners(votes: Votes) -> list[str]:
    return [str(winner) for winner in votes.frame["winner"]]


def test_what_counts_and_what_is_left_out() -> None:
    given = [
        vote("1", winner="model_b", blind=True),
        vote("2", winner="model_a", kind="main", blind=True),
        vote("3", winner="tie", kind="practice", blind=True),
        vote("4", winner="tie", kind="aa", blind=True),
        vote("5", winner="tie", kind="repeat", blind=True),
        vote("6", winner="tie", model_b="base", blind=True),
        vote("7", winner="tie", model_b="other", blind=True),
        vote("8", winner="tie"),
        vote("9", winner="tie", study_id="s", blind=True),
        vote("10", winner="tie", domain="science", blind=True),
    ]
    votes = from_ratings(given)
    found = select(votes, Filter(PAIR, study_id="", domain=""))
    assert winners(found.votes) == ["model_b", "model_a", "tie"]
    assert found.left_out == {
        "practice": 1,
        "aa": 2,
        "repeat": 1,
        "other_models": 1,
        "other_study": 1,
        "not_blind": 1,
    }
    assert len(found.repeats) == 1 and len(found.same) == 2
    assert len(select(votes, Filter(PAIR, blind_only=False)).votes) == 5
    assert select(votes, Filter(PAIR, domain="science")).left_out["other_domain"] == 3
    for language in LANGUAGES:
        assert all(Words(language)(f"ratings.left_out.{reason}") for reason in REASONS)


@pytest.mark.parametrize("from_index", [False, True])
def test_a_pair_the_other_way_round_is_the_same_pair(from_index: bool) -> None:
    given = [
        vote("1", blind=True, winner="model_a", response_a="bb", response_b="t"),
        vote(
            "2", blind=True, model_a="tuned", model_b="base", winner="model_a", left_is="model_a", response_a="ttt",
            response_b="b", criteria={"model_a": {"fluency": 5}},
        ),
        vote("3", blind=True, model_b="x"),
    ]  # fmt: skip
    votes = (
        from_frame(to_arrow([light(row, 1, 1, 1) for row in given]).to_pandas()) if from_index else from_ratings(given)
    )
    assert votes.pairs() == [("base", "tuned", 2), ("base", "x", 1)]
    found = select(votes, Filter(PAIR)).votes
    assert winners(found) == ["model_a", "model_b"] and list(found.frame["left_is"]) == ["model_b", "model_b"]
    assert list(found.frame["length_a"]) == [2, 1] and list(found.frame["length_b"]) == [1, 3]
    assert found.marks("fluency", "model_b")[1] == 5 and np.isnan(found.marks("fluency", "model_a")).all()
    back = select(votes, Filter(("tuned", "base"))).votes
    assert winners(back) == ["model_b", "model_a"] and back.criteria == ("fluency",)


def test_a_table_of_the_index_says_the_same_as_full_rows() -> None:
    given = list(rows(60))
    one, other = from_ratings(given), from_frame(to_arrow([light(row, 1, 1, 1) for row in given]).to_pandas())
    for filter_ in (Filter((A, B)), Filter((B, A), domain="science")):
        first, second = select(one, filter_), select(other, filter_)
        assert first.left_out == second.left_out and winners(first.votes) == winners(second.votes)
        assert (first.votes.prompts == second.votes.prompts).all() and first.votes.criteria == second.votes.criteria
        marks = [part.votes.marks("empathy", "model_a") for part in (first, second)]
        assert np.array_equal(*marks, equal_nan=True)


def test_votes_without_a_prompt_stand_alone() -> None:
    votes = from_ratings([vote("1"), vote("2"), vote("3", prompt_id="p"), vote("4", prompt_id="p")])
    assert len(set(votes.prompts[:2].tolist())) == 2 and votes.prompts[2] == votes.prompts[3]


def test_no_votes_at_all() -> None:
    votes = from_ratings([])
    assert len(votes) == 0 and votes.pairs() == [] and votes.domains() == () and votes.criteria == ()
    assert len(select(votes, Filter(PAIR)).votes) == 0


def test_a_table_without_the_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="created_at"):
        Votes(pd.DataFrame({name: [] for name in COLUMNS if name != "created_at"}))
