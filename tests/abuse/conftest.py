"""One running app for all the abuse tests of a module, and who asks it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from assets.files import Workspace
from finetune.jobs import Jobs
from tests.abuse.site import Person, Site


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    running = Site(tmp_path_factory.mktemp("abuse"))
    yield running
    running.stop()
    for job in Jobs(Workspace(running.home / "work")).list():  # what an owner's call may have started outlives the app
        if job.active and job.supervisor is not None:
            os.kill(job.supervisor[0], signal.SIGKILL)


@pytest.fixture
def visitor(site: Site) -> Person:
    return Person(site)


@pytest.fixture(scope="package")
def signed_in(site: Site) -> str:
    """The cookie of an owner; one sign-in for all, as guessing, which other tests do, is slowed down."""
    person = Person(site)
    assert person.sign_in().status_code == 303
    return str(person.web.headers["cookie"])


@pytest.fixture
def owner(site: Site, signed_in: str) -> Person:
    return Person(site, headers={"cookie": signed_in})
