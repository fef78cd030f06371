from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from assets.files import read_json, write_json
from assets.words import LANGUAGES, Words
from finetune import verdict_record


def runs(root: Path, *names: str) -> Any:
    for name in names:
        (root / name / "adapter").mkdir(parents=True)
        (root / name / "adapter" / "adapter_model.safetensors").write_bytes(name.encode())
        write_json(root / name / "run.json", {"version": 1, "name": name})
    listed = [SimpleNamespace(id=name, state="finished") for name in names]
    return SimpleNamespace(list=lambda: listed, folder=lambda job_id: root / job_id)


def say(sha256: str, words: Words) -> list[str]:
    """Votes on the run called "a" alone."""
    about_a = sha256 == hashlib.sha256(b"a").hexdigest()
    return ["a · b", f"{words.language} 61 % <b>"] if about_a else []


def test_the_votes_reach_the_record_of_their_own_run(tmp_path: Path) -> None:
    jobs = runs(tmp_path, "a", "b")
    assert verdict_record.keep(jobs, say) == ["a"]
    kept = read_json(tmp_path / "a" / "run.json")
    assert kept["name"] == "a" and set(kept["verdict"]) == set(LANGUAGES)
    assert "verdict" not in read_json(tmp_path / "b" / "run.json")
    before = (tmp_path / "a" / "run.json").stat().st_mtime_ns
    assert verdict_record.keep(jobs, say) == []
    assert (tmp_path / "a" / "run.json").stat().st_mtime_ns == before


def test_it_is_shown_in_the_language_of_the_page_and_harmless(tmp_path: Path) -> None:
    jobs = runs(tmp_path, "a")
    assert verdict_record.show(tmp_path / "a", Words("ko")) == ""
    verdict_record.keep(jobs, say)
    for language in LANGUAGES:
        shown = verdict_record.show(tmp_path / "a", Words(language))
        assert f"{language} 61 % &lt;b&gt;" in shown


def test_new_weights_are_another_adapter(tmp_path: Path) -> None:
    jobs = runs(tmp_path, "b")
    assert verdict_record.keep(jobs, say) == []
    (tmp_path / "b" / "adapter" / "adapter_model.safetensors").write_bytes(b"a")
    assert verdict_record.keep(jobs, say) == ["b"]


def test_runs_without_an_adapter_are_passed_by(tmp_path: Path) -> None:
    jobs = runs(tmp_path, "a")
    (tmp_path / "a" / "adapter" / "adapter_model.safetensors").unlink()
    assert verdict_record.keep(jobs, say) == [] and verdict_record.show(tmp_path / "nowhere", Words("ko")) == ""
