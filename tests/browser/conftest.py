"""A real server with a tiny checkpoint, and Chromium pages on it. One of each a session; a test opens its own pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, ViewportSize, async_playwright
from serving import Server, serve

STARTER = Path(__file__).resolve().parents[2] / "model" / "starter"
DESK: ViewportSize = {"width": 1440, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-sync",
    "--no-first-run",
]
OPENED_S = 30.0


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


@dataclass
class Viewer:
    """A page on a stream. What went wrong in it fails the test."""

    page: Page
    context: BrowserContext
    errors: list[str] = field(default_factory=list)

    async def state(self, state: str, within_s: float = OPENED_S) -> None:
        """Wait until the page says that it is live, gone, …"""
        await self.page.wait_for_selector(f'body[data-state="{state}"]', timeout=within_s * 1000)

    async def decoded(self) -> int:
        """Pictures decoded by the element on the stage."""
        return int(
            await self.page.evaluate("document.querySelector('#frame video.on')?.getVideoPlaybackQuality().totalVideoFrames ?? 0")
        )

    async def plays(self, pictures: int = 16, within_s: float = OPENED_S) -> None:
        """Wait until the element on the stage has decoded this many more."""
        before = await self.decoded()
        await self.page.wait_for_function(
            "n => (document.querySelector('#frame video.on')?.getVideoPlaybackQuality().totalVideoFrames ?? 0) >= n",
            arg=before + pictures,
            timeout=within_s * 1000,
        )

    async def brightness(self) -> float:
        """Mean of the picture on the stage, 0 to 255."""
        return float(
            await self.page.evaluate(
                """() => {
                  const canvas = new OffscreenCanvas(32, 18), context = canvas.getContext("2d");
                  context.drawImage(document.querySelector("#frame video.on"), 0, 0, 32, 18);
                  const {data} = context.getImageData(0, 0, 32, 18);
                  return data.reduce((sum, value, i) => (i % 4 === 3 ? sum : sum + value), 0) / (32 * 18 * 3);
                }"""
            )
        )

    async def flag(self, label: str, state: str, within_s: float = 15.0) -> None:
        """Wait for a steer's flag on the timeline."""
        selector = f'.flag[data-state="{state}"] b:text-is("{label}")'
        await self.page.wait_for_selector(selector, state="attached", timeout=within_s * 1000)


Opener = Callable[..., Awaitable[Viewer]]


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
