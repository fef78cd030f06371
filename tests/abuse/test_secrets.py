"""The tokens and the password, looked for wherever they could have gone. Runs after the owner's calls of this module."""

from __future__ import annotations

from typing import Any

import pytest

from tests.abuse.site import PASSWORD, SECRET, TOKEN, TYPED, Person, Site, plain

PAGES = ("/", "/en", "/rate", "/owner", "/config", "/theme.css")


@pytest.fixture(scope="module")
def told(site: Site, signed_in: str) -> dict[int, dict[str, Any]]:
    """What the owner is told who types a token into every field for secrets and presses everything that reads one."""
    hidden = {c["id"] for c in site.config["components"] if c.get("props", {}).get("type") == "password"}
    asked = {d["id"]: d["inputs"] for d in site.config["dependencies"] if d["backend_fn"] and hidden & set(d["inputs"])}
    assert len(hidden) >= 6 and len(asked) >= 6
    owner = Person(site, headers={"cookie": signed_in})
    return owner.call(asked, lambda fn: [TYPED if part in hidden else None for part in asked[fn]])


def test_answers_and_pages_hold_no_token(site: Site, told: dict[int, dict[str, Any]], owner: Person) -> None:
    found = [plain(str(told)), *(plain(owner.get(path).text) for path in PAGES)]
    assert [text[:80] for text in found if TOKEN in text or PASSWORD in text or TYPED in text] == []


def test_the_logs_and_every_file_hold_no_token(site: Site, told: dict[int, dict[str, Any]]) -> None:
    holding = [
        name for name, content in site.written() for secret in (TOKEN, TYPED, PASSWORD) if secret.encode() in content
    ]
    assert holding == []
    assert any(SECRET.encode() in content for _, content in site.written()), "the files are really read"


def test_the_password_is_not_handed_to_what_the_app_starts(site: Site) -> None:
    """Runs and engines inherit the app's environment, which has let go of it; the kernel's copy is of the start."""
    import subprocess
    import sys

    env = {**site.env, "NARANHI_PASSWORD": PASSWORD, "NARANHI_HOST": "127.0.0.1"}
    asked = "import os, app; app.Settings.from_environment().access(); print(os.environ.get('NARANHI_PASSWORD'))"
    said = subprocess.run([sys.executable, "-c", asked], env=env, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "None"
