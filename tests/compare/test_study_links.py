from __future__ import annotations

import pytest

from compare.study_links import address, own_address, qr


@pytest.mark.parametrize(
    ("seen", "host", "own", "base", "reach"),
    [
        ("http://127.0.0.1:7860/", "127.0.0.1", "192.168.0.7", "http://127.0.0.1:7860", "here"),
        ("http://localhost:7860/en", "localhost", "192.168.0.7", "http://localhost:7860", "here"),
        ("http://localhost:7860/en/", "0.0.0.0", "192.168.0.7", "http://192.168.0.7:7860", "network"),
        ("http://127.0.0.1:7860/", "0.0.0.0", "", "http://127.0.0.1:7860", "here"),
        ("http://192.168.0.7:7860/", "0.0.0.0", "10.0.0.1", "http://192.168.0.7:7860", "network"),
        ("http://mypc.local:7860/", "0.0.0.0", "", "http://mypc.local:7860", "network"),
        ("https://somebody-naranhi.hf.space/en", "0.0.0.0", "", "https://somebody-naranhi.hf.space", "public"),
        ("https://lab.example.org/tools/naranhi/", "127.0.0.1", "", "https://lab.example.org/tools/naranhi", "public"),
        ("", "127.0.0.1", "", "http://127.0.0.1", "here"),
    ],
)
def test_who_can_reach_a_link(seen: str, host: str, own: str, base: str, reach: str) -> None:
    found = address(seen, host, own)
    assert (found.base, found.reach) == (base, reach)
    assert found.link("20261125-ab.cd") == f"{base}/rate?c=20261125-ab.cd"


def test_this_computer_in_its_network_is_no_loopback() -> None:
    assert own_address() not in ("127.0.0.1", "0.0.0.0", "::1")


def test_a_code_is_inline_svg_with_a_white_border() -> None:
    svg = qr("http://192.168.0.7:7860/rate?c=20261125-ab.cd")
    assert svg.startswith("<svg") and 'fill="#fff"' in svg and "<script" not in svg and "<?xml" not in svg
