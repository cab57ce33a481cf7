"""A real server with a tiny checkpoint, and Chromium pages on it: one of each a session, a test opens its pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, ViewportSize, async_playwright
from serving import Server, serve
from viewer import DESK, Opener, Viewer

STARTER = Path(__file__).resolve().parents[2] / "model" / "starter"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-sync",
    "--no-first-run",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The server, the browser and the tests share one event loop."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server(tiny_model: Path) -> AsyncIterator[Server]:
    async with serve(tiny_model, "--max-streams", "1", "--rate-hz", "16") as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def starter() -> AsyncIterator[Server]:
    """A server with weights that follow prompts: the shipped ones, or those that STREAMER_TEST_MODEL names."""
    model = Path(os.environ.get("STREAMER_TEST_MODEL", STARTER))
    if not (model / "model_index.json").exists():
        pytest.skip(f"no checkpoint in {model}")
    async with serve(model, "--prompt", "the sea by day", "--seed", "3") as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def view(server: Server, chromium: Browser) -> AsyncIterator[Opener]:
    """Open a page: `await view("/?transport=ws")`; live unless told otherwise."""
    viewers: list[Viewer] = []

    async def opened(
        path: str = "/", *, url: str = server.url, size: ViewportSize = DESK, touch: bool = False, state: str = "live"
    ) -> Viewer:
        context = await chromium.new_context(viewport=size, has_touch=touch, is_mobile=touch)
        page = await context.new_page()
        viewer = Viewer(page, context)
        page.on("pageerror", lambda error: viewer.errors.append(str(error)))
        viewers.append(viewer)
        await page.goto(url + path)
        if state:
            await viewer.state(state)
        return viewer

    yield opened
    errors = [error for viewer in viewers for error in viewer.errors]
    for viewer in viewers:
        await viewer.context.close()
    assert not errors


@pytest_asyncio.fixture(loop_scope="session")
async def api(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"{server.url}/v1", timeout=20) as client:
        yield client
