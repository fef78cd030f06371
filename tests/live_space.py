"""What only a live Space can show, looked at in ten minutes: a line per matter, PASS, FAIL or SKIP, and why.

By hand: python -m tests.live_space https://ann-naranhi.hf.space --token hf_… [--cookie "session=…"] [--jobs]
Covers: the page, its headers and closed routes, what a visitor may not call, the owner's sign-in, a comparison on ZeroGPU,
adapters in a second call, votes that come back after a restart, a job that is billed, secrets. Asks the person at the
keyboard for what a program cannot do (``--quiet``: those lines are skipped). Ends with 1 when a line failed. Does not
cover: what every test run proves without a Space (tests/abuse).

``--token``: of the account that asks for answers, whose ZeroGPU time they take; for ``--jobs`` it needs that permission
and a positive balance. ``--cookie``: of the owner's browser after signing in, for a run without questions.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx

from assets.words import Words
from tests.abuse.site import API, RATERS, VISITORS, VISITORS_NAME, base
from tests.live_client import Browser

STARTER, SECOND = "HuggingFaceTB/SmolLM2-135M-Instruct", "HuggingFaceTB/SmolLM2-360M-Instruct"
WORDS = Words("ko")
ONLY = "only on a Space"
RESTART = 900.0  # seconds for a Space to come back
PAUSE = 5.0
COPIED = 90.0  # seconds until the votes' copy is up to date; that is done once a minute
HEADERS = ("content-security-policy", "x-content-type-options", "referrer-policy", "permissions-policy")
CLOSED = (f"{API}/info", f"{API}/openapi.json", f"{API}/runs", "/monitoring/summary", "/docs")
SECRET = re.compile(r"hf_(?:oauth_)?[A-Za-z0-9]{20,}|OAUTH_CLIENT_SECRET|NARANHI_PASSWORD=|access_token[\"']?\s*[:=]")
VOTES = re.compile(r"(\d[\d,]*)표")
Outcome = Literal["PASS", "FAIL", "SKIP"]


class Skip(Exception):
    """This cannot be looked at here, and why."""


@dataclass
class Look:
    """One run of the script. ``ask`` puts something to the person at the keyboard and gives the answer, None for nobody."""

    url: str
    token: str = ""
    cookie: str = ""
    base: str = STARTER
    other: str = SECOND
    jobs: bool = False
    ask: Callable[[str], str] | None = None
    lines: list[tuple[Outcome, str, str]] = field(default_factory=list)
    browsers: list[Browser] = field(default_factory=list)

    @property
    def space(self) -> bool:
        return (urlsplit(self.url).hostname or "").endswith(".hf.space")

    @property
    def failed(self) -> bool:
        return any(outcome == "FAIL" for outcome, _, _ in self.lines)

    def line(self, name: str, what: Callable[[], str]) -> bool:
        """Do it, print how it went. AssertionErrors and everything else that is raised are its failure."""
        outcome: Outcome = "PASS"
        try:
            why = what()
        except Skip as skip:
            outcome, why = "SKIP", str(skip)
        except Exception as error:  # a line that breaks is a line that failed; the others are still looked at
            outcome, why = (
                "FAIL",
                str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}",
            )
        self.lines.append((outcome, name, why))
        print(f"{outcome}  {name}: {why}", flush=True)
        return outcome == "PASS"

    def visitor(self) -> Browser:
        """Nobody in particular. Whoever sits at the server's own computer is its owner, unless the name says otherwise."""
        port = urlsplit(self.url).port
        return self._browser(token=self.token, host="" if self.space else f"{VISITORS_NAME}:{port}")

    def owner(self) -> Browser:
        if not self.cookie and self.space:
            self.cookie = self.person(
                f"Open {self.url}/login/huggingface in a browser, sign in as the Space's owner, then copy the cookie named "
                '"session" (developer tools, Application, Cookies) and paste it here as session=…'
            )
        return self._browser(cookie=self.cookie, token=self.token)

    def _browser(self, **given: str) -> Browser:
        browser = Browser(self.url, **given)
        self.browsers.append(browser)
        browser.read_config()
        return browser

    def person(self, question: str) -> str:
        if self.ask is None:
            raise Skip("needs somebody at the keyboard")
        return self.ask(question).strip()


def everything(look: Look) -> None:
    """All lines, in an order in which each needs nothing that comes after it."""
    if not look.line("the page opens", lambda: _opens(look)):
        return
    visitor = look.visitor()
    look.line("it says where it runs", lambda: _place(visitor))
    look.line("security headers", lambda: _headers(look, visitor))
    look.line("routes that no page needs are closed", lambda: _closed(visitor))
    look.line("a visitor neither sends nor fetches files", lambda: _files(visitor))
    look.line("a visitor cannot call what is the owner's", lambda: _owners(visitor))
    look.line("a made-up rater's link opens nothing", lambda: _rater(visitor))
    signed = look.line("the owner signs in", lambda: _signs_in(look))
    owner = look.owner() if signed else None
    look.line("training is refused with the reason on ZeroGPU", lambda: _closed_training(visitor))
    loaded = look.line("two models load", lambda: _loads(look, owner))
    first = look.line("both answer in one call", lambda: _answers(look, visitor, loaded, "ask"))
    look.line("the adapter is still there in a second call", lambda: _answers(look, visitor, first, "again"))
    look.line("a vote, a restart, and the vote is back", lambda: _restart(look, visitor, owner, first))
    look.line("a job starts and is cancelled", lambda: _job(look))
    look.line("no secret in any page or answer", lambda: _secrets(look))


def _opens(look: Look) -> str:
    began = time.monotonic()
    answer = httpx.get(look.url, timeout=120, follow_redirects=True, trust_env=look.space)
    assert answer.status_code == 200, f"the answer is {answer.status_code}; is the Space running and public?"
    return f"in {time.monotonic() - began:.1f} s"


def _kinds(browser: Browser) -> Iterator[str]:
    """Places whose name stands in the page."""
    text = "".join(str(c.get("props", {}).get("value", "")) for c in browser.config["components"])
    for kind in ("laptop", "server", "notebook", "space_cpu", "space_gpu", "space_zero"):
        name = WORDS("place.here", place=WORDS(f"place.kind.{kind}", gpus=0)).split("(")[0]
        if name.split(" · ")[0] in text:
            yield kind


def _place(visitor: Browser) -> str:
    found = list(_kinds(visitor))
    if not found:
        raise Skip("a computer with GPUs, where everything works, says nothing")
    return found[0]


def _headers(look: Look, visitor: Browser) -> str:
    found = visitor.get("/").headers
    missing = [name for name in HEADERS if name not in found]
    assert not missing, f"missing: {', '.join(missing)}"
    frames = found["content-security-policy"].partition("frame-ancestors")[2]
    assert ("huggingface.co" in frames) == look.space, f"frame-ancestors is {frames!r}"
    assert "access-control-allow-origin" not in found, "other sites may read the answers"
    return f"{len(HEADERS)} of {len(HEADERS)}"


def _closed(visitor: Browser) -> str:
    open_ = [path for path in CLOSED if visitor.get(path).status_code not in (403, 404)]
    assert not open_, f"open: {', '.join(open_)}"
    return f"{len(CLOSED)} of them"


def _files(visitor: Browser) -> str:
    sent = visitor.web.post(f"{API}/upload", files={"files": ("a.txt", b"a", "text/plain")})
    fetched = visitor.get(f"{API}/file=/etc/passwd")
    assert sent.status_code == 403, f"sending was answered with {sent.status_code}"
    assert fetched.status_code in (403, 404), f"fetching was answered with {fetched.status_code}"
    return "403"


def _owners(visitor: Browser) -> str:
    closed = [n for n, d in visitor.events().items() if base(d["api_name"]) not in {*VISITORS, *RATERS}]
    passed = [visitor.events()[n]["api_name"] for n in closed if not visitor.call(n, empty=True).refused]
    assert not passed, f"not refused: {', '.join(passed)}"
    return f"{len(closed)} events refused"


def _rater(visitor: Browser) -> str:
    said = visitor.call(visitor.event("rate_open"), empty=True)
    assert not any('data-screen="welcome"' in text for text in said.texts), "the study's first page was shown"
    return "nothing shown"


def _signs_in(look: Look) -> str:
    if look.space:
        ways = look.visitor().web.get("/login/huggingface", follow_redirects=False)
        assert ways.status_code in (302, 303, 307), f"no sign-in ({ways.status_code}): hf_oauth: true in the README?"
    owner = look.owner()
    said = owner.call(owner.event("listed"), empty=True)
    assert not said.refused, "this cookie is not the owner's: the wrong account, or it has run out"
    return "the owner's events answer"


def _closed_training(visitor: Browser) -> str:
    if "space_zero" not in _kinds(visitor):
        raise Skip("only on ZeroGPU")
    assert visitor.said and any(WORDS("place.no_training") in text for text in visitor.said), "the page does not say so"
    return "the training tab says why, and what works instead"


def _loads(look: Look, owner: Browser | None) -> str:
    if not look.space:
        raise Skip(ONLY)
    if owner is None:
        raise Skip("needs the owner's sign-in")
    began = time.monotonic()
    owner.call(owner.event("show", "n-text"))
    said = owner.call(owner.event("load", "n-load"), {"n-base": look.base, "n-other": look.other})
    then = [owner.call(owner.event(name)) for name in ("follow", "settle")]  # as the page goes on by itself
    texts = [text for one in (said, *then) for text in one.texts]
    wrong = [" ".join(re.sub(r"<[^>]+>", " ", text).split()) for text in texts if "n-note bad" in text]
    assert not said.error and not wrong, said.error or wrong[-1]
    return f"{look.base} and {look.other} in {time.monotonic() - began:.0f} s"


def _answers(look: Look, visitor: Browser, ready: bool, how: str) -> str:
    if not look.space:
        raise Skip(ONLY)
    if not ready:
        raise Skip("needs the line before it")
    began = time.monotonic()
    visitor.call(visitor.event("show", "n-text"))
    said = visitor.call(visitor.event(how, "n-text"), {"n-text": "하늘은 왜 파란가요?"})
    assert not said.error, said.error
    spent = time.monotonic() - began
    panes = visitor.panes()
    assert len(panes) == 2 and all(len(text) > 20 for text in panes), f"the panes hold {panes}"
    assert not any("n-note bad" in text for text in said.texts), f"an answer ended in an error: {panes}"
    return f"{spent:.0f} s with the wait for a GPU, {len(panes[0])} and {len(panes[1])} letters"


def _votes(owner: Browser) -> int:
    """The largest number of votes that the results name."""
    show = [n for n, d in owner.events().items() if base(d["api_name"]) == "show"]
    texts = [text for number in show for text in owner.call(number).texts]
    return max((int(n.replace(",", "")) for text in texts for n in VOTES.findall(text)), default=0)


def _restart(look: Look, visitor: Browser, owner: Browser | None, ready: bool) -> str:
    if not look.space:
        raise Skip(ONLY)
    if owner is None or not ready:
        raise Skip("needs the owner's sign-in and an answer")
    said = visitor.call(visitor.event("confirm", "n-text"), {"n-choice": "tie"})
    assert not said.error, said.error
    before = _votes(owner)
    assert before, "the results name no vote"
    time.sleep(COPIED)
    look.person(
        f"Press 'Restart this Space' in the settings of {look.url}, wait for it to begin, then press Enter here"
    )
    _wait(look)
    after = _votes(look.owner())
    assert after >= before, (
        f"{before} votes before, {after} after: is NARANHI_RATINGS_REPO set, with a token that may write?"
    )
    return f"{before} before, {after} after"


def _wait(look: Look) -> None:
    until = time.monotonic() + RESTART
    while time.monotonic() < until:
        time.sleep(PAUSE)
        try:
            if httpx.get(f"{look.url}/config", timeout=30).status_code == 200:
                return
        except httpx.HTTPError:
            continue
    raise AssertionError(f"the Space has not come back within {RESTART / 60:.0f} minutes")


def _job(look: Look) -> str:
    if not look.jobs:
        raise Skip("costs money; with --jobs")
    from huggingface_hub import HfApi

    hub = HfApi(token=look.token or None)
    command = ["python", "-c", "import time; time.sleep(240)"]
    job = hub.run_job(image="python:3.12-slim", command=command, flavor="cpu-basic", timeout="5m")
    try:
        stage = str(hub.inspect_job(job_id=job.id).status.stage)
    finally:
        hub.cancel_job(job_id=job.id)
    return f"{job.id} was {stage}, then cancelled"


def _secrets(look: Look) -> str:
    for path in ("/", "/en", "/rate", "/owner", "/config"):
        look.browsers[0].get(path)
    said = [text for browser in look.browsers for text in browser.said]
    given = [one for one in (look.token, look.cookie.partition("=")[2]) if one]
    found = [text[:60] for text in said if SECRET.search(text) or any(one in text for one in given)]
    assert not found, f"in {len(found)} answers, as {found[0]!r}"
    return f"{len(said)} answers read"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("url")
    parser.add_argument("--token", default="")
    parser.add_argument("--cookie", default="")
    parser.add_argument("--base", default=STARTER)
    parser.add_argument(
        "--other", default=SECOND, help="an adapter on the Hub says more than the default, a second model"
    )
    parser.add_argument("--jobs", action="store_true", help="also start the smallest job there is, and cancel it")
    parser.add_argument("--quiet", action="store_true", help="ask nothing")
    given: dict[str, Any] = vars(parser.parse_args(arguments))
    quiet = given.pop("quiet")
    look = Look(**{**given, "url": given["url"].rstrip("/")}, ask=None if quiet else lambda text: input(f"\n{text}: "))
    try:
        everything(look)
    finally:
        for browser in look.browsers:
            browser.close()
    counts = {name: sum(outcome == name for outcome, _, _ in look.lines) for name in ("PASS", "FAIL", "SKIP")}
    print(", ".join(f"{count} {name}" for name, count in counts.items()))
    return 1 if look.failed else 0


if __name__ == "__main__":
    sys.exit(main())
