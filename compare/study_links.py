"""Addresses of raters' links: who can reach them, and their QR codes.

Covers: the address to put in front of a code, whether only this computer can open it, an SVG. Does not cover: making and
revoking links (study_raters.py). segno (BSD) draws the codes; nothing is asked of the network.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

import segno

Reach = Literal["here", "network", "public"]
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Address:
    """``base`` comes before "/rate?c=…" and ends without a slash; ``reach`` is from where it opens."""

    base: str
    reach: Reach

    def link(self, code: str) -> str:
        return f"{self.base}/rate?c={code}"


def address(seen: str, host: str, own: str | None = None) -> Address:
    """The address for raters.

    ``seen`` is the page as the owner's browser knows it (proxies and root paths included), ``host`` what the server
    listens on, ``own`` this computer in its network (found out when None). Where the owner sits at this computer and
    the server listens on all of its addresses, the one that others can use takes the place of "localhost".
    """
    parts = urlsplit(seen if "://" in seen else f"http://{seen or '127.0.0.1'}")
    path = parts.path.rstrip("/").removesuffix("/en")
    name = parts.hostname or "127.0.0.1"
    if name not in _LOOPBACK:
        return Address(f"{parts.scheme}://{parts.netloc}{path}", "public" if _is_public(name) else "network")
    if host in _LOOPBACK:
        return Address(f"{parts.scheme}://{parts.netloc}{path}", "here")
    own = own if own is not None else own_address()
    if not own:
        return Address(f"{parts.scheme}://{parts.netloc}{path}", "here")
    port = f":{parts.port}" if parts.port else ""
    return Address(f"{parts.scheme}://{own}{port}{path}", "network")


def _is_public(name: str) -> bool:
    return "." in name and not name.endswith(".local") and not name.replace(".", "").isdigit()


def own_address() -> str:
    """This computer's address in its network, or "". Nothing is sent: connecting a datagram socket only picks a route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            found = str(probe.getsockname()[0])
        except OSError:
            return ""
    return "" if found in _LOOPBACK or found == "0.0.0.0" else found


def qr(text: str) -> str:
    """A QR code as inline SVG, with the white border that cameras need."""
    svg: str = segno.make(text, error="m", micro=False).svg_inline(
        border=3, light="#fff", svgclass="n-qr", omitsize=True
    )
    return svg
