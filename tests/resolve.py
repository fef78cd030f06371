"""Whether a Space can install this: asks PyPI for everything in requirements.txt, for the Space's Python, on an empty disk.

By hand: python -m tests.resolve      (network; about a minute; installs nothing)
Covers: pip's own resolution for the Python and Linux of the README's front matter, whatever Python runs this, together
with what a Gradio Space adds (gradio with sign-in, spaces). Does not cover: Dockerfile (the image pins the same file).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
GLIBC = range(5, 37)  # of Debian 12 and whatever is older; pip does not count down by itself when a platform is given
PLATFORMS = (*(f"manylinux_2_{minor}_x86_64" for minor in reversed(GLIBC)), "manylinux2014_x86_64", "any")


def command(target: str) -> list[str]:
    """pip's, for the Python that the front matter names."""
    head = yaml.safe_load((ROOT / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    python = str(head["python_version"]).rpartition(".")[0]
    where = [part for platform in PLATFORMS for part in ("--platform", platform)]
    asked = ["-r", str(ROOT / "requirements.txt"), f"gradio[oauth]=={head['sdk_version']}", "spaces"]
    return [
        *(sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--only-binary=:all:"),
        *("--python-version", python, "--implementation", "cp", *where, "--target", target, *asked),
    ]


def main() -> int:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as target:
        done = subprocess.run(command(target), capture_output=True, text=True)
    last = (done.stdout or done.stderr).strip().splitlines()[-1:]
    print("PASS" if done.returncode == 0 else "FAIL", f"{time.monotonic() - began:.0f} s", *last)
    if done.returncode:
        print(done.stderr[-3000:])
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
