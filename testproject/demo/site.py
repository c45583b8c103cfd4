"""The running site, as a browser sees it: forms are posted, cookies kept, redirects followed."""

from __future__ import annotations

import html
import json
import re
from http.cookiejar import CookieJar
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, ProxyHandler, build_opener

from .children import DemoError, UnfitStateError

PATIENCE = 30.0
"""Seconds after which an answer is not waited for any more."""


class SiteSilentError(DemoError):
    """The site does not answer at all."""


class Site:
    """A client with a cookie jar, for one address."""

    def __init__(self, address: str) -> None:
        self.address = address
        # No proxy, whatever the environment says: the site is on this machine.
        self._opener = build_opener(ProxyHandler({}), HTTPCookieProcessor(CookieJar()))

    def answers(self) -> bool:
        """Whether it is up."""
        try:
            self._open(self.address)
        except SiteSilentError:
            return False
        return True

    def start_census(self, path: str) -> str:
        """Fill in the form on the first page and press its button: the census's page."""
        _, form = self._open(self.address)
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form)
        fields = {"path": path, "csrfmiddlewaretoken": token[1] if token else ""}
        page, body = self._open(self.address, urlencode(fields).encode())
        if page == self.address:  # Not sent on to another page: the form came back.
            complaint = re.search(r'class="errorlist"[^>]*>\s*<li>(.*?)</li>', body, re.DOTALL)
            raise DemoError(html.unescape(complaint[1]) if complaint else "The form was refused.")
        return page

    def progress(self, page: str) -> dict[str, Any]:
        """How far the census of that page is, and its report once there is one."""
        answer: dict[str, Any] = json.loads(self._open(f"{page}progress.json")[1])
        return answer

    def _open(self, address: str, data: bytes | None = None) -> tuple[str, str]:
        """The address after all redirects, and the text there."""
        try:
            with self._opener.open(address, data, timeout=PATIENCE) as response:
                return response.url, response.read().decode()
        except HTTPError as error:
            raise UnfitStateError(f"{address} answered {error.code} {error.reason}.") from error
        except OSError as error:
            raise SiteSilentError(f"{address} does not answer: {error}") from error
