"""Giving an adapter away: what goes along, what must not, the card, the zip and the Hub."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
import yaml
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from assets.catalog import STARTER
from assets.errors import UserError
from assets.files import Workspace
from assets.words import LANGUAGES, Words
from finetune import share, tab_share
from finetune.card import card, licence_of, on_hub, terms_of
from finetune.jobs import Jobs
from finetune.progress import Progress, read
from finetune.services import TrainServices
from tests.fake_hub import TOKEN, FakeHub, Fault, Repo, hub_serving

OWNER, VISITOR = SimpleNamespace(owner=True), SimpleNamespace(owner=False)
SECRET = "/home/somebody/naranhi"


def record(base: str = STARTER, **values: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "name": "공감 | 60걸음",
        "base": {"id": base, "revision": "abc"},
        "template_hash": "872be49dbb638044",
        "template": None,
        "system": "/no_think 따뜻하게 / 짧게",
        "dataset": {"id": "naranhi/emotion-ko", "kind": "builtin", "sha256": "a6bb", "train": 240, "heldout": 60},
        "spec": {
            "method": "qlora",
            "lora": {"rank": 16, "alpha": 32, "targets": "all-linear"},
            "schedule": {"micro_batch": 1, "accumulation": 4, "learning_rate": 2e-4, "max_length": 512},
            "cluster": {"address": "10.1.2.3"},
        },
        "versions": {"torch": "2.13.0"},
        "environment": {"system": "Linux secret-host"},
        "plan": {"argv": [f"{SECRET}/venv/bin/python"]},
        "started_at": 0.0,
        "finished_at": 300.0,
        "metrics": {"steps": 60, "eval_loss": {"first": 2.313, "last": 1.658}},
    } | values


def write_run(folder: Path, run: dict[str, Any]) -> Path:
    adapter = folder / "adapter"
    adapter.mkdir(parents=True)
    (folder / "job.json").write_text("{}", encoding="utf-8")
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    (adapter / "run.json").write_text(json.dumps(run), encoding="utf-8")
    (adapter / share.WEIGHTS).write_bytes(b"weights" * 100)
    config = {"base_model_name_or_path": f"{SECRET}/models/SmolLM2-nf4", "r": 16, "peft_type": "LORA"}
    (adapter / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    (adapter / "tokenizer.json").write_text("{}", encoding="utf-8")
    (adapter / "optimizer.pt").write_bytes(b"x")
    events = [{"event": "step", "step": n, "loss": 2.5 - n / 100, "seconds": 1.0, "time": 0} for n in range(1, 61)]
    events.append({"event": "eval", "step": 60, "loss": 1.658, "seconds": 1.0, "time": 0})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events), encoding="utf-8")
    said = [
        {"step": 30, "prompt": "예전 질문", "answer": "예전 답"},
        {"step": 60, "prompt": "힘들어요\n정말로", "answer": "그랬군요.\ufffd"},
    ]
    (folder / "samples.jsonl").write_text("".join(json.dumps(s) + "\n" for s in said), encoding="utf-8")
    return folder


def text_of(shared: share.Shared, name: str = "README.md") -> str:
    content = shared.files[name]
    assert isinstance(content, bytes)
    return content.decode("utf-8")


def head_of(text: str) -> dict[str, Any]:
    return dict(yaml.safe_load(text.split("---\n")[1]))


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_card_tells_what_one_needs(tmp_path: Path, language: str) -> None:
    words = Words(language)
    text = text_of(share.collect(write_run(tmp_path / "j", record()), ["62% (54–69%)"], words))
    head = head_of(text)
    assert head["base_model"] == STARTER and head["license"] == "apache-2.0" and head["library_name"] == "peft"
    assert head["language"] == ["ko"] and "datasets" not in head and "naranhi" in head["tags"]
    for piece in ("62% (54–69%)", "r=16", "2.313 → 1.658", "872be49dbb638044", "| 60 | 1.900 | 1.658 |", "그랬군요.\n"):
        assert piece in text
    assert (
        "# 공감 | 60걸음" in text
        and "> 힘들어요\n> 정말로" in text
        and "예전 답" not in text
        and "{" not in text.split("```")[0]
    )
    assert words("catalog.licence.apache-2.0") in text and words("catalog.licence.cc0-1.0") in text
    assert words("share.card.no_verdict") not in text


def test_a_card_without_votes_curves_or_samples() -> None:
    words = Words("en")
    text = card(record(metrics=None, finished_at=None, versions=None), Progress(), (), words)
    assert words("share.card.no_verdict") in text and words("share.card.curves") not in text


def test_what_goes_along_and_what_does_not(tmp_path: Path) -> None:
    shared = share.collect(write_run(tmp_path / "j", record()), (), Words("ko"))
    assert set(shared.files) == {share.WEIGHTS, "adapter_config.json", "run.json", "README.md"}
    everything = "".join(c.decode() if isinstance(c, bytes) else "" for c in shared.files.values())
    for private in (SECRET, "somebody", "secret-host", "10.1.2.3", "argv"):
        assert private not in everything
    assert json.loads(text_of(shared, "adapter_config.json")) == {
        "base_model_name_or_path": STARTER,
        "r": 16,
        "peft_type": "LORA",
    }
    run = json.loads(text_of(shared, "run.json"))
    assert run["system"] == "/no_think 따뜻하게 / 짧게" and run["spec"]["lora"]["rank"] == 16


def test_bases_and_data_of_this_machine_are_named_without_their_place(tmp_path: Path) -> None:
    data = {"id": f"{SECRET}/uploads/mine.jsonl", "kind": "upload", "sha256": "a", "train": 3, "heldout": 1}
    shared = share.collect(write_run(tmp_path / "j", record(f"{SECRET}/my-model", dataset=data)), (), Words("en"))
    text = text_of(shared)
    assert "my-model" in text and "mine.jsonl" in text and "somebody" not in text
    assert "base_model" not in head_of(text) and "license" not in head_of(text)
    assert Words("en")("share.card.own_data") in text


def test_data_of_the_hub_is_linked(tmp_path: Path) -> None:
    data = {"id": "somebody/letters", "kind": "hub", "sha256": "a", "train": 3, "heldout": 1}
    assert head_of(card(record(dataset=data), Progress(), (), Words("en")))["datasets"] == ["somebody/letters"]


@pytest.mark.parametrize(
    ("base", "licence", "begins", "built"),
    [
        ("meta-llama/Meta-Llama-3-8B-Instruct", "llama3", "Llama-3", "Built with Meta Llama 3"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama3.1", "Llama", "Built with Llama"),
        ("google/gemma-2-2b-it", "gemma", "", ""),
        (STARTER, "apache-2.0", "", ""),
        ("nobody/unknown", "", "", ""),
    ],
)
def test_what_licences_ask_for(tmp_path: Path, base: str, licence: str, begins: str, built: str) -> None:
    assert licence_of(base) == licence and (terms_of(base).begins, terms_of(base).built_with) == (begins, built)
    shared = share.collect(write_run(tmp_path / "j", record(base)), (), Words("en"))
    assert shared.begins == begins and ("NOTICE" in shared.files) == (licence in ("llama3", "llama3.1", "gemma"))
    assert built in text_of(shared) and head_of(text_of(shared)).get("license", "") == licence
    if "NOTICE" in shared.files:
        assert text_of(shared, "NOTICE").strip() in text_of(shared)


def test_every_licence_of_the_catalogue_has_been_thought_of() -> None:
    from assets.catalog import models

    assert {model.licence for model in models()} <= {"apache-2.0", "llama3", "llama3.1", "gemma"}


def test_nothing_to_give_away(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no_adapter"):
        share.collect(tmp_path, (), Words("en"))
    assert share.digest(tmp_path) is None


def test_the_zip(tmp_path: Path) -> None:
    shared = share.collect(write_run(tmp_path / "j", record()), (), Words("ko"))
    with zipfile.ZipFile(share.write_zip(shared, tmp_path / "a.zip")) as archive:
        assert archive.testzip() is None and set(archive.namelist()) == set(shared.files)
        assert archive.read(share.WEIGHTS) == b"weights" * 100


# The Hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    close_session()
    with hub_serving() as running:
        yield running
    close_session()


@pytest.fixture
def shared(tmp_path: Path) -> share.Shared:
    return share.collect(write_run(tmp_path / "j", record()), (), Words("ko"))


def test_publishing_is_private_by_default(hub: FakeHub, shared: share.Shared) -> None:
    assert share.publish(shared, "me/my-lora", endpoint=hub.url) == f"{hub.url}/me/my-lora"
    repo = hub.repos["me/my-lora"]
    assert repo.private and set(repo.files) == set(shared.files) and len(repo.commits) == 1
    share.publish(shared, "me/open-lora", private=False, endpoint=hub.url)
    assert not hub.repos["me/open-lora"].private


def test_what_keeps_it_from_being_published(
    hub: FakeHub, shared: share.Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(repo: str, key: str, made: share.Shared = shared) -> None:
        with pytest.raises(UserError) as caught:
            share.publish(made, repo, endpoint=hub.url)
        assert caught.value.key == key

    hub.repos["me/seen"] = Repo(private=False)
    refused("me/seen", "share.public")
    assert hub.repos["me/seen"].files == {}
    for name in ("", "no-owner", "a/b/c", "/etc/passwd", "me/na me"):
        refused(name, "share.bad_name")
    llama = share.Shared("x", shared.files, "Llama")
    refused("me/my-lora", "share.begins", llama)
    share.publish(llama, "me/llama-mine", endpoint=hub.url)
    hub.faults["commit"] = [Fault(status=500)]
    refused("me/other", "hub.trouble")
    hub.faults["commit"] = [Fault(status=0)]
    refused("me/other", "hub.offline")
    hub.tokens = set()
    refused("me/other", "hub.trouble")
    monkeypatch.setenv("HF_TOKEN", "")
    refused("me/other", "share.sign_in")


# The panel

pytestmark = pytest.mark.usefixtures("one_loop")


def handlers(tmp_path: Path, verdicts: list[str]) -> tuple[dict[str, Any], Jobs]:
    workspace = Workspace(tmp_path / "home").prepare()
    jobs = Jobs(workspace)

    def verdict(sha256: str, words: Words) -> list[str]:
        verdicts.append(sha256)
        return ["더 나았어요: 62%"]

    services = TrainServices(workspace, jobs, lambda request: request.owner, verdict)
    with gr.Blocks(analytics_enabled=False) as demo:
        tab_share.build(Words("ko"), services, gr.State("run"))
    assert all(event.api_visibility == "private" for event in demo.fns.values())
    return {event.fn.__name__: event.fn for event in demo.fns.values() if event.fn is not None}, jobs


def test_the_panel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    found, jobs = handlers(tmp_path, asked)
    words = Words("ko")
    write_run(jobs.workspace.jobs / "run", record())
    update, told = found["zipped"]("run", OWNER)
    assert update["value"].endswith("공감-60걸음.zip") and words("share.zipped", n=4) in told
    with zipfile.ZipFile(update["value"]) as archive:
        assert "더 나았어요: 62%" in archive.read("README.md").decode()
    assert asked == [share.digest(jobs.workspace.jobs / "run")]
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setattr(share, "has_token", lambda: False)
    assert words("share.sign_in") in list(found["published"]("run", "me/x", True, OWNER))[-1]
    monkeypatch.setattr(share, "publish", lambda made, repo, private: f"https://hub/{repo}?{private}")
    assert 'href="https://hub/me/x?True"' in list(found["published"]("run", "me/x", True, OWNER))[-1]


def test_only_the_owner_shares(tmp_path: Path) -> None:
    found, jobs = handlers(tmp_path, [])
    write_run(jobs.workspace.jobs / "run", record())
    refused = Words("ko")("app.owner_only")
    assert found["zipped"]("run", VISITOR)[0]["value"] is None and refused in found["zipped"]("run", VISITOR)[1]
    assert refused in list(found["published"]("run", "me/x", True, VISITOR))[-1]
    for nothing in (None, "", "../../etc", "gone"):
        assert 'class="n-note bad"' in found["zipped"](nothing, OWNER)[1]


def test_on_hub() -> None:
    assert on_hub("a/b") and not any(map(on_hub, ("a", "/a/b", "./a", "~/a", "a/b/c")))
    assert read(Path("/nowhere")).samples == []
