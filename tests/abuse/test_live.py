"""The script for a live Space, run against the local app: what can be seen here passes, the rest says why not."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests import live_space
from tests.abuse.site import ROOT, TOKEN, Site
from tests.compare.openai_server import Reply, Script, serving
from tests.live_space import Look

HERE = {
    "the page opens",
    "it says where it runs",
    "security headers",
    "routes that no page needs are closed",
    "a visitor neither sends nor fetches files",
    "a visitor cannot call what is the owner's",
    "a made-up rater's link opens nothing",
    "the owner signs in",
    "no secret in any page or answer",
}
THERE = {
    "training is refused with the reason on ZeroGPU",
    "two models load",
    "both answer in one call",
    "the adapter is still there in a second call",
    "a vote, a restart, and the vote is back",
    "a job starts and is cancelled",
}


def test_it_passes_here_and_says_what_it_did_not_see(site: Site, signed_in: str) -> None:
    asked = [sys.executable, "-m", "tests.live_space", site.url, "--quiet", "--cookie", signed_in, "--token", TOKEN]
    said = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, timeout=120)
    lines = dict(re.findall(r"^(?:PASS|FAIL|SKIP)  ([^:]+): (.*)$", said.stdout, re.MULTILINE))
    passed = set(re.findall(r"^PASS  ([^:]+):", said.stdout, re.MULTILINE))
    assert said.returncode == 0, said.stdout + said.stderr
    assert passed == HERE, said.stdout
    assert lines.keys() == HERE | THERE and all(lines[name].startswith(("only on", "costs money")) for name in THERE)


class AsOnASpace(Look):
    """The lines that only a Space has, asked here."""

    space = True  # type: ignore[assignment]


def test_the_lines_for_a_space_work_with_models_of_another_server(
    site: Site, signed_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_space, "COPIED", 0.0)
    monkeypatch.setattr(live_space, "PAUSE", 0.0)
    asked: list[str] = []
    with serving(
        Script({"one": [Reply(("하늘은 ", "파래요."))], "two": [Reply(("글쎄요, ", "잘 몰라요."))]})
    ) as server:
        models = [f"{server.url}#{name}" for name in ("one", "two")]
        look = AsOnASpace(site.url, "", signed_in, *models, ask=lambda text: asked.append(text) or "")
        visitor, owner = look.visitor(), look.owner()
        ready = look.line("load", lambda: live_space._loads(look, owner))
        first = look.line("answers", lambda: live_space._answers(look, visitor, ready, "ask"))
        look.line("again", lambda: live_space._answers(look, visitor, first, "again"))
        look.line("restart", lambda: live_space._restart(look, visitor, owner, first))
        wrong = AsOnASpace(site.url, "", signed_in, base="no/such-model", other=models[0])
        assert not wrong.line("load", lambda: live_space._loads(wrong, wrong.owner()))
    for browser in [*look.browsers, *wrong.browsers]:
        browser.close()
    assert [outcome for outcome, _, _ in look.lines] == ["PASS"] * 4, look.lines
    assert len(asked) == 1 and "Restart" in asked[0]
    (_, _, why) = wrong.lines[0]
    assert wrong.failed and "no/such-model" in why


def test_a_line_that_fails_is_said_and_counts() -> None:
    look = Look("http://127.0.0.1:9")
    assert not look.line("the page opens", lambda: str(1 / 0)) and look.failed
    assert look.lines == [("FAIL", "the page opens", "ZeroDivisionError: division by zero")]
    asked = [sys.executable, "-m", "tests.live_space", "http://127.0.0.1:9", "--quiet"]
    gone = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert gone.returncode == 1 and gone.stdout.startswith("FAIL  the page opens: ConnectError")
