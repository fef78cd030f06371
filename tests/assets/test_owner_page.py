from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from assets.access import Access, Door
from assets.limits import Limits
from assets.owner_page import announcement, answer, link
from assets.words import Words


def client(access: Access) -> TestClient:
    limits = Limits.usual()

    async def page(request: Request) -> Response:
        return await answer(request, access, limits)

    routes = [Route("/owner", page, methods=["GET", "POST", "PUT"])]
    return TestClient(
        Starlette(routes=routes), base_url="http://pc:7860", follow_redirects=False, headers={"accept-language": "ko"}
    )


def test_signing_in_and_out() -> None:
    access = Access(Door(public=True), "pass")
    web = client(access)
    assert 'type="password"' in web.get("/owner").text
    wrong = web.post("/owner", data={"code": "no"})
    assert wrong.status_code == 403 and 'role="alert"' in wrong.text and "set-cookie" not in wrong.headers
    right = web.post("/owner", data={"code": " pass "}, headers={"x-forwarded-proto": "https"})
    assert right.status_code == 303 and right.headers["location"] == "./"
    said = right.headers["set-cookie"].lower()
    assert "httponly" in said and "samesite=lax" in said and "secure" in said
    web.headers["cookie"] = right.headers["set-cookie"].split(";")[0]
    assert 'name="leave"' in web.get("/owner").text
    assert web.post("/owner", data={"leave": "1"}).status_code == 303
    assert 'name="leave"' not in web.get("/owner").text


def test_a_link_fills_the_code_in_and_uses_nothing_up() -> None:
    access = Access(Door(public=True))
    code = access.invite()
    web = client(access)
    for _ in range(2):  # previews of links fetch them too
        assert f'value="{code}"' in web.get("/owner", params={"code": code}).text
    assert "<script" not in web.get("/owner", params={"code": '"><script>'}).text
    assert web.post("/owner", data={"code": code}).status_code == 303
    assert web.post("/owner", data={"code": code}).status_code == 403


def test_guessing_is_slow_and_other_sites_and_large_forms_are_refused() -> None:
    web = client(Access(Door(public=True), "pass"))
    assert web.post("/owner", data={"code": "pass"}, headers={"origin": "http://evil.example"}).status_code == 403
    assert web.post("/owner", data={"code": "x" * 5000}).status_code == 413
    assert web.put("/owner").status_code == 405
    assert [web.post("/owner", data={"code": f"{n}"}).status_code for n in range(6)] == [403] * 5 + [429]
    assert web.post("/owner", data={"code": "pass"}).status_code == 429


@pytest.mark.parametrize(
    ("access", "told"),
    [
        (Access(Door()), []),
        (Access(Door(public=True)), ["localhost:7860/owner?code="]),
        (Access(Door(public=True), "pass"), ["NARANHI_PASSWORD"]),
        (Access(Door(public=True, everyone_owns=True)), ["NARANHI_OWNER=open"]),
        (Access(Door(public=True, space=True)), ["hf_oauth"]),
        (Access(Door(public=True, space=True, oauth=True)), ["다른 컴퓨터"]),
    ],
)
def test_what_the_start_says(access: Access, told: list[str]) -> None:
    lines = announcement(access, "0.0.0.0", 7860)
    assert len(lines) == 2 * len(told)
    for part in told:
        assert part in lines[0]
    assert "pass" not in "".join(lines).replace("password", "").replace("NARANHI_PASSWORD", "")


def test_the_link_in_the_strip() -> None:
    def asked(cookie: str = "", account: dict[str, Any] | None = None) -> Any:
        scope = {"session": {"oauth_info": {"expires_at": 4e9, "userinfo": account}}} if account else {}
        return SimpleNamespace(client=SimpleNamespace(host="192.0.2.1"), headers={"cookie": cookie}, scope=scope)

    words = Words("ko")
    assert (
        link(words, Access(Door()), asked())
        == ""
        == link(words, Access(Door(public=True, everyone_owns=True)), asked())
    )
    assert 'href="owner"' in link(words, Access(Door(public=True)), asked())
    access = Access(Door(public=True), "pass")
    inside = link(words, access, asked(f"naranhi-owner={access.enter('pass')}"))
    assert words("access.sign_out") in inside and 'href="owner"' in inside
    space = Access(Door(public=True, space=True, oauth=True, names=frozenset({"ann"})))
    assert "login/huggingface" in link(words, space, asked())
    assert 'href="logout"' in link(words, space, asked(account={"preferred_username": "ann"}))
