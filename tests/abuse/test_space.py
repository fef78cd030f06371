"""The same app as a Space: its account is the owner, nobody else is, not even from the same machine.

Covers: sessions as Gradio's sign-in writes them (signed with the Space's OAuth secret). Does not cover: the Hub's side of
the sign-in, which only a live Space has.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from itsdangerous import TimestampSigner

from tests.abuse.site import API, Person, Site, refused

SECRET = "oauth-secret-of-the-abuse-suite"
HOST = "ann-naranhi.hf.space"
ENV = {
    "SYSTEM": "spaces",
    "SPACE_ID": "Ann/naranhi",
    "SPACE_AUTHOR_NAME": "Ann",
    "SPACE_HOST": HOST,
    "NARANHI_PASSWORD": "",
    "NARANHI_HOST": "",
    "OAUTH_CLIENT_ID": "id",
    "OAUTH_CLIENT_SECRET": SECRET,
    "OAUTH_SCOPES": "openid profile",
    "OPENID_PROVIDER_URL": "http://127.0.0.1:9",
    "GRADIO_SSR_MODE": "True",
}


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    running = Site(tmp_path_factory.mktemp("space"), **ENV)
    yield running
    running.stop()


def session(account: dict[str, Any], left: float = 3600, secret: str = SECRET) -> str:
    """The cookie of somebody who signed in."""
    info = {"oauth_info": {"access_token": "hf_oauth", "expires_at": time.time() + left, "userinfo": account}}
    key = hashlib.sha256(f"{secret}-v4".encode()).hexdigest()
    return "session=" + TimestampSigner(key).sign(base64.b64encode(json.dumps(info).encode())).decode()


def may_train(space: Site, cookie: str = "", **headers: str) -> bool:
    """Whether somebody with this cookie may look at the runs."""
    person = Person(
        space,
        host=HOST,
        headers={"x-forwarded-for": "203.0.113.9", **({"cookie": cookie} if cookie else {}), **headers},
    )
    fn = next(d for d in space.config["dependencies"] if d["backend_fn"] and d["api_name"] == "listed")
    return not refused(person.call([fn["id"]], lambda _: [None] * len(fn["inputs"]))[fn["id"]])


LAB = {"preferred_username": "bob", "orgs": [{"preferred_username": "Ann", "roleInOrg": "write"}]}


def test_the_spaces_account_is_the_owner_and_nobody_else_is(space: Site) -> None:
    assert may_train(space, session({"preferred_username": "ann"})) and may_train(space, session(LAB))
    assert not may_train(space)
    assert not may_train(space, session({"preferred_username": "bob"}))
    assert not may_train(space, session({"preferred_username": "ann"}, left=-1))
    assert not may_train(space, session({"preferred_username": "ann"}, secret="guessed"))
    assert not may_train(space, session({"preferred_username": "ann"}), origin="https://evil.example")
    assert may_train(space, session({"preferred_username": "ann"}), origin=f"https://{HOST}")


def test_being_on_the_same_machine_proves_nothing(space: Site) -> None:
    fn = next(d for d in space.config["dependencies"] if d["backend_fn"] and d["api_name"] == "listed")
    here = Person(space, host="127.0.0.1").call([fn["id"]], lambda _: [None] * len(fn["inputs"]))
    assert all(map(refused, here.values()))


def test_the_way_in_is_open_and_the_hubs_page_may_frame_it(space: Site) -> None:
    found = Person(space, host=HOST).get("/").headers["content-security-policy"]
    assert "frame-ancestors 'self' https://huggingface.co https://*.hf.space" in found
    assert Person(space, host=HOST).get("/logout").status_code == 307
    assert Person(space, host=HOST).get("/login/huggingface").status_code != 404
    assert Person(space, host=HOST).get(f"{API}/run-history/records").status_code == 404
