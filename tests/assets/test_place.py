from __future__ import annotations

import pytest

from assets.place import Kind, Place, find, html, zero
from assets.words import LANGUAGES, Words

SPACE = {"SPACE_ID": "ann/naranhi"}


@pytest.mark.parametrize(
    ("environment", "gpus", "kind"),
    [
        ({}, 0, "laptop"),
        ({}, 4, "server"),
        ({"KAGGLE_KERNEL_RUN_TYPE": "Interactive"}, 2, "notebook"),
        ({"COLAB_RELEASE_TAG": "release"}, 0, "notebook"),
        (SPACE, 0, "space_cpu"),
        ({**SPACE, "ACCELERATOR": "none"}, 0, "space_cpu"),
        ({**SPACE, "ACCELERATOR": "l4x1"}, 0, "space_gpu"),
        (SPACE, 1, "space_gpu"),
        ({**SPACE, "SPACES_ZERO_GPU": "true"}, 1, "space_zero"),
        ({**SPACE, "SPACES_ZERO_GPU": ""}, 0, "space_cpu"),
    ],
)
def test_places(environment: dict[str, str], gpus: int, kind: Kind) -> None:
    assert find(environment, gpus).kind == kind


def test_nothing_is_trained_where_a_gpu_is_lent_for_single_calls() -> None:
    there = find({**SPACE, "SPACES_ZERO_GPU": "True"}, 0)
    assert zero({"SPACES_ZERO_GPU": "True"}) and not zero({}) and not zero({"SPACES_ZERO_GPU": "false"})
    assert there.closed in Words("ko") and find(SPACE, 0).closed == find({}, 2).closed == ""


def test_what_is_kept_is_said() -> None:
    forgets, keeps = find(SPACE, 0), find({**SPACE, "NARANHI_RATINGS_REPO": "ann/votes"}, 0)
    assert "disk" in forgets.limits and "disk" not in keeps.limits and "disk_votes_kept" in keeps.limits


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", ["laptop", "server", "notebook", "space_cpu", "space_gpu", "space_zero"])
def test_every_place_says_what_works_and_why_not(language: str, kind: Kind) -> None:
    for gpus in (0, 2):
        place = Place(kind, gpus)
        said = html(place, Words(language))
        assert said.count("<li>") == (len(place.limits) + 1 if place.limits else 0)
    assert ("ZeroGPU" in html(Place(kind), Words(language))) == (kind == "space_zero")
