"""A browser for the tests: one that is installed, one that this script installs, or a message that says what to do.

By hand: python -m tests.browser
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def installed() -> str | None:
    """The path of a Chromium-like browser, also one that playwright downloaded; None when there is none."""
    chosen = os.environ.get("NARANHI_BROWSER")
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    return chosen or found or _downloaded()


def _downloaded() -> str | None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        path = play.chromium.executable_path
    return path if os.path.exists(path) else None


def install() -> None:
    """Debian and Ubuntu as root: the system's package with Korean fonts. Elsewhere: playwright's own download."""
    if os.name == "posix" and hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "update", "-qq"], check=False)
        subprocess.run(["apt-get", "install", "-y", "-qq", "chromium", "fonts-noto-cjk"], check=False)
    else:
        subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=False)


def main() -> int:
    if installed() is None:
        print("No browser found; installing one for the tests")
        install()
    path = installed()
    if path is None:
        print(
            "The browser tests need Chromium or Chrome, and it could not be installed here.\n"
            "Install it (Debian/Ubuntu: apt-get install chromium fonts-noto-cjk; macOS: brew install --cask chromium)\n"
            "or set NARANHI_BROWSER to its path. The other tests run without it."
        )
        return 1 if os.environ.get("CI") else 0
    print(f"browser: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
