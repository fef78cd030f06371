"""The strip on top: where we run, who holds which device, whether a Hugging Face token is there, the language.

Covers: one piece of HTML. Does not cover: signing in (tab_hub.py).
"""

from __future__ import annotations

from html import escape
from typing import Any

from assets import hub
from assets.files import Workspace
from assets.leases import CPU, holder
from assets.words import LANGUAGES, Words
from finetune import gpu

NAMES = {"ko": ("한국어", "./", "한"), "en": ("English", "./en", "EN")}


def strip(words: Words, workspace: Workspace, more: str = "") -> str:
    """Name, devices, account and the language switch. ``more`` is HTML beside the account."""
    machine = gpu.read(workspace.root)
    devices = [
        _device(words("app.gpu", name=g.name, free=g.free / 2**30, total=g.total / 2**30), g.device, workspace, words)
        for g in machine.gpus
    ]
    if not devices:
        devices = [_device(words("app.cpu", cores=machine.cores), CPU, workspace, words)]
    account = words("app.hub.known" if hub.has_token() else "app.hub.none")
    return _framed(words, f'{"".join(devices)}<span class="n-chip">{account}</span>{more}')


def visitor_strip(words: Words, more: str = "") -> str:
    """For people who are not the owner: nothing of devices, runs or accounts."""
    return _framed(words, more)


def _framed(words: Words, inside: str) -> str:
    return (
        '<div class="n-top"><span class="n-mark" aria-hidden="true"><i></i><i></i></span>'
        f'<span class="n-name">{words("app.name")}</span><span class="n-tag">{words("app.tag")}</span>'
        f'<span class="n-strip">{inside}{_languages(words)}</span></div>'
    )


def _device(name: str, device: str, workspace: Workspace, words: Words) -> str:
    taken = holder(workspace, device)
    state = words("app.free") if taken is None else _holder(taken, words)
    dot = "n-dot" if taken is None else "n-dot busy"
    return f'<span class="n-chip"><i class="{dot}"></i><b>{escape(name)}</b> {escape(state)}</span>'


def _holder(taken: dict[str, Any], words: Words) -> str:
    if taken.get("kind") == "engine":
        return words("app.held_engine")
    return words("app.held", name=taken.get("name", "?"))


def _languages(words: Words) -> str:
    links = []
    for code in LANGUAGES:
        name, _, short = NAMES[code]
        here = ' aria-current="true"' if code == words.language else ""
        links.append(f'<a href="#" data-lang="{code}" title="{name}"{here}>{short}</a>')
    return f'<span class="n-lang">{"".join(links)}</span>'
