"""Routes, files, uploads, and requests that no page would send."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from tests.abuse.site import API, Person, Site

CLOSED = [
    f"{API}/info", f"{API}/openapi.json", f"{API}/token", f"{API}/user", f"{API}/login_check", f"{API}/queue/status",
    f"{API}/deep_link?session_hash=a", f"{API}/runs", f"{API}/run-history/records", f"{API}/proxy=https://example.com",
    f"{API}/dev/reload", f"{API}/vibe-code", f"{API}/custom_component/a/b/c/d", f"{API}/stream/a/b/c/playlist.m3u8",
    "/monitoring", "/monitoring/summary", "/monitoring/a", "/openapi.json", "/docs", "/redoc", "/login", "/pwa_icon",
    "/nothing", f"{API}", f"{API}/", f"/x{API}/info", f"{API}//info", f"{API}/file/etc/passwd",
]  # fmt: skip
CLOSED_POSTS = [
    "component_server", "process_recording", "vibe-edit", "undo-vibe-edit", "vibe-code", "run-history/connect",
    "profiling/clear", "stream/a", "run/look", "api/look", "call/look",
]  # fmt: skip
OUTSIDE = [
    "/etc/passwd", "../../../../etc/passwd", "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "app.py",
    "/proc/self/environ", "/proc/self/cwd/app.py", "file:///etc/passwd", "http://127.0.0.1:1/", "https://example.com/",
    "HTTP://example.com/", "a%00b", "~/.bashrc", "//etc/passwd", "{home}/work/ratings/ratings.csv", "{home}/app.log",
    "{home}/tmp/../app.log", "{home}/tmp/%2e%2e/app.log", "{home}/tmp", "{home}/hub/token", "{home}/tmp/link",
    "{home}/tmp/folder/ratings.csv", "x" * 5000,
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def laid_out(site: Site) -> None:
    """Links inside the folder that is served, which lead out of it."""
    (site.temporary / "link").symlink_to(site.log)
    (site.temporary / "folder").symlink_to(site.home / "work" / "ratings")


@pytest.mark.parametrize("path", CLOSED)
def test_routes_that_the_pages_do_not_use_are_closed(visitor: Person, owner: Person, path: str) -> None:
    assert {visitor.get(path).status_code, owner.get(path).status_code} <= {403, 404}


@pytest.mark.parametrize("name", CLOSED_POSTS)
def test_so_are_those_that_are_posted_to(visitor: Person, owner: Person, name: str) -> None:
    for person in (visitor, owner):
        assert person.post(f"{API}/{name}", json={"data": [], "fn_name": "ls", "component_id": 1}).status_code == 404


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_file_outside_leaves_the_server(site: Site, visitor: Person, owner: Person, path: str) -> None:
    asked = f"{API}/file={path.format(home=site.home)}"
    assert visitor.get(asked).status_code in (403, 404)
    answer = owner.get(asked)
    assert answer.status_code in (403, 404), answer.text[:200]


@pytest.mark.parametrize(
    "path",
    [
        "/static/..%2f..%2froutes.py", "/static/../../routes.py", "/assets/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/assets/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "/svelte/..%2f..%2f..%2froutes.py",
    ],
)  # fmt: skip
def test_nor_through_the_pages_own_files(visitor: Person, path: str) -> None:
    answer = visitor.get(path)
    assert answer.status_code >= 400 and "import" not in answer.text and "root:" not in answer.text


def test_only_the_owner_sends_files_and_only_the_owner_gets_them_back(visitor: Person, owner: Person) -> None:
    file = {"files": ("../../../../x.html", b"<script>window.pwned=1</script>", "text/html")}
    assert visitor.post(f"{API}/upload", files=file).status_code == 403
    stored = owner.post(f"{API}/upload", files=file)
    assert stored.status_code == 200
    path = Path(stored.json()[0])
    assert path.name == "x.html" and path.parts[: len(owner.site.temporary.parts)] == owner.site.temporary.parts
    assert visitor.get(f"{API}/file={path}").status_code == 403
    back = owner.get(f"{API}/file={path}")
    assert back.status_code == 200 and back.headers["content-disposition"].startswith("attachment")
    assert back.headers["x-content-type-options"] == "nosniff"


def test_too_much_is_refused_before_it_is_read(site: Site, visitor: Person, signed_in: str) -> None:
    text = json.dumps({"data": ["x" * 200_000], "fn_index": 1, "session_hash": "a"})
    assert visitor.post(f"{API}/queue/join", content=text).status_code == 413
    for path, length in ((f"{API}/upload", 10**12), (f"{API}/queue/join", 10**9)):
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nCookie: {signed_in}\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        with socket.create_connection(("127.0.0.1", site.port), timeout=30) as wire:
            wire.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode())
            assert wire.recv(100).startswith(b"HTTP/1.1 413")


def test_a_body_must_say_its_length(visitor: Person) -> None:
    assert visitor.post(f"{API}/queue/join", content=iter([b"{}"])).status_code == 411


BODIES = [
    b"", b"{", b"null", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"data":' + b"[" * 60_000, b'{"fn_index": -1}',
    b'{"fn_index": 99999, "session_hash": "a"}', b'{"fn_index": "0", "session_hash": "a", "data": "no list"}',
    b'{"fn_index": 1e400, "session_hash": "a"}', b'{"fn_index": 0, "session_hash": {"a": 1}, "data": []}',
    b'{"fn_index": 0, "session_hash": "a", "data": [], "event_data": [1], "trigger_id": "x"}',
    b'{"fn_index": 0, "session_hash": "\\ud800", "data": []}',
    b'{"fn_index": 0, "session_hash": "a", "data": [], "batched": true, "simple_format": true}',
    b'{"fn_index": null, "api_name": "start", "session_hash": "a", "data": []}',
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_malformed_calls_do_no_harm(site: Site, visitor: Person, body: bytes) -> None:
    for path in ("queue/join", "cancel", "reset"):
        answer = visitor.post(f"{API}/{path}", content=body, headers={"content-type": "application/json"})
        assert "Traceback" not in answer.text and "/site-packages/" not in answer.text
    assert site.alive()


@pytest.mark.parametrize(
    "body", [b"", b"--b\r\n", b"--b\r\nContent-Disposition: form-data; name=files\r\n\r\n--b--", b"\0" * 99]
)
def test_malformed_uploads_do_no_harm(site: Site, owner: Person, body: bytes) -> None:
    answer = owner.post(f"{API}/upload", content=body, headers={"content-type": "multipart/form-data; boundary=b"})
    assert answer.status_code < 600 and "/site-packages/" not in answer.text
    assert site.alive()


def test_another_site_may_not_read_the_answers(visitor: Person) -> None:
    visitor.web.headers["origin"] = "https://evil.example"
    for answer in (
        visitor.get("/config"),
        visitor.post(f"{API}/queue/join", json={}),
        visitor.web.options(f"{API}/queue/join", headers={"access-control-request-method": "POST"}),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("path", ["/", "/rate", "/owner", "/config", f"{API}/nothing", f"{API}/file=/etc/passwd"])
def test_every_answer_carries_the_headers(visitor: Person, path: str) -> None:
    found = visitor.get(path).headers
    assert "script-src-attr 'none'" in found["content-security-policy"]
    assert "frame-ancestors 'self'" in found["content-security-policy"]
    assert found["x-content-type-options"] == "nosniff" and found["referrer-policy"] == "same-origin"
    assert len(found.get_list("content-security-policy")) == 1


def test_the_owners_cookie_is_out_of_reach_for_scripts_and_other_sites(site: Site) -> None:
    said = Person(site).sign_in().headers["set-cookie"].lower()
    assert "httponly" in said and "samesite=lax" in said


def test_calls_that_break_off_leave_no_place_taken(site: Site, visitor: Person) -> None:
    """As many as the server runs at once and more, each with a session that cannot be written down."""
    look = next(d for d in site.config["dependencies"] if d["backend_fn"] and d["api_name"] == "rate_act")
    for number in range(60):
        body = f'{{"fn_index": {look["id"]}, "session_hash": "{number}\\ud800", "data": ["{{}}"]}}'
        visitor.post(f"{API}/queue/join", content=body.encode(), headers={"content-type": "application/json"})
    assert visitor.call([look["id"]], lambda fn: ["{}"])[look["id"]]["success"]
