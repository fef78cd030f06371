"""A real app on a workspace of its own, a real browser in front of it, and a wire tap between the two."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from assets.files import Workspace
from finetune import starter
from finetune.jobs import Jobs
from tests import browser

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class App:
    """``python app.py`` in a process of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> float:
        """Start and wait for the page; the seconds that took."""
        env = {**os.environ, "NARANHI_HOME": str(self.home), "NARANHI_PORT": str(self.port), "HF_HUB_OFFLINE": "1"}
        began = time.monotonic()
        with (self.home / "app.log").open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=env, stdout=log, stderr=log)
        while time.monotonic() - began < 120:
            if self.process.poll() is not None:
                raise RuntimeError((self.home / "app.log").read_text(errors="replace")[-3000:])
            try:
                urllib.request.urlopen(self.url, timeout=2).read()
            except OSError:
                time.sleep(0.1)
            else:
                return time.monotonic() - began
        raise TimeoutError("the app did not answer")

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()


class Tap:
    """A TCP relay that keeps every byte the app sends to the browser."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.received = bytearray()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self.target))
            threading.Thread(target=self._pump, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, True), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, keep: bool) -> None:
        try:
            while data := source.recv(65536):
                if keep:
                    self.received += data
                else:  # compressed bytes could hide a name
                    data = data.replace(
                        b"Accept-Encoding: gzip, deflate, br, zstd", b"Accept-Encoding: identity" + b" " * 15
                    )
                    data = data.replace(b"Accept-Encoding: gzip, deflate, br", b"Accept-Encoding: identity" + b" " * 9)
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, sink):
                end.close()

    def close(self) -> None:
        self._listener.close()


@pytest.fixture(scope="session")
def executable() -> str:
    path = browser.installed()
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("no browser: run python -m tests.browser")
        pytest.skip("no browser: run python -m tests.browser")
    return path


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    home = tmp_path_factory.mktemp("home")
    workspace = Workspace(home).prepare()
    made = starter.make(Workspace(ROOT / "workspace").prepare())
    (workspace.models / made.name).symlink_to(made)
    running = App(home)
    yield running
    running.stop()
    for job in Jobs(workspace).list():  # runs outlive the app on purpose
        if job.supervisor is not None:
            os.kill(job.supervisor[0], signal.SIGKILL)


@pytest.fixture(scope="module")
def chromium(executable: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        driver = play.chromium.launch(executable_path=executable, args=browser.FLAGS)
        yield driver
        driver.close()
