from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from assets import access as module
from assets.access import (
    COOKIE,
    Access,
    Door,
    OpenTo,
    Role,
    for_raters,
    for_visitors,
    for_visitors_limited,
    foreign,
    open_to,
)

SPACE = Door(
    public=True, space=True, names=frozenset({"ann", "lab"}), oauth=True, hosts=frozenset({"ann-naranhi.hf.space"})
)


def asks(peer: str = "127.0.0.1", account: dict[str, Any] | None = None, **headers: str) -> Any:
    """A request as Starlette has it, as far as it is read."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    scope = {"session": {"oauth_info": {"expires_at": time.time() + 60, "userinfo": account}}} if account else {}
    return SimpleNamespace(client=SimpleNamespace(host=peer), headers={"host": "localhost:7860", **named}, scope=scope)


def test_a_handler_is_the_owners_until_somebody_opens_it() -> None:
    class Page:
        def closed(self) -> None: ...

        @for_visitors
        def opened(self) -> None: ...

        @for_visitors_limited
        def asked(self) -> None: ...

    page = Page()
    assert open_to(page.closed) is None and open_to(lambda: None) is None and open_to(None) is None
    assert open_to(page.opened) == OpenTo("visitor")
    assert open_to(page.asked) == OpenTo("visitor", generates=True)
    assert open_to(for_raters(lambda: None)) == OpenTo("rater")


@pytest.mark.parametrize(
    ("request_", "role"),
    [
        (asks(), Role.OWNER),
        (asks("::1", host="[::1]:7860"), Role.OWNER),
        (asks(host="naranhi.localhost:7860"), Role.OWNER),
        (asks(origin="http://localhost:7860"), Role.OWNER),
        (asks("192.168.0.7"), Role.VISITOR),
        (asks("192.168.0.7", host="127.0.0.1"), Role.VISITOR),
        (asks(x_forwarded_for="192.168.0.7"), Role.VISITOR),
        (asks(host="naranhi.example"), Role.VISITOR),
        (asks(host="localhost.example"), Role.VISITOR),
        (asks(origin="http://evil.example"), Role.VISITOR),
        (asks(origin="http://localhost:9999"), Role.VISITOR),
        (None, Role.VISITOR),
    ],
)
def test_who_sits_at_this_computer(request_: Any, role: Role) -> None:
    assert Access(Door()).role(request_) is role
    assert Access(Door(public=True)).role(request_) is role
    assert Access(Door(public=True, space=True)).role(request_) is Role.VISITOR
    assert Access(Door(everyone_owns=True)).role(request_) is Role.OWNER


@pytest.mark.parametrize(
    ("account", "role"),
    [
        ({"preferred_username": "Ann"}, Role.OWNER),
        ({"preferred_username": "bob"}, Role.VISITOR),
        ({"preferred_username": "bob", "orgs": [{"preferred_username": "lab", "roleInOrg": "admin"}]}, Role.OWNER),
        ({"preferred_username": "bob", "orgs": [{"preferred_username": "lab", "roleInOrg": "read"}]}, Role.VISITOR),
        ({"preferred_username": "bob", "orgs": [{"preferred_username": "else", "roleInOrg": "admin"}]}, Role.VISITOR),
        ({}, Role.VISITOR),
    ],
)
def test_accounts_own_a_space(account: dict[str, Any], role: Role) -> None:
    asked = asks("10.0.0.3", account, host="ann-naranhi.hf.space", origin="https://ann-naranhi.hf.space")
    assert Access(SPACE).role(asked) is role
    assert Access(Door(public=True, space=True, names=SPACE.names)).role(asked) is Role.VISITOR, "without sign-in"
    asked.headers["origin"] = "https://evil.example"
    assert Access(SPACE).role(asked) is Role.VISITOR


def test_an_account_ends_when_its_sign_in_does() -> None:
    asked = asks("10.0.0.3", {"preferred_username": "ann"})
    asked.scope["session"]["oauth_info"]["expires_at"] = time.time() - 1
    assert Access(SPACE).role(asked) is Role.VISITOR


def test_a_password_opens_as_often_as_it_is_given_and_a_code_once(monkeypatch: pytest.MonkeyPatch) -> None:
    access = Access(Door(public=True), "열려라 참깨")
    code = access.invite()
    assert access.enter("") is None and access.enter("참깨") is None
    first, second, third = access.enter("열려라 참깨"), access.enter("열려라 참깨"), access.enter(code)
    assert first and second and third and len({first, second, third}) == 3
    assert access.enter(code) is None
    asked = asks("192.168.0.7", host="pc:7860", cookie=f'other="a;b=ü"; {COOKIE}={first}; more=1')
    assert access.owner(asked) and access.signed_in(asked)
    assert not access.owner(asks("192.168.0.7", cookie=f"{COOKIE}={first}x"))
    assert not access.owner(asks("192.168.0.7", cookie=f"{COOKIE}="))
    access.leave(asked.headers)
    assert not access.owner(asked)
    monkeypatch.setattr(module.time, "time", lambda: 4e9)
    assert not access.owner(asks("192.168.0.7", cookie=f"{COOKIE}={second}"))


def test_no_password_is_no_way_in() -> None:
    access = Access(Door(public=True))
    assert access.enter("") is None and access.enter("x") is None


def test_secrets_do_not_stand_in_a_log_of_the_value() -> None:
    access = Access(Door(), "pass")
    access.invite()
    assert "_sessions" not in repr(access) and "_invitation" not in repr(access) and "pass" not in repr(access)


@pytest.mark.parametrize(
    ("headers", "other"),
    [
        ({"host": "a:1"}, False),
        ({"host": "a:1", "origin": "http://a:1"}, False),
        ({"host": "b", "x-forwarded-host": "a, c", "origin": "https://a"}, False),
        ({"host": "b", "origin": "https://own"}, False),
        ({"host": "a:1", "origin": "http://a:2"}, True),
        ({"host": "a", "origin": "null"}, True),
        ({"origin": "https://"}, True),
        ({"host": "a", "sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"}, True),
        ({"host": "a", "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, False),
    ],
)
def test_other_sites(headers: dict[str, str], other: bool) -> None:
    assert foreign(headers, ["own"]) is other


def test_doors(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SPACE_ID", "SPACE_AUTHOR_NAME", "SPACE_HOST", "NARANHI_OWNERS", "NARANHI_HOSTS", "OAUTH_CLIENT_ID"):
        monkeypatch.delenv(name, raising=False)
    assert not Door.from_environment("127.0.0.1", False).public and Door.from_environment("0.0.0.0", False).public
    monkeypatch.setenv("SPACE_ID", "Lab/naranhi")
    monkeypatch.setenv("SPACE_HOST", "lab-naranhi.hf.space, own.example")
    monkeypatch.setenv("NARANHI_OWNERS", "ann, Ben")
    door = Door.from_environment("0.0.0.0", False)
    assert door.space and door.public and not door.oauth and door.names == {"lab", "ann", "ben"}
    assert door.hosts == {"lab-naranhi.hf.space", "own.example"}
    monkeypatch.setenv("NARANHI_HOSTS", "pc.example:8443")
    assert "pc.example:8443" in Door.from_environment("0.0.0.0", False).hosts
    for name in ("OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "OAUTH_SCOPES", "OPENID_PROVIDER_URL"):
        monkeypatch.setenv(name, "x")
    monkeypatch.delenv("SYSTEM", raising=False)
    assert not Door.from_environment("0.0.0.0", False).oauth
    monkeypatch.setenv("SYSTEM", "spaces")
    assert Door.from_environment("0.0.0.0", False).oauth
