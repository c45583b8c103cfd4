"""Takes the pictures of the admin that the documentation shows.

    python docs/screenshots.py [--browser /usr/bin/chromium]

Makes a scratch database, runs the demo's site on it, and drives it with a browser. Needs Django and
Playwright, and a Chromium.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
WIDTH = 1280
# Scripts that wait for a change of the page would only slow this down.
PATIENCE = 10_000


def main() -> None:
    """All pictures, into docs/images."""
    parser = argparse.ArgumentParser(description="Take the pictures for the documentation.")
    parser.add_argument("--browser", default="/usr/bin/chromium", help="the browser's program")
    parser.add_argument("--into", type=Path, default=IMAGES, help="the directory for the pictures")
    options = parser.parse_args()
    options.into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        set_up(Path(scratch))
        from screenshot_scenes import make_scenes

        pages = make_scenes()
        with site() as address, browser(options.browser) as chromium:
            for dark in (False, True):
                shoot(chromium, address, pages, options.into, dark=dark)


def set_up(scratch: Path) -> None:
    """Django with the demo's settings, and a database of its own."""
    sys.path[:0] = [str(ROOT), str(ROOT / "testproject"), str(ROOT / "docs")]
    os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
    # Playwright's loop runs in this thread, and so does the making of the scenes.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    import django
    from django.conf import settings
    from django.core.management import call_command

    settings.DATABASES["default"]["NAME"] = scratch / "db.sqlite3"
    django.setup()
    call_command("migrate", verbosity=0)


@contextmanager
def site() -> Iterator[str]:
    """The demo's site with its static files, in a thread; its address."""
    from django.contrib.staticfiles.handlers import StaticFilesHandler
    from django.core.handlers.wsgi import WSGIHandler
    from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler

    class Quiet(WSGIRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadedWSGIServer(("127.0.0.1", 0), Quiet)
    server.set_app(StaticFilesHandler(WSGIHandler()))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def browser(program: str) -> Iterator[Any]:
    """A browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def session_of(username: str) -> tuple[str, str]:
    """The cookie of a browser in which the user has signed in."""
    from django.conf import settings
    from django.contrib.auth import get_user_model
    from django.test import Client

    client = Client()
    client.force_login(get_user_model()._default_manager.get(username=username))
    return settings.SESSION_COOKIE_NAME, client.cookies[settings.SESSION_COOKIE_NAME].value


def shoot(chromium: Any, address: str, pages: Any, into: Path, *, dark: bool) -> None:
    """Take each page's picture, signed in; in the dark only those that are wanted so."""
    scheme = "dark" if dark else "light"
    context = chromium.new_context(
        viewport={"width": WIDTH, "height": 800}, color_scheme=scheme, reduced_motion="reduce"
    )
    context.set_default_timeout(PATIENCE)
    name, value = session_of("anna")
    context.add_cookies([{"name": name, "value": value, "url": address}])
    page = context.new_page()
    for shot in pages:
        if dark and not shot.dark:
            continue
        page.goto(address + shot.path)
        page.evaluate("document.getElementById('nav-sidebar')?.remove()")
        page.evaluate("document.getElementById('toggle-nav-sidebar')?.remove()")
        if shot.open:
            page.click(shot.open)
        name = f"{shot.name}-dark" if dark else shot.name
        height = min(page.evaluate("document.documentElement.scrollHeight"), shot.height)
        page.set_viewport_size({"width": WIDTH, "height": height})
        target = into / f"{name}.png"
        page.screenshot(path=target)
        page.set_viewport_size({"width": WIDTH, "height": 800})
        print(f"{target.name}: {target.stat().st_size // 1024} KB")  # noqa: T201
    context.close()


if __name__ == "__main__":
    main()
