"""Naranhi: fine-tune a language model, put it beside its base, rate blind. Wiring only.

Settings come from the environment: NARANHI_HOME (workspace), NARANHI_HOST, NARANHI_PORT, NARANHI_PASSWORD (the
owner's, where others can reach the app), NARANHI_OWNERS (Hugging Face accounts that own a Space besides its own),
NARANHI_HOSTS (names under which a proxy that does not pass them on offers the app),
NARANHI_OWNER ("open" makes everyone the owner), NARANHI_VISITOR_RATE (comparisons a visitor may ask for in a minute; 6 by
default), NARANHI_IDLE_MINUTES (a comparison without questions gives its memory back
after this many minutes; 20 by default, 0 for never), NARANHI_RATINGS_REPO ("owner/name" of a private dataset repository
that keeps a copy of ratings and studies), NARANHI_SYNC_SECONDS (how often it is brought up to date; 60 by default). The
page is built once per language: Korean at /, English at /en; raters have /rate, in the language of their study.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

if os.environ.get("SPACES_ZERO_GPU"):  # there it must come before anything that may touch CUDA
    import spaces  # noqa: F401

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
# Else gradio sums the last 10,000 events up with pandas after every one: a page that has been open for an hour crawls.
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "1")

import gradio as gr
from starlette.middleware import Middleware

from assets import look, owner_page, place
from assets.access import Access, Door, for_visitors
from assets.errors import UserError
from assets.files import Workspace
from assets.gate import UPLOAD, Gate
from assets.guard import GuardedBlocks
from assets.headers import SafeHeaders
from assets.limits import Limits
from assets.sessions import Sessions
from assets.words import LANGUAGES, Words
from compare import followup, sync_view, tab_pairs, tab_rate, tab_yield
from compare import results as results_tab
from compare import tab as compare_tab
from compare.desk import IDLE
from compare.engine import Engine
from compare.machine import Card, Machine, Queued
from compare.ratings import RatingsFile
from compare.remote_engine import RemoteEngine
from compare.remote_engine_address import Keys
from compare.remote_engine_switch import EngineSwitch
from compare.services import CompareServices
from compare.sync import SECONDS, Sync
from compare.sync_hub import HubRepo
from compare.verdict import verdict
from compare.worker import WorkerEngine
from compare.zero_engine import MEMORY, ZeroEngine
from finetune import data, gpu, outcome, progress, tab_data, verdict_record
from finetune import start as starting
from finetune import tab as train_tab
from finetune.jobs import Jobs
from finetune.services import TrainServices
from finetune.strip import strip, visitor_strip

VERSION = "0.1.0"
PORTS = range(7860, 7880)
QUEUE = 512  # events that may wait; more are told to come back
HIDDEN = {"show_progress": "hidden", "api_visibility": "private"}


@dataclass(frozen=True)
class Settings:
    """Where we run. ``space`` is a hosted Space, where visitors are strangers."""

    host: str
    port: int | None
    space: bool
    everyone_owns: bool
    visitor_rate: float = 6
    idle: float = IDLE
    ratings_repo: str = ""
    sync_seconds: float = SECONDS

    @classmethod
    def from_environment(cls) -> Settings:
        space = "SPACE_ID" in os.environ
        return cls(
            host=os.environ.get("NARANHI_HOST") or ("0.0.0.0" if space else "127.0.0.1"),
            port=int(os.environ["NARANHI_PORT"]) if os.environ.get("NARANHI_PORT") else (7860 if space else None),
            space=space,
            everyone_owns=os.environ.get("NARANHI_OWNER") == "open",
            visitor_rate=max(0.1, float(os.environ.get("NARANHI_VISITOR_RATE") or 6)),
            idle=60 * float(os.environ.get("NARANHI_IDLE_MINUTES") or IDLE / 60),
            ratings_repo=os.environ.get("NARANHI_RATINGS_REPO", "").strip(),
            sync_seconds=max(1.0, float(os.environ.get("NARANHI_SYNC_SECONDS") or SECONDS)),
        )

    def sync(self, workspace: Workspace) -> Sync | None:
        """The copy of the ratings on the Hub; None unless a repository is set."""
        if not self.ratings_repo:
            return None
        studies = workspace.root / "studies"
        return Sync(workspace.ratings / "ratings.csv", studies, HubRepo(self.ratings_repo), self.sync_seconds)

    def access(self) -> Access:
        """Who may do what. The password leaves the environment: runs and engines, which inherit it, never see it."""
        door = Door.from_environment(self.host, self.everyone_owns)
        return Access(door, os.environ.pop("NARANHI_PASSWORD", ""))


@dataclass(frozen=True)
class Services:
    """Built once and passed in; nothing at module level changes."""

    workspace: Workspace
    train: TrainServices
    compare: CompareServices
    access: Access
    limits: Limits
    place: place.Place


def services(settings: Settings) -> Services:
    """Everything the pages share. Queued runs whose devices are free go on from here after a reboot."""
    access = settings.access()
    workspace = Workspace.from_environment().prepare()
    here = place.find(os.environ, len(gpu.read(workspace.root).gpus))
    jobs = Jobs(workspace, here.closed)
    jobs.start_next()
    keys = Keys()
    engine = EngineSwitch(engine_here(workspace, here), RemoteEngine(keys))
    ratings = RatingsFile(workspace.ratings / "ratings.csv", VERSION)
    ratings.recover()
    return Services(
        workspace,
        TrainServices(workspace, jobs, access.owner, partial(verdict, ratings)),
        CompareServices(
            workspace,
            engine,
            ratings,
            access.owner,
            VERSION,
            read_prompts,
            machine(workspace, jobs, here),
            0 if here.kind == "space_zero" else settings.idle,  # there nothing is held between questions
            keys,
            host=settings.host,
            sync=settings.sync(workspace),
        ),
        access,
        Limits.usual(settings.visitor_rate),
        here,
    )


def engine_here(workspace: Workspace, here: place.Place) -> Engine:
    """In a process of its own; but ZeroGPU lends its GPU only to functions of this one, known before the launch."""
    if here.kind == "space_zero":
        return ZeroEngine(workspace, importlib.import_module("spaces").GPU)
    return WorkerEngine(workspace, workspace.root / "engine.log")


def machine(workspace: Workspace, jobs: Jobs, here: place.Place) -> Machine:
    """What the comparison may know of GPUs and runs, which are the other room's."""

    def left(job_id: str) -> float | None:
        try:
            return progress.read(jobs.folder(job_id)).eta
        except UserError:
            return None

    def cards() -> list[Card]:
        if here.kind == "space_zero":
            return [Card("zerogpu", MEMORY, MEMORY)]
        return [Card(g.device, g.total, g.free) for g in gpu.read(workspace.root).gpus]

    return Machine(
        workspace,
        cards=cards,
        left=left,
        queued=lambda: [Queued(j.name, jobs.plan(j.id).devices) for j in reversed(jobs.list()) if j.state == "queued"],
        freed=jobs.start_next,
    )


def read_prompts(path: Path, columns: str) -> tuple[list[dict[str, Any]], str, int]:
    """A file of prompts for the comparison, read by the room that reads files."""
    table = data.read_file(path)
    mapping = data.Mapping("prompts", tab_data.read_columns(columns)) if columns else data.guess_prompts(table)
    found = data.read_prompts(table, mapping)
    return found.prompts, tab_data.write_columns(mapping.columns), len(found.dropped)


def page(words: Words, shared: Services) -> None:
    """One language's page inside the current Blocks or route."""
    gr.Navbar(visible=False)
    strangers = shared.access.door.public and not shared.access.door.everyone_owns
    top = gr.HTML(visitor_strip(words) if strangers else strip(words, shared.workspace), elem_id="n-head")
    where = gr.HTML(place.html(shared.place, words), visible=not strangers, elem_id="n-place")
    tab_yield.build(words, shared.compare)
    with gr.Tabs(elem_id="tabs", selected="compare" if strangers else None) as tabs:
        with gr.Tab(words("app.tab.train"), id="train", visible=not strangers) as first:
            train = train_tab.build(words, shared.train)
        with gr.Tab(words("app.tab.compare"), id="compare", render_children=True) as second:
            compare = compare_tab.build(words, shared.compare)
        with gr.Tab(words("app.tab.results"), id="results", render_children=True, visible=not strangers) as third:
            results = results_tab.build(words, shared.compare)
            pairs = tab_pairs.build(words, shared.compare)

    @for_visitors
    def look(request: gr.Request) -> str:
        sign = owner_page.link(words, shared.access, request)
        if not shared.access.owner(request):
            return visitor_strip(words, sign)
        sync = shared.compare.sync
        told = sync_view.warning(sync.status, words) if sync is not None else ""
        return strip(words, shared.workspace, sign) + told

    @for_visitors
    def enter(request: gr.Request) -> dict[Any, Any]:
        """The tabs are the owner's; a visitor's page has the comparison only."""
        own = shared.access.owner(request)
        shown = gr.update(visible=own)
        picked = gr.skip() if own or strangers else gr.update(selected="compare")
        hidden = dict.fromkeys((where, first, third, compare.own.fold), shown)
        return {top: look(request), **hidden, tabs: picked}

    gr.Timer(5).tick(look, None, top, concurrency_limit=8, **HIDDEN)
    entered = [top, where, first, third, compare.own.fold, tabs]
    gr.context.Context.root_block.load(enter, None, entered, **HIDDEN)
    _cross(train, compare, results, (tabs, first, second, third), shared)
    _close(train, results, pairs, tabs, shared)


def _cross(train: Any, compare: Any, results: Any, places: tuple[Any, Any, Any, Any], shared: Services) -> None:
    """What leads from one room to the other; they meet on disk, in the run's adapter folder."""
    tabs, first, second, third = places
    page_load = gr.context.Context.root_block.load

    def hand_over(session: Any, job_id: str, request: gr.Request) -> dict[Any, Any]:
        spec = shared.train.jobs.spec(job_id)
        adapter = _made(shared, job_id)
        return {tabs: gr.update(selected="compare"), **compare.choose(session, spec.model.id, adapter, request)}

    def both(session: Any, ids: list[str], request: gr.Request) -> dict[Any, Any]:
        first, second = (_made(shared, job_id) for job_id in ids)
        return {tabs: gr.update(selected="compare"), **compare.choose(session, first, second, request)}

    for two in (train.side, train.enough):
        two.compare.click(both, [compare.state, two.chosen], [tabs, *compare.outputs], **HIDDEN)

    def to_parent(session: Any, room: Any, job_id: str, request: gr.Request) -> dict[Any, Any]:
        spec = shared.train.jobs.spec(job_id)
        start = str(starting.place(shared.workspace, spec.start))
        adapter = _made(shared, job_id)
        shown = followup.show(compare, session, room, (spec.model.id, start, adapter), request)
        return {tabs: gr.update(selected="compare"), **shown}

    train.compare.click(hand_over, [compare.state, train.picked], [tabs, *compare.outputs], **HIDDEN)
    beside = [tabs, *dict.fromkeys([*compare.outputs, *compare.study.page.outputs])]
    train.parent.click(to_parent, [compare.state, compare.study.page.state, train.picked], beside, **HIDDEN)
    compare.train.click(lambda: gr.update(selected="train"), None, tabs, **HIDDEN)
    compare.show_on([page_load, second.select])
    results.show_on([page_load, third.select])
    third.select(partial(_remember, shared), None, None, **HIDDEN)
    results.compare.click(lambda: gr.update(selected="compare"), None, tabs, **HIDDEN)

    def to_results(room: Any, rater: str, peeked: list[str], request: gr.Request) -> dict[Any, Any]:
        shown = results.show(rater, peeked, room.at, None, "", True, request)
        return {tabs: gr.update(selected="results"), **shown}

    compare.study.results.click(
        to_results, [compare.study.page.state, results.browser, results.peeked], [tabs, *results.outputs], **HIDDEN
    )


def _remember(shared: Services) -> None:
    verdict_record.keep(shared.train.jobs, shared.train.verdict)


def _made(shared: Services, job_id: str) -> str:
    """The folder of what a run has made, as the comparison's pickers take it."""
    folder = shared.train.jobs.folder(job_id)
    return str(outcome.made(folder) or folder / outcome.ADAPTER)


def _close(train: Any, results: Any, pairs: Any, tabs: Any, shared: Services) -> None:
    """The loop closes: the votes on screen become a preference file, and the training tab takes it."""
    words: Words = results.words

    def retrain(
        chosen: dict[str, Any], votes: float, agreement: float, margin: float, objective: str, request: gr.Request
    ) -> dict[Any, Any]:
        if not shared.compare.owner(request):
            raise gr.Error(words("app.owner_only"))
        try:
            made = pairs.make(chosen, votes, agreement, margin, objective)
            taken = train.preference.take(made.name)
        except UserError as error:
            gr.Warning(words.error(error), title=words("app.name"))
            return {tabs: gr.skip()}
        gr.Info(pairs.sentence(made.record["votes"]["count"], made.rows, made.objective, []))
        return {tabs: gr.update(selected="train"), **taken}

    pairs.watch(results.chosen)
    outputs = [tabs, *train.preference.outputs]
    results.retrain.click(retrain, [results.chosen, *pairs.fields], outputs, **HIDDEN)


def build(shared: Services) -> GuardedBlocks:
    """The whole app; launching is separate so that tests can look at it."""
    korean, english = (Words(language) for language in LANGUAGES)
    options = {"title": korean("app.title"), "analytics_enabled": False, "delete_cache": (86400, 86400)}
    demo = GuardedBlocks(shared.access, shared.limits, **options)
    with demo:
        page(korean, shared)
    with demo.route("English", "/en"):
        page(english, shared)
    with demo.route("Rate", "/rate", show_in_navbar=False):
        tab_rate.build(shared.compare.study_service, shared.compare.studies)
    demo.queue(default_concurrency_limit=4, max_size=QUEUE)
    return demo


def free_port(host: str) -> int:
    """The first free port from 7860 on. OSError when twenty in a row are taken."""
    for port in PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise OSError(f"ports {PORTS.start} to {PORTS.stop - 1} are all taken; set NARANHI_PORT to a free one")


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    for library in ("httpx", "httpx2"):
        logging.getLogger(library).setLevel(logging.WARNING)
    settings = Settings.from_environment()
    port = settings.port or free_port(settings.host)
    if settings.port is None and port != PORTS.start:
        print(f"Port {PORTS.start} is busy, so this is http://{settings.host}:{port}")
    shared = services(settings)
    demo = build(shared)
    for line in owner_page.announcement(shared.access, settings.host, port):
        print(line)
    with synced(shared.compare.sync):
        launch(demo, settings, port)


@contextmanager
def synced(sync: Sync | None) -> Iterator[None]:
    """Ratings are brought back before and pushed after, also when a Space is asked to stop."""
    if sync is None:
        yield
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    sync.start(wait=20)
    try:
        yield
    finally:
        sync.stop()


def guards(demo: GuardedBlocks) -> dict[str, Any]:
    """What stands around gradio's server. The headers go around everything, gradio's own middleware included, and what
    is remembered of pages has a bound."""
    pages = [page for page, *_ in demo.pages if page]

    @asynccontextmanager
    async def around(server: Any) -> AsyncIterator[None]:
        server.middleware_stack = SafeHeaders(server.middleware_stack, demo.access.door.space)
        server.state_holder = Sessions(demo)
        yield

    gate = Middleware(Gate, access=demo.access, limits=demo.limits, pages=pages)
    return {"middleware": [gate], "lifespan": around}


def launch(demo: GuardedBlocks, settings: Settings, port: int) -> None:
    """Serve until somebody ends it. Server-side rendering and file workers would answer beside the gate."""
    gc.collect()
    gc.freeze()  # what is there now stays: a full collection over it would hold every answer up for a tenth of a second
    demo.launch(
        server_name=settings.host,
        server_port=port,
        theme=look.theme(),
        css_paths=look.STYLES,
        head=look.head(),
        max_file_size=UPLOAD,
        run_history=False,
        enable_monitoring=False,
        footer_links=[],
        show_error=True,
        pwa=False,
        ssr_mode=False,
        num_workers=0,
        share=False,
        app_kwargs=guards(demo),
    )


if __name__ == "__main__":
    main()
