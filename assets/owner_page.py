"""The page where an owner signs in: a password, or the one-time code that the start printed.

Covers: the form, the attempt, the cookie, signing out. Does not cover: Hugging Face accounts, which Gradio's own routes
sign in, and what an owner may do (guard.py, gate.py).
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from assets.access import COOKIE, STAYS, Access, foreign
from assets.guard import caller
from assets.limits import Limits
from assets.words import Words

PATH = "/owner"
_LONGEST = 4096

_STYLE = Path(__file__).with_name("owner.css")


async def answer(request: Request, access: Access, limits: Limits) -> Response:
    """GET shows the form, with the code of a link filled in; POST tries it, or signs out."""
    words = _words(request)
    if request.method in ("GET", "HEAD"):
        if access.signed_in(request):
            return _page(words, access, leaving=True)
        return _page(words, access, request.query_params.get("code", ""))
    length = request.headers.get("content-length", "")
    if request.method != "POST" or not length.isdigit() or int(length) > _LONGEST:
        return _page(words, access, status=405 if request.method != "POST" else 413)
    if foreign(request.headers, access.door.hosts):
        return _page(words, access, status=403)
    async with request.form(max_files=0, max_fields=4) as form:
        given, leaving = form.get("code"), form.get("leave")
    if leaving:
        access.leave(request.headers)
        return _home(request, None)
    who = caller(request, behind_proxy=access.door.space)
    wait = limits.attempts.wait(who)
    if wait:
        return _page(words, access, told=words("access.wait", seconds=max(1, round(wait))), status=429)
    session = access.enter(given.strip()) if isinstance(given, str) and given.strip() else None
    if session is None:
        limits.attempts.take(who)
        return _page(words, access, told=words("access.wrong"), status=403)
    return _home(request, session)


def link(words: Words, access: Access, request: Any) -> str:
    """For the strip on top: a way in for visitors, a way out for an owner who signed in; "" where neither is needed."""
    if access.door.everyone_owns or not access.door.public:
        return ""
    if access.signed_in(request):
        return f'<a class="n-chip" href="owner">{words("access.sign_out")}</a>'
    if access.owner(request):
        return f'<a class="n-chip" href="logout">{words("access.sign_out")}</a>' if access.account(request) else ""
    if access.door.oauth:
        return f'<a class="n-chip" href="login/huggingface" target="_blank">{words("access.sign_in_hub")}</a>'
    return f'<a class="n-chip" href="owner">{words("access.sign_in")}</a>'


def announcement(access: Access, host: str, port: int) -> list[str]:
    """What the terminal says at the start, in both languages; [] where only this computer is served."""
    door = access.door
    if not door.public:
        return []
    place = f"http://{'localhost' if host in ('0.0.0.0', '::') else host}:{port}{PATH}"
    return [_told(words, access, place, code) for code in [_code(access)] for words in (Words("ko"), Words("en"))]


def _code(access: Access) -> str:
    """A one-time code where there is no other way in, and where only the owner reads what the start prints."""
    return "" if access.password or access.door.space or access.door.everyone_owns else access.invite()


def _told(words: Words, access: Access, place: str, code: str) -> str:
    if access.door.everyone_owns:
        return words("access.printed.open")
    public = words("access.printed.public")
    if code:
        return f"{public} {words('access.printed.link', link=f'{place}?code={code}')}"
    if access.password:
        return f"{public} {words('access.printed.password', link=place)}"
    return public if access.door.oauth else f"{public} {words('access.printed.nobody')}"


def _home(request: Request, session: str | None) -> Response:
    """To the first page, with the cookie or without it. Scripts never see the cookie; other sites' forms never send it."""
    response = RedirectResponse("./", 303)
    secure = request.url.scheme == "https" or request.headers.get("x-forwarded-proto", "") == "https"
    if session is None:
        response.delete_cookie(COOKIE, path="/")
    else:
        response.set_cookie(COOKIE, session, max_age=int(STAYS), path="/", httponly=True, samesite="lax", secure=secure)
    return response


def _page(
    words: Words, access: Access, code: str = "", told: str = "", status: int = 200, leaving: bool = False
) -> HTMLResponse:
    hub = f"<p>{words('access.how_hub')}</p>" if access.door.oauth else ""
    bad = f'<p class="bad" role="alert">{escape(told)}</p>' if told else ""
    style = _STYLE.read_text(encoding="utf-8")
    kind = "text" if code else "password"
    asked = (
        f'<label for="code">{words("access.field")}</label><input id="code" name="code" type="{kind}" required autofocus '
        f'value="{escape(code[:200])}" autocomplete="current-password"><button>{words("access.enter")}</button>'
    )
    ending = f'<button name="leave" value="1">{words("access.sign_out")}</button>'
    return HTMLResponse(
        f'<!doctype html><html lang="{words.language}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{words('access.title')} · {words('app.name')}</title><style>{style}</style></head><body><main>"
        f"<h1>{words('access.sign_out' if leaving else 'access.title')}</h1><p>{words('access.sub')}</p>{hub}{bad}"
        f'<form method="post" action="owner">{ending if leaving else asked}</form>'
        f'<nav><a href="./">{words("access.back")}</a></nav></main></body></html>',
        status,
        {"cache-control": "no-store"},
    )


def _words(request: Request) -> Words:
    accepted = request.headers.get("accept-language", "").lower()
    return Words("en" if accepted and not accepted.startswith("ko") else "ko")
