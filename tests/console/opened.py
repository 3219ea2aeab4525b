"""The console in a tab of a real browser."""

from __future__ import annotations

from types import TracebackType
from typing import Literal

from playwright.sync_api import Browser, ConsoleMessage, Page, Request, ViewportSize

WIDE: ViewportSize = {"width": 1440, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
LIVE_MS = 30_000


class Console:
    """A tab; a context manager.

    Args:
        url: Of the service.
        key: Put where the console keeps it; None leaves it to the page to ask.
        size: Of the window.
        colours: What the browser says that its user prefers.

    Attributes:
        problems: What the browser said was wrong with the page, and requests to other hosts.
    """

    def __init__(
        self,
        browser: Browser,
        url: str,
        key: str | None,
        size: ViewportSize = WIDE,
        colours: Literal["light", "dark"] = "light",
    ) -> None:
        self.url = url
        self.problems: list[str] = []
        self._context = browser.new_context(
            viewport=size,
            color_scheme=colours,
            permissions=["clipboard-read", "clipboard-write"],
        )
        if key is not None:
            self._context.add_init_script(f"sessionStorage.setItem('quantserve.key', '{key}')")
        self.page: Page = self._context.new_page()
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", self._note_request)

    def __enter__(self) -> Console:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._context.close()

    def open(self, link: str) -> Page:
        """Open a page by what stands behind the ``#``, and wait until it is live."""
        self.page.goto(f"{self.url}/#/{link}")
        self.page.locator(".tools .state", has_text="live").wait_for(timeout=LIVE_MS)
        return self.page

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(message.text)

    def _note_request(self, request: Request) -> None:
        url = request.url
        if not url.startswith((self.url, "data:")):
            self.problems.append(f"a request to {url}")
