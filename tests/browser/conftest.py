"""A real Chromium on the example pages, served over HTTP with the headers of the real service."""

import os
import socket
import threading
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, sync_playwright

from tests.browser.preview import preview_app

VIEWPORT: ViewportSize = {"width": 1360, "height": 900}


@pytest.fixture(scope="session")
def site() -> Generator[str]:
    """Address of the example pages."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(preview_app(), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="example pages")
        thread.start()
        try:
            # connections queue in the listening socket until the server takes them: nothing to wait for
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="session")
def browser(require_program: Callable[..., Path]) -> Generator[Browser]:
    """The system's Chromium."""
    executable = os.environ.get("CHROMIUM") or require_program("chromium", "chromium-browser", "google-chrome")
    # Chromium refuses its sandbox to root, which is who containers run as
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=flags)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def light_context(browser: Browser) -> Generator[BrowserContext]:
    """One context for all tests that store nothing: its cache keeps plotly compiled."""
    context = browser.new_context(color_scheme="light", viewport=VIEWPORT)
    yield context
    context.close()


@pytest.fixture
def open_page(browser: Browser, light_context: BrowserContext, site: str) -> Generator[Callable[..., Page]]:
    """`open_page(path, dark=False)` opens a page; at the end no page may have logged an error.

    A dark page has a context of its own, for it may store a choice of theme.
    """
    faults: list[str] = []
    closing: list[Page | BrowserContext] = []

    def open_one(path: str, *, dark: bool = False) -> Page:
        context = browser.new_context(color_scheme="dark", viewport=VIEWPORT) if dark else light_context
        page = context.new_page()
        closing.append(context if dark else page)
        page.set_default_timeout(20_000)
        page.on(
            "console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("requestfailed", lambda request: faults.append(f"{request.url}: {request.failure}"))
        page.goto(path if "://" in path else site + path)
        return page

    yield open_one
    for opened in closing:
        opened.close()
    # a page gives up its own requests when the reader moves on or the test closes it
    assert [fault for fault in faults if "ERR_ABORTED" not in fault] == []
