"""What the fields for training elsewhere do: sign in, start, take over, and the card of a run that is elsewhere.

Covers: events. Does not cover: components (tab_elsewhere.py), what happens there (remote_*.py) or what is said
(elsewhere_view.py). Only the owner may; everybody else's click is refused by the handlers themselves. A token's field is
cleared at once.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from assets.errors import UserError
from assets.files import for_download
from assets.words import Words
from finetune import elsewhere_view as view
from finetune import methods, outlook, preview, tab_form, tab_plan, views
from finetune import start as starting
from finetune.memory import GIB
from finetune.remote_cluster import COMMANDS, SCRIPT, pack
from finetune.remote_hub import Flavor
from finetune.remote_import import take_over
from finetune.runner import Order
from finetune.services import TrainServices
from finetune.shapes import shape_of
from finetune.spec import TrainSpec
from finetune.tab_elsewhere import MINUTES, PLACES, Cluster, Hub, Panel

log = logging.getLogger(__name__)
HIDDEN: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
INSTALL = 15  # minutes for the image, the packages and the model, beside the training
_FETCH = "() => setTimeout(() => document.getElementById('train-pack-file')?.click(), 150)"
Shown = Callable[[Any, Any, bool], Any]
"""(event, the component that then holds the id of the run to show, whether the form folds): shows it."""


def wire(panel: Panel, here: Any, inputs: dict[str, Any], words: Words, services: TrainServices, shown: Shown) -> None:
    """``here`` is what belongs to this machine, ``inputs`` the form; names here begin with "at_", so that none is one of
    the form's. Runs elsewhere are asked about from now on."""
    hub, cluster = panel.hub, panel.cluster
    panel.where.change(
        lambda place: [gr.update(visible=place == name) for name in PLACES],
        panel.where,
        [here, hub.group, cluster.group],
        **HIDDEN,
    )
    _wire_hub(hub, panel.where, inputs, words, services, shown)
    _wire_cluster(cluster, inputs, words, services, shown)
    page = gr.context.Context.root_block
    page.load(lambda: [secrets.token_hex(8), secrets.token_hex(8)], None, [hub.request, cluster.request], **HIDDEN)
    services.elsewhere.attendant.wake()


def checked(values: dict[str, Any], services: TrainServices) -> TrainSpec:
    """The form as a spec whose data and start will do. UserErrors."""
    spec = tab_form.to_spec(values)
    methods.check(spec, shape_of(services.workspace, spec.model))
    reading = services.readings.get(spec)
    preview.check(reading, spec)
    preview.check_heldout(reading, spec)
    starting.check(services.workspace, spec, reading.chat.template_hash)
    return spec


def _guard(request: gr.Request, services: TrainServices) -> None:
    if not services.owner(request):
        raise UserError("app.owner_only")


@dataclass(frozen=True)
class _HubEvents:
    """What the fields for Hugging Face Jobs do."""

    words: Words
    services: TrainServices

    def check(self, token: str, account: str, request: gr.Request) -> list[Any]:
        service = self.services.elsewhere.service
        try:
            _guard(request, self.services)
            name = service.sign_in(token.strip()) if token.strip() else service.name(account)
            flavors = service.hardware()
        except Exception as error:
            return ["", _told(error, self.words), *[gr.skip()] * 4]
        first = next((one.name for one in flavors if one.gpus), flavors[0].name)
        offered = gr.update(choices=view.choices(flavors, self.words), value=first)
        who = view.good(self.words("elsewhere.who", name=name))
        return ["", who, name, flavors, offered, gr.update(interactive=True)]

    def price(self, at_flavor: str, at_minutes: float, at_flavors: list[Flavor], **values: Any) -> str:
        found = next((one for one in at_flavors if one.name == at_flavor), None)
        return view.cost(found, at_minutes or 0, self.words) + _fits(found, values, self.words, self.services)

    def start(
        self,
        request: gr.Request,
        at_asked: str,
        at_account: str,
        at_flavor: str,
        at_minutes: float,
        at_flavors: list[Flavor],
        **values: Any,
    ) -> Iterator[list[Any]]:
        yield [views.waiting(self.words("elsewhere.starting")), at_asked, gr.skip()]
        there = self.services.elsewhere
        try:
            _guard(request, self.services)
            hourly = next((one.hourly for one in at_flavors if one.name == at_flavor), None)
            seconds = int(60 * (at_minutes or 0))
            order = Order(checked(values, self.services), at_asked, at_account, at_flavor or "", seconds, hourly)
            job = there.runners.at("hf").start(order)
        except Exception as error:
            yield [_told(error, self.words), secrets.token_hex(8), ""]
            return
        there.attendant.wake()
        gr.Info(self.words("elsewhere.started"))
        yield [view.good(self.words("elsewhere.started")), secrets.token_hex(8), job.id]

    def find(self, account: str, request: gr.Request) -> list[Any]:
        there = self.services.elsewhere
        try:
            _guard(request, self.services)
            found = there.runners.at("hf").reattach(account)
        except Exception as error:
            return [_told(error, self.words), ""]
        there.attendant.wake()
        text = self.words("elsewhere.found", count=len(found)) if found else self.words("elsewhere.found.none")
        return [view.good(text), found[0] if found else ""]

    def minutes(self, at_place: str, **values: Any) -> Any:
        return time_out(values, self.services) if at_place == "hf" else gr.skip()


def _wire_hub(
    hub: Hub, where: Any, inputs: dict[str, Any], words: Words, services: TrainServices, shown: Shown
) -> None:
    events, job = _HubEvents(words, services), gr.State("")
    checked_out = [hub.token, hub.who, hub.account, hub.flavors, hub.flavor, hub.start]
    hub.check.click(events.check, [hub.token, hub.account], checked_out, api_visibility="private")
    asked = {"at_flavor": hub.flavor, "at_minutes": hub.minutes, "at_flavors": hub.flavors}
    gr.on(
        [hub.flavor.change, hub.minutes.change],
        events.price,
        inputs_kwargs={**inputs, **asked},
        outputs=hub.cost,
        trigger_mode="always_last",
        **HIDDEN,
    )
    begun = hub.start.click(
        events.start,
        inputs_kwargs={"at_asked": hub.request, "at_account": hub.account, **asked, **inputs},
        outputs=[hub.told, hub.request, job],
        concurrency_limit=1,
        trigger_mode="once",
        **HIDDEN,
    )
    shown(begun, job, True)
    shown(hub.find.click(events.find, hub.account, [hub.told, job], api_visibility="private"), job, True)
    where.input(events.minutes, inputs_kwargs={"at_place": where, **inputs}, outputs=hub.minutes, **HIDDEN)


def time_out(values: dict[str, Any], services: TrainServices) -> int:
    """Minutes that should be enough: the long end of this machine's forecast, and the time to install; two hours where
    there is none."""
    try:
        spec = tab_form.to_spec(values)
        made, machine = tab_plan.make(spec, services, tab_plan.EXAMPLE)
        span = outlook.look(spec, made, shape_of(services.workspace, spec.model), machine, services, time.time()).span
    except UserError:
        span = None
    return MINUTES if span is None else max(30, 10 * math.ceil((span[1] / 60 + INSTALL) / 10))


def _fits(flavor: Flavor | None, values: dict[str, Any], words: Words, services: TrainServices) -> str:
    if flavor is None:
        return ""
    try:
        spec = tab_form.to_spec(values)
        made = view.fit(spec, shape_of(services.workspace, spec.model), flavor)
    except UserError as error:
        return view.bad(error, words)
    return views.plan_line(made, None, words) if made else ""


@dataclass(frozen=True)
class _ClusterEvents:
    """What the fields for a cluster do."""

    words: Words
    services: TrainServices

    def make(
        self,
        request: gr.Request,
        at_asked: str,
        at_nodes: int,
        at_gpus: int,
        at_memory: int,
        at_hours: int,
        **values: Any,
    ) -> list[Any]:
        there = self.services.elsewhere
        try:
            _guard(request, self.services)
            nodes, gpus, room = int(at_nodes or 0), int(at_gpus or 0), int(at_memory or 0) * GIB
            spec, hours = checked(values, self.services), int(at_hours or 1)
            order = Order(spec, at_asked, nodes=nodes, gpus=gpus, memory=room, hours=hours)
            folder = self.services.jobs.folder(there.runners.at("cluster").start(order).id)
            path = pack(folder, for_download(f"{folder.name}.zip"))
        except Exception as error:
            return [_told(error, self.words), gr.skip(), gr.update(value=None), gr.skip(), gr.skip(), ""]
        there.attendant.wake()
        texts = [(folder / name).read_text(encoding="utf-8") for name in (SCRIPT, COMMANDS)]
        told = view.good(self.words("elsewhere.made", folder=f"jobs/{folder.name}"))
        return [told, secrets.token_hex(8), gr.update(value=str(path)), *texts, folder.name]

    def take(self, path: str | None, folder: str, request: gr.Request) -> list[Any]:
        try:
            _guard(request, self.services)
            if not path and not folder.strip():
                raise UserError("elsewhere.not_a_run")
            taken = take_over(self.services.jobs, Path(path) if path else Path(folder.strip()).expanduser())
        except Exception as error:
            return [_told(error, self.words), "", gr.skip()]
        told = view.good(self.words("elsewhere.taken", name=taken.name))
        if taken.error and taken.error["key"] in ("elsewhere.half", "elsewhere.unfinished"):
            why = self.words(taken.error["key"], **taken.error["values"])
            told = view.warn(self.words("elsewhere.taken.half", name=taken.name, why=why))
        return [told, taken.id, None]


def _wire_cluster(
    cluster: Cluster, inputs: dict[str, Any], words: Words, services: TrainServices, shown: Shown
) -> None:
    events, job = _ClusterEvents(words, services), gr.State("")
    fields = {f"at_{name}": getattr(cluster, name) for name in ("nodes", "gpus", "memory", "hours")}
    made = cluster.make.click(
        events.make,
        inputs_kwargs={"at_asked": cluster.request, **fields, **inputs},
        outputs=[cluster.told, cluster.request, cluster.file, cluster.script, cluster.commands, job],
        concurrency_limit=1,
        trigger_mode="once",
        **HIDDEN,
    )
    made.success(None, None, None, js=_FETCH, api_visibility="private")
    shown(made, job, False)
    asked, told = [cluster.zip, cluster.folder], [cluster.told, job, cluster.zip]
    shown(cluster.take.click(events.take, asked, told, concurrency_limit=1, **HIDDEN), job, True)


def card(words: Words, services: TrainServices, picked: Any, head: Any) -> None:
    """A folded part of the card of runs, there while the run that is shown is elsewhere; ``head`` changes with its state."""
    there = services.elsewhere
    with gr.Accordion(
        words("elsewhere.card"), open=False, visible=False, elem_classes="n-plain", elem_id="train-elsewhere"
    ) as fold:
        with gr.Row(elem_classes="n-actions"):
            refresh = gr.Button(words("elsewhere.refresh"), elem_id="train-elsewhere-refresh")
            cancel = gr.Button(words("elsewhere.cancel"), elem_id="train-elsewhere-cancel")
        told = gr.HTML()

    def show(job_id: str | None) -> list[Any]:
        try:
            job = services.jobs.get(job_id or "")
        except UserError:
            return [gr.update(visible=False), ""]
        return [gr.update(visible=job.elsewhere and job.active), ""]

    def act(action: Callable[[str], Any], text: str) -> Callable[..., str]:
        def handler(job_id: str, request: gr.Request) -> str:
            try:
                _guard(request, services)
                action(job_id)
            except Exception as error:
                return _told(error, words)
            return text

        return handler

    gr.on([picked.change, head.change], show, picked, [fold, told], trigger_mode="always_last", **HIDDEN)
    refresh.click(act(lambda i: there.runners.of(i).state(i), ""), picked, told, api_visibility="private")
    sure = f"(picked) => confirm({words('elsewhere.cancel.sure') + '?'!r}) ? picked : ''"
    ended = act(lambda i: there.runners.of(i).cancel(i), view.good(words("elsewhere.cancelling")))
    cancel.click(ended, picked, told, js=sure, api_visibility="private")


def _told(error: Exception, words: Words) -> str:
    if not isinstance(error, UserError):
        log.error("elsewhere failed", exc_info=error)
    return view.bad(error, words)
