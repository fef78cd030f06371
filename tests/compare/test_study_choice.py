from __future__ import annotations

from pathlib import Path

import pytest

from assets import prompt_sets
from assets.catalog import STARTER
from assets.errors import UserError
from assets.files import Workspace
from assets.split import is_heldout
from compare import study_choice as choice
from tests.compare.pairs import BASE, TUNED, desk

GEMMA = "google/gemma-2-2b-it"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path).prepare()


def test_sets_that_come_with_the_program_and_own_ones(workspace: Workspace) -> None:
    row = {"id": "1", "domain": "general", "messages": [{"role": "user", "content": "안녕?"}]}
    prompt_sets.store(workspace, "우리 반", [row, {**row, "id": "2"}])
    sets = choice.prompt_sets(workspace)
    assert [s.value for s in sets] == ["builtin-emotion", "builtin-science", "own/우리-반"]
    assert len(sets[2].prompts) == 2 and all(len(s.prompts) >= 60 and s.heldout for s in sets[:2])
    taken = choice.pick(sets, ["own/우리-반", "builtin-science"], 1)
    assert [p.domain for p in taken] == ["science", "general"] and choice.domains(taken) == ("science", "general")


def test_prompts_are_spread_over_their_set(workspace: Workspace) -> None:
    sets = choice.prompt_sets(workspace)
    ids = [p.id for p in sets[0].prompts]
    taken = [p.id for p in choice.pick(sets, ["builtin-emotion"], 6)]
    assert len(set(taken)) == 6 and taken == sorted(taken, key=ids.index)
    assert ids.index(taken[-1]) >= len(ids) * 0.8, "emotions come in groups; the first six would be one of them"
    assert len(choice.pick(sets, ["builtin-emotion"], 10_000)) == len(ids)


def test_what_may_be_learnt_and_what_is_kept_do_not_meet(workspace: Workspace) -> None:
    sets = choice.prompt_sets(workspace)
    learn, kept, everything = (
        choice.pick(sets, ["builtin-science"], 10_000, part) for part in ("learn", "heldout", "all")
    )
    assert len(learn) + len(kept) == len(everything) and kept
    assert all(is_heldout(p.messages) for p in kept) and not any(is_heldout(p.messages) for p in learn)


def test_the_loaded_pair_is_taken_as_it_is_loaded(workspace: Workspace) -> None:
    pair = desk().pair
    assert choice.loaded_names(pair) == [GEMMA, "/jobs/x/adapter"] and choice.loaded_names(None) == []
    assert choice.candidates(workspace, choice.loaded_names(pair), pair) == [BASE, TUNED]


def test_two_or_more_models_by_name(workspace: Workspace) -> None:
    found = choice.candidates(workspace, [STARTER, GEMMA, choice.KONI, STARTER], None)
    assert [c.model for c in found] == [STARTER, GEMMA, choice.KONI]
    for few in ([], [STARTER], [STARTER, f" {STARTER} "]):
        with pytest.raises(UserError, match="study.two_models"):
            choice.candidates(workspace, few)


def test_ready_made_studies(workspace: Workspace) -> None:
    koni = choice.template(workspace, "koni", None)
    assert koni.models == (choice.KONI,) and koni.missing == "studies.koni.no_gemma"
    own = choice.template(workspace, "own", desk().pair)
    assert own.models == (GEMMA, "/jobs/x/adapter") and not own.missing
