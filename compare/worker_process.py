"""One engine process, seen from the page's process: start it, talk to it, notice its end.

Covers: the child, its pipe, why it died. Does not cover: what is said over the pipe (worker.py). POSIX only.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from assets.files import Workspace
from compare.engine import LoadSpec


class Died(Exception):
    """The child is gone. ``key`` says why, or is None when it was ended on purpose."""

    def __init__(self, key: str | None) -> None:
        super().__init__(key)
        self.key = key


class Child:
    """One engine process and our end of its pipe. ``holds`` is what it has loaded."""

    def __init__(self, target: str, workspace: Workspace, log: Path) -> None:
        self.wanted_dead = False
        self.holds: LoadSpec | None = None
        self._gone = threading.Event()
        self._sending = threading.Lock()
        self._oom_kills = _oom_kills()
        ours, theirs = socket.socketpair()
        started: queue.SimpleQueue[subprocess.Popen[bytes] | OSError] = queue.SimpleQueue()
        # The thread that starts the child stays until its end: Linux signals a child when its parent *thread* ends.
        threading.Thread(
            target=self._live, args=(target, workspace, log, theirs, started), name="engine", daemon=True
        ).start()
        process = started.get()
        theirs.close()
        if isinstance(process, OSError):
            ours.close()
            raise process
        self.process = process
        self._pipe = Connection(ours.detach())

    def _live(
        self,
        target: str,
        workspace: Workspace,
        log: Path,
        theirs: socket.socket,
        started: queue.SimpleQueue[subprocess.Popen[bytes] | OSError],
    ) -> None:
        root = str(Path(__file__).resolve().parents[1])
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        # Threads that wait by spinning make an answer some ten times slower as soon as a training run shares the cores.
        environment = {
            "OMP_WAIT_POLICY": "passive",
            **os.environ,
            "NARANHI_HOME": str(workspace.root),
            "PYTHONPATH": paths,
        }
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as output:
                process = subprocess.Popen(
                    [sys.executable, "-m", "compare.worker", str(theirs.fileno()), target],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environment,
                    start_new_session=True,
                )
        except OSError as error:
            started.put(error)
            return
        started.put(process)
        process.wait()
        self._gone.set()

    @property
    def alive(self) -> bool:
        return not self._gone.is_set() and not self._hung_up()

    def _hung_up(self) -> bool:
        """Whether its end of the pipe is closed: true a moment before the system says that the process is gone."""
        try:
            with socket.socket(fileno=os.dup(self._pipe.fileno())) as pipe:
                return pipe.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def send(self, *message: Any) -> None:
        try:
            with self._sending:
                self._pipe.send(message)
        except OSError as error:
            raise Died(self._why()) from error

    def receive(self) -> tuple[int, Any]:
        try:
            message: tuple[int, Any] = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise Died(self._why()) from error
        return message

    def kill(self) -> None:
        """End the process on purpose and wait until the system has taken its memory back."""
        self.wanted_dead = True
        if not self._gone.is_set():
            self.process.kill()
            self._gone.wait(10)

    def close(self) -> None:
        """After the last receive: the pipe is not needed any more."""
        self.kill()
        self._pipe.close()

    def _why(self) -> str | None:
        """The pipe broke: let the process end, then say why it did."""
        if self.wanted_dead:
            return None
        if not self._gone.wait(5):
            self.process.kill()
            self._gone.wait(5)
        killed = self.process.returncode == -signal.SIGKILL and _oom_kills() > self._oom_kills
        return "engine.out_of_memory" if killed else "engine.died"


def _oom_kills() -> int:
    """How many processes this system has killed for memory so far; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
