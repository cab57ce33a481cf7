"""What a test sees of a page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from playwright.async_api import BrowserContext, Page, ViewportSize

DESK: ViewportSize = {"width": 1440, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
OPENED_S = 30.0


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
            await self.page.evaluate(
                "document.querySelector('#frame video.on')?.getVideoPlaybackQuality().totalVideoFrames ?? 0"
            )
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

    async def steer(self, id: str, state: str = "shown", within_s: float = 20.0) -> None:
        """Wait for the flag of one steer."""
        selector = f'.flag[data-id="{id}"][data-state="{state}"]'
        await self.page.wait_for_selector(selector, state="attached", timeout=within_s * 1000)

    async def flag(self, label: str, state: str, within_s: float = 20.0) -> None:
        """Wait for a flag that says this: of a steer that was made on this page."""
        selector = f'.flag[data-state="{state}"] b:text-matches("^{label}( · late .*)?$")'
        await self.page.wait_for_selector(selector, state="attached", timeout=within_s * 1000)


Opener = Callable[..., Awaitable[Viewer]]
