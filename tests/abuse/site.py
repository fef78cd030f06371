"""A real app that other computers can reach, with things in it that nobody else may see, and people who ask it over HTTP.

Covers: the process, its secrets, raw calls as visitor, rater and owner. Does not cover: what must be refused (the tests).
"""

from __future__ import annotations

import itertools
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from assets.catalog import STARTER
from assets.files import Workspace
from assets.words import Words
from compare.rating import Rating
from compare.ratings import RatingsFile
from finetune import starter
from finetune.jobs import Job, Jobs
from finetune.spec import DataSpec, ModelSpec, TrainSpec
from tests.load.made import links, open_study

ROOT = Path(__file__).resolve().parents[2]
API = "/gradio_api"
PASSWORD = "abuse-suite-password-4711"
TOKEN = "hf_abuseSuiteTokenThatMustNotLeak"
TYPED = "hf_abuseSuiteTokenTypedByTheOwner"
OTHER = "rater-somebody-else"  # who cast the votes
SECRET = "비밀이야기"  # stands in a run's name, in its data, in a conversation and in an answer
HTML = f"<img src=x onerror=window.pwned=1><script>window.pwned=1</script>{SECRET}"
VISITORS_NAME = "visitor.test"
# What somebody who is not the owner may call, on each of the two pages. Add to it only what tells nothing of others.
VISITORS = sorted(
    [
        *("ask", "again", "stop", "clear", "following", "following", "prompt", "domain", "mode", "chosen", "confirm"),
        *("unfold", "undo", "tick", "repaint", "_rooms", "show", "look", "enter"),
        *("follow", "settle", "ready", "follow", "settle", "ready"),  # after the page is shown, and after loading
    ]
)
RATERS = ["rate_act", "rate_open"]
REFUSED = frozenset(Words(language)("app.owner_only") for language in ("ko", "en"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Site:
    """``python app.py`` on 0.0.0.0, in front of a workspace with a finished run, votes and an open study."""

    def __init__(self, home: Path, **env: str) -> None:
        self.home = home
        self.people: list[httpx.Client] = []
        self.temporary = home / "tmp"
        self.temporary.mkdir(parents=True)
        self.port = free_port()
        self.log = home / "app.log"
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("NARANHI_", "GRADIO_", "SPACE_"))},
            "NARANHI_HOME": str(home / "work"),
            "NARANHI_HOST": "0.0.0.0",
            "NARANHI_PORT": str(self.port),
            "NARANHI_PASSWORD": PASSWORD,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(home / "hub"),
            "HF_HUB_OFFLINE": "1",
            "GRADIO_TEMP_DIR": str(self.temporary),
            "GRADIO_ANALYTICS_ENABLED": "False",
            "PYTHONUNBUFFERED": "1",
            **env,
        }
        (home / "work").mkdir()
        self.study = open_study(home / "work", items=4)
        self.code = links(home / "work", self.study.id, 1)[0]
        _fill(home / "work")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=self.env, stdout=log, stderr=log)
        self.config = self._wait()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _wait(self) -> dict[str, Any]:
        until = time.monotonic() + 120
        while time.monotonic() < until and self.process.poll() is None:
            try:
                return dict(httpx.get(f"{self.url}/config", timeout=10, trust_env=False).json())
            except httpx.HTTPError:
                time.sleep(0.1)
        raise RuntimeError(self.log.read_text(encoding="utf-8", errors="replace")[-3000:])

    def alive(self) -> bool:
        return httpx.get(f"{self.url}/", timeout=30, trust_env=False).status_code == 200

    def stop(self) -> None:
        for web in self.people:
            web.close()
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def written(self) -> Iterator[tuple[str, bytes]]:
        """Every file that the app may have written, but the Hub library's own store of tokens."""
        for path in sorted(self.home.rglob("*")):
            if path.is_file() and not path.is_symlink() and (self.home / "hub") not in path.parents:
                yield path.relative_to(self.home).as_posix(), path.read_bytes()


def _fill(home: Path) -> None:
    workspace = Workspace(home).prepare()
    made = starter.make(Workspace(ROOT / "workspace").prepare())
    (workspace.models / made.name).symlink_to(made)
    jobs = Jobs(workspace)
    folder = jobs.workspace.jobs / "20260101-000000-abcd"
    (folder / "adapter").mkdir(parents=True)
    (folder / "samples.jsonl").write_text(json.dumps({"step": 1, "prompt": HTML, "text": HTML}), encoding="utf-8")
    (folder / "train.log").write_text(HTML, encoding="utf-8")
    spec = TrainSpec(ModelSpec(STARTER), DataSpec("naranhi/emotion-ko"), name=HTML)
    (folder / "spec.yaml").write_text(spec.to_yaml(), encoding="utf-8")
    jobs.save(Job(folder.name, HTML, "finished", 1.0, ended=2.0))
    ratings = RatingsFile(home / "ratings" / "ratings.csv", "abuse")
    ratings.append(*map(vote, range(4)))


def vote(number: int) -> Rating:
    return Rating(
        rating_id=f"r{number}",
        rater=OTHER,
        domain="emotion",
        conversation=[{"role": "user", "content": HTML}],
        response_a=f"=1+1 {HTML}",
        response_b=f"@SUM(1) {HTML}",
        model_a="base",
        model_b=f"tuned {HTML}",
        left_is="model_a",
        winner="model_a",
        comment=f"-2+3 {HTML}",
        blind=True,
        layout="columns",
    )


@dataclass
class Person:
    """Somebody with a browser of their own. ``host`` is the name they reach the app by."""

    site: Site
    host: str = VISITORS_NAME
    headers: dict[str, str] = field(default_factory=dict)
    web: httpx.Client = field(init=False)
    _session: Iterator[str] = field(default_factory=lambda: (f"s{os.getpid()}x{n}" for n in itertools.count()))

    def __post_init__(self) -> None:
        headers = {"host": f"{self.host}:{self.site.port}", **self.headers}
        self.web = httpx.Client(base_url=self.site.url, headers=headers, timeout=60, trust_env=False)
        self.site.people.append(self.web)

    def sign_in(self, code: str = PASSWORD) -> httpx.Response:
        answer = self.post("/owner", data={"code": code})
        if "set-cookie" in answer.headers:  # by hand: the client's store goes by the name that it connects to
            self.web.headers["cookie"] = answer.headers["set-cookie"].split(";")[0]
        return answer

    def get(self, path: str) -> httpx.Response:
        return self._patiently("GET", path)

    def post(self, path: str, **given: Any) -> httpx.Response:
        return self._patiently("POST", path, **given)

    def _patiently(self, method: str, path: str, **given: Any) -> httpx.Response:
        while True:
            try:
                answer = self.web.request(method, path, **given)
            except (httpx.ReadError, httpx.RemoteProtocolError):  # closed after an answer that made the server give up
                answer = self.web.request(method, path, **given)
            if answer.status_code != 429 or path == "/owner":
                return answer
            time.sleep(float(answer.headers["retry-after"]))

    def call(self, fns: Iterable[int], data: Any) -> dict[int, dict[str, Any]]:
        """The result of each event, as its output or its error, all in one session. ``data`` is called with the id."""
        session = next(self._session) + self.host.replace(".", "")
        events: dict[str, int] = {}
        results: dict[int, dict[str, Any]] = {}
        for fn in fns:
            asked = {"fn_index": fn, "data": data(fn), "session_hash": session, "event_data": None}
            answer = self.post(f"{API}/queue/join", json=asked)
            if answer.status_code == 200:
                events[answer.json()["event_id"]] = fn
            else:
                results[fn] = {"success": False, "status": answer.status_code, "output": answer.json()}
        while len(results) < len(events) and events:
            results |= {events[e]: said for e, said in self._results(session) if e in events}
        return results

    def _results(self, session: str) -> Iterator[tuple[str, dict[str, Any]]]:
        with self.web.stream("GET", f"{API}/queue/data", params={"session_hash": session}) as stream:
            if stream.status_code != 429:
                yield from _said(stream.raise_for_status().iter_lines())
                return
        time.sleep(float(stream.headers["retry-after"]))
        yield from self._results(session)


def _said(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The end of each event, until the stream is closed."""
    for line in lines:
        said = json.loads(line[5:]) if line.startswith("data:") else {}
        if said.get("msg") == "process_completed":
            yield said["event_id"], said
        if said.get("msg") == "close_stream":
            return


def base(name: str) -> str:
    """A handler's name without the number that gradio gives to the second of a name."""
    stem, _, last = name.rpartition("_")
    return stem if last.isdigit() else name


def refused(result: dict[str, Any]) -> bool:
    return not result["success"] and (result.get("output") or {}).get("error") in REFUSED


def plain(text: str) -> str:
    """A page or an answer without JSON's escapes, so that a secret in it is found."""
    return re.sub(r"\\u([0-9a-f]{4})", lambda found: chr(int(found[1], 16)), text)
