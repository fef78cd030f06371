"""Votes made by the real engine on a tiny model, made again by stock libraries; planted faults turn the proof red."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from assets.files import Workspace
from compare.desk import Candidate, Desk
from compare.engine import Sampling
from compare.local_engine import LocalEngine
from compare.rating import Rating
from compare.session import Question, Session
from tests.compare.pairs import ended, store
from tests.models import make_adapter, make_model
from tests.proof.regenerate import Verdict, regenerate

GREEDY = Sampling(temperature=0, max_new_tokens=24, seed=3)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, list[Rating]]:
    """A workspace with one tuned model in it, and three votes: two greedy ones (the second of two turns), one sampled."""
    root = tmp_path_factory.mktemp("proof")
    workspace = Workspace(root / "home").prepare()
    base = make_model(root / "base", "llama", seed=4, vocab_size=261)  # it writes letters
    adapter = make_adapter(base, workspace.jobs / "run-1" / "adapter")
    desk = Desk(LocalEngine(workspace), idle=0)
    desk.load(Candidate("base", "Base", str(base)), Candidate("tuned@1", "Tuned", str(base), str(adapter)))
    assert ended(desk).error is None
    file = store(workspace.ratings)
    for turns, sampling in ((1, GREEDY), (2, GREEDY), (1, replace(GREEDY, temperature=0.8))):
        who = Session()
        who.meet("r1", set())
        for question in ("hello there", "why?")[:turns]:
            who.ask(desk.pair, Question(question), "", sampling, "0.1")
            for _ in who.run(desk, sampling):
                pass
        assert who.vote("left", {}, "", file)
    desk.close()
    return workspace, file.read().votes


def outcomes(verdicts: list[Verdict]) -> list[str]:
    return [v.outcome for v in verdicts]


@pytest.mark.slow
def test_what_was_stored_comes_out_again_and_planted_faults_do_not(place: tuple[Workspace, list[Rating]]) -> None:
    workspace, votes = place
    honest = list(regenerate(votes, workspace))
    assert len(honest) == 6
    assert "mismatch" not in outcomes(honest) and outcomes(honest).count("match") >= 2
    assert outcomes(honest).count("skipped") == 2
    assert {v.why for v in honest if v.outcome == "skipped"} == {"it was sampled, not greedy"}

    greedy = votes[:2]
    swapped = [replace(vote, response_a=vote.response_b, response_b=vote.response_a) for vote in greedy]
    assert set(outcomes(list(regenerate(swapped, workspace)))) == {"mismatch"}
    sides = [
        replace(v, provenance={**v.provenance, "model_a": v.provenance["model_b"], "model_b": v.provenance["model_a"]})
        for v in greedy
    ]
    assert set(outcomes(list(regenerate(sides, workspace)))) == {"mismatch"}
    other = replace(greedy[0], response_b=greedy[0].response_b[:-3] + "다른 말")
    (_, verdict) = regenerate([other], workspace)
    assert verdict.outcome == "mismatch" and verdict.side == "model_b" and "gap" in verdict.why


def test_what_cannot_be_made_again_says_why(place: tuple[Workspace, list[Rating]], tmp_path: Path) -> None:
    workspace, votes = place
    vote = votes[0]

    def why(changed: Rating, at: Workspace = workspace) -> dict[str, str]:
        return {v.side: v.why for v in regenerate([changed], at) if v.outcome == "skipped"}

    elsewhere = Workspace(tmp_path / "empty").prepare()
    tuned = vote.provenance["model_b"]
    assert tuned["adapter"] == "jobs/run-1/adapter" and str(workspace.root) not in str(tuned["adapter"])
    assert f"no adapter with sha256 {tuned['adapter_sha256'][:16]}" in why(vote, elsewhere)["model_b"]
    moved = replace(vote, provenance={**vote.provenance, "model_b": {**tuned, "base_revision": "local:other"}})
    assert "the base here is" in why(moved)["model_b"]
    older = replace(vote, provenance={k: v for k, v in vote.provenance.items() if k != "weights"})
    assert set(why(older)) == {"model_a", "model_b"} and "older" in why(older)["model_a"]
    stopped = replace(vote, timing={**vote.timing, "model_a": {"reason": "cancelled"}})
    assert "did not end by itself" in why(stopped)["model_a"]
