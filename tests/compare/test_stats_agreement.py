from __future__ import annotations

import itertools
from typing import Any

import evalica
import numpy as np
import pandas as pd
import pytest

from compare import stats_agreement as agreement
from compare.stats_agreement import Alpha, alpha
from compare.stats_votes import from_ratings
from tests.compare.rating_files import vote

# Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", section C: four observers, twelve units.
EXAMPLE = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
    [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
]


def long(table: Any) -> tuple[Any, Any, Any]:
    """(observers, units) with -1 for none -> unit, rater, value."""
    table = np.asarray(table)
    rater, unit = np.indices(table.shape)
    return unit.ravel(), rater.ravel(), table.ravel()


@pytest.mark.parametrize(("level", "published"), [("nominal", 0.743), ("ordinal", 0.815)])
def test_the_published_example(level: Any, published: float) -> None:
    found = alpha(*long(np.array(EXAMPLE) - 1), level)
    assert round(found.alpha or 0, 3) == published and (found.units, found.values, found.raters) == (11, 40, 4)
    assert found.interval is not None and found.interval[0] < published < found.interval[1]


@pytest.mark.parametrize("level", ["nominal", "ordinal"])
@pytest.mark.parametrize("seed", range(5))
def test_against_evalica_and_against_every_pair(level: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, 25)
    table = np.where(rng.random((5, 25)) < 0.6, truth, rng.integers(0, 4, (5, 25)))
    table[rng.random((5, 25)) < 0.3] = -1
    found = alpha(*long(table), level).alpha
    frame = pd.DataFrame(np.where(table < 0, np.nan, table))
    assert found == pytest.approx(evalica.alpha(frame, distance=level).alpha, abs=1e-9)
    assert found == pytest.approx(by_pairs(table, level), abs=1e-9)


def by_pairs(table: Any, level: str) -> float:
    """The definition, pair by pair."""
    units = [[v for v in column if v >= 0] for column in table.T]
    units = [unit for unit in units if len(unit) > 1]
    values = [v for unit in units for v in unit]
    counts = np.bincount(values)

    def distance(a: int, b: int) -> float:
        if level == "nominal":
            return float(a != b)
        low, high = min(a, b), max(a, b)
        return float((counts[low : high + 1].sum() - (counts[low] + counts[high]) / 2) ** 2)

    observed = sum(distance(a, b) / (len(u) - 1) for u in units for a, b in itertools.permutations(u, 2)) / len(values)
    pairs = itertools.permutations(values, 2)
    expected = sum(distance(a, b) for a, b in pairs) / (len(values) * (len(values) - 1))
    return 1 - observed / expected


def rated(units: int, rng: np.random.Generator) -> Any:
    """Four raters, three values, each value right three times in five."""
    truth = rng.integers(0, 3, units)
    return np.where(rng.random((4, units)) < 0.6, truth, rng.integers(0, 3, (4, units)))


def test_the_interval_against_resampling_units_one_by_one() -> None:
    rng = np.random.default_rng(0)
    table = rated(60, rng)
    found = alpha(*long(table), "nominal")
    drawn = [evalica.alpha(pd.DataFrame(table[:, rng.integers(0, 60, 60)])).alpha for _ in range(400)]
    assert found.interval == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])), abs=0.03)


def test_the_interval_holds_the_truth() -> None:
    """Over 500 simulated studies of 60 units. Krippendorff's own bootstrap of disagreements, as evalica has it, is a third
    narrower here."""
    rng = np.random.default_rng(1)
    truth = alpha(*long(rated(100_000, rng)), "nominal").alpha or 0.0
    hits = 0
    for _ in range(500):
        low, high = alpha(*long(rated(60, rng)), "nominal").interval or (0.0, 0.0)
        hits += low <= truth <= high
    assert 0.92 <= hits / 500 <= 0.97


def test_everybody_always_the_same_is_undefined() -> None:
    found = alpha(*long(np.ones((3, 5), int)), "nominal")
    assert found == Alpha("nominal", 5, 15, 3) and found.unanimous
    assert not alpha(*long([[1, 2], [-1, -1]]), "nominal").unanimous


def test_who_looked_at_the_same_answers() -> None:
    votes = from_ratings(
        [
            vote("1", study_id="s", prompt_id="p"),
            vote("2", study_id="s", prompt_id="p", rater="lee"),
            vote("3", study_id="t", prompt_id="p"),
            vote("4", study_id="s", prompt_id="p", model_b="x"),
            vote("5", prompt_id="p"),
            vote("6", prompt_id="p", rater="lee"),
            vote("7", item_id="i"),
            vote("8", item_id="i", rater="lee"),
        ]
    )
    codes = agreement.units(votes).tolist()
    assert codes[0] == codes[1] and codes[6] == codes[7]
    assert len(set(codes)) == 6, "free votes on one prompt saw different answers"
    assert agreement.vote_alpha(votes).units == 2


def test_marks_are_compared_answer_by_answer() -> None:
    marks = [(1, 5), (1, 5), (2, 4), (2, 5)]
    votes = from_ratings(
        vote(
            str(i),
            study_id="s",
            prompt_id=str(i // 2),
            rater=f"r{i % 2}",
            criteria={"model_a": {"clarity": a}, "model_b": {"clarity": b}},
        )
        for i, (a, b) in enumerate(marks)
    )
    expected = by_pairs(np.array([[1, 2, 5, 4], [1, 2, 5, 5]]) - 1, "ordinal")
    found = agreement.marks_alpha(votes, "clarity")
    assert found.units == 4 and found.alpha == pytest.approx(expected, abs=1e-9)


def test_repeats_and_the_noise_floor() -> None:
    first = [vote(str(i), study_id="s", prompt_id=str(i), winner="model_a", rater="kim") for i in range(3)]
    first.append(vote("x", study_id="s", prompt_id="0", winner="model_b", rater="lee"))
    again = [
        vote("r0", study_id="s", prompt_id="0", winner="model_a", rater="kim", kind="repeat"),
        vote("r1", study_id="s", prompt_id="1", winner="tie", rater="kim", kind="repeat"),
        vote("r2", study_id="s", prompt_id="0", winner="model_b", rater="lee", kind="repeat"),
        vote("r3", study_id="s", prompt_id="9", winner="model_b", rater="lee", kind="repeat"),
    ]
    found = agreement.consistency(from_ratings(first), from_ratings(again))
    assert (found.same, found.n, found.raters) == (2, 3, {"kim": (1, 2), "lee": (1, 1)})
    assert agreement.consistency(from_ratings(first), from_ratings([])).rate is None
    same = [
        vote(str(i), model_b="base", winner=w, prompt_id=str(i))
        for i, w in enumerate(["model_a", "tie", "tie", "model_b"])
    ]
    noise = agreement.noise_floor(from_ratings(same))
    assert (noise.decided, noise.n, noise.rate, noise.left.n) == (2, 4, 0.5, 2)
