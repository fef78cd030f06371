"""Every event of every page, called over raw HTTP by visitors, raters and the owner."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.abuse.site import API, OTHER, PASSWORD, RATERS, SECRET, VISITORS, Person, Site, base, plain, refused

Data = Callable[[int], list[Any]]


def events(site: Site) -> dict[int, dict[str, Any]]:
    """Everything with a handler on the server."""
    found = {d["id"]: d for d in site.config["dependencies"] if d["backend_fn"]}
    assert len(found) > 200
    return found


def nothing(site: Site) -> Data:
    return lambda fn: [None] * len(events(site)[fn]["inputs"])


def names(site: Site, ids: set[int]) -> list[str]:
    return sorted(base(events(site)[n]["api_name"]) for n in ids)


@pytest.fixture(scope="module")
def swept(site: Site) -> dict[int, dict[str, Any]]:
    """What a visitor gets from every event."""
    return Person(site).call(events(site), nothing(site))


def test_visitors_are_refused_whatever_is_not_theirs(site: Site, swept: dict[int, dict[str, Any]]) -> None:
    results = swept
    passed = {n for n, result in results.items() if not refused(result)}
    assert results.keys() == events(site).keys()
    assert names(site, passed) == sorted([*VISITORS, *VISITORS, *RATERS])
    assert site.alive()


def test_a_raters_link_opens_nothing_but_the_raters_page(site: Site, visitor: Person) -> None:
    act = json.dumps({"c": site.code, "do": "open"})
    results = visitor.call(events(site), lambda fn: [act] * len(events(site)[fn]["inputs"]))
    passed = {n for n, result in results.items() if not refused(result)}
    assert names(site, passed) == sorted([*VISITORS, *VISITORS, *RATERS])
    shown = {events(site)[n]["api_name"]: str(results[n]) for n in passed}
    assert 'data-screen="welcome"' in shown["rate_open"] and 'data-screen="welcome"' in shown["rate_act"]


def test_what_visitors_get_holds_nothing_of_others(site: Site, swept: dict[int, dict[str, Any]]) -> None:
    found = json.dumps(swept, ensure_ascii=False)
    assert SECRET not in found and OTHER not in found and str(site.home) not in found


def test_the_owner_is_refused_nothing(site: Site, owner: Person) -> None:
    results = owner.call(events(site), nothing(site))
    assert results.keys() == events(site).keys()
    assert [n for n, result in results.items() if refused(result)] == []
    assert site.alive()


def test_whoever_sits_at_this_computer_is_the_owner(site: Site) -> None:
    here = Person(site, host="127.0.0.1")
    closed = [n for n, d in events(site).items() if base(d["api_name"]) == "listed"]
    assert closed and not any(refused(result) for result in here.call(closed, nothing(site)).values())


@pytest.mark.parametrize(
    "headers",
    [
        {"x-forwarded-for": "127.0.0.1"},
        {"x-real-ip": "127.0.0.1"},
        {"forwarded": "for=127.0.0.1"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
        {"host": "rebound.evil.example"},
        {"host": "127.0.0.1.evil.example"},
    ],
)
def test_a_proxy_or_another_site_on_this_computer_is_not_the_owner(site: Site, headers: dict[str, str]) -> None:
    closed = [n for n, d in events(site).items() if base(d["api_name"]) == "listed"]
    results = Person(site, host="127.0.0.1", headers=headers).call(closed, nothing(site))
    assert results and all(map(refused, results.values()))


def test_another_site_cannot_use_the_owners_cookie(site: Site, owner: Person) -> None:
    closed = [n for n, d in events(site).items() if base(d["api_name"]) == "listed"]
    assert not any(map(refused, owner.call(closed, nothing(site)).values()))
    owner.web.headers["origin"] = "https://evil.example"
    assert all(map(refused, owner.call(closed, nothing(site)).values()))


@pytest.mark.parametrize("way", ["run", "api", "call", "call/v2"])
def test_the_direct_routes_are_closed_to_everyone(site: Site, owner: Person, way: str) -> None:
    for name in ("listed", "rate_open", "ask"):
        assert owner.post(f"{API}/{way}/{name}", json={"data": []}).status_code == 404


def test_wrong_passwords_are_refused_and_slowed_down(site: Site) -> None:
    guesser = Person(site, headers={"x-forwarded-for": "203.0.113.7"})
    answers = [guesser.sign_in(f"{PASSWORD}{n}").status_code for n in range(8)]
    assert set(answers) == {403, 429} and "cookie" not in guesser.web.headers
    assert site.alive()


def test_pages_and_config_name_nothing_of_the_owners(site: Site, visitor: Person) -> None:
    for path in ("/", "/en", "/rate", "/config", "/owner", "/theme.css", "/manifest.json"):
        answer = visitor.get(path)
        assert answer.status_code == 200, path
        assert SECRET not in plain(answer.text) and "20260101-000000-abcd" not in answer.text, path


def test_visitors_may_ask_the_models_only_so_often(site: Site, visitor: Person) -> None:
    asks = [n for n, d in events(site).items() if base(d["api_name"]) == "again"] * 8
    said = [visitor.call([n], nothing(site))[n] for n in asks]
    limited = [one for one in said if not one["success"] and "뒤에" in str(one.get("output"))]
    assert limited
