"""The page of a server that makes clips only: no dead player, a line that makes a clip."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest_asyncio
from PIL import Image
from playwright.async_api import expect
from serving import Server, serve
from viewer import PHONE, Opener


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def clips(tiny_720p: Path) -> AsyncIterator[Server]:
    async with serve(tiny_720p, "--threads", "1") as running:
        yield running


async def test_the_page_makes_a_clip_and_shows_it(view: Opener, clips: Server) -> None:
    viewer = await view("/", url=clips.url, state="clips")
    page = viewer.page
    await expect(page.locator("#card")).to_contain_text("is not causal, it decodes whole clips only")
    for part in ("#deck", "#share-open", "#viewers", "#video-ws", "#video-rtc"):
        await expect(page.locator(part)).to_be_hidden()
    await page.keyboard.press("/")
    line = page.get_by_role("textbox", name="Prompt").last
    await expect(line).to_be_focused()
    await line.fill(" ")
    await line.press("Enter")
    await expect(page.locator("#maker .note")).to_have_text("a prompt is needed")
    await page.get_by_role("combobox", name="Length").select_option("1")
    await line.fill("the sea at night")
    await line.press("Enter")
    await expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    video = page.locator("#clip")
    await expect(video).to_be_visible(timeout=60_000)
    await expect(page.locator("#card")).to_be_hidden()
    await page.wait_for_function("() => document.querySelector('#clip').readyState >= 2")
    assert await video.evaluate("(video) => [video.videoWidth, video.videoHeight]") == [128, 64]
    await expect(page.get_by_role("link", name="Save the clip")).to_have_attribute("download", "the sea at night.mp4")
    # It is there again after a reload, and a stream's page says the same.
    await page.goto(f"{clips.url}/s/str_0")
    await viewer.state("clips")
    await page.locator(".shelf button").click()
    await expect(video).to_be_visible()
    assert await page.evaluate("""() => {
      const event = new KeyboardEvent("keydown", { key: " ", bubbles: true, cancelable: true });
      return document.querySelector("#clip").dispatchEvent(event); // not taken: the player's own
    }""")
    await page.get_by_role("button", name="Delete it").click()
    await expect(page.locator("#card")).to_be_visible()
    await expect(page.locator(".shelf li")).to_have_count(0)
    async with httpx.AsyncClient(base_url=clips.url) as http:
        assert (await http.get("/v1/videos")).json()["data"] == []


async def test_a_clip_that_waits_can_be_cancelled_on_a_phone(view: Opener, clips: Server) -> None:
    async with httpx.AsyncClient(base_url=clips.url, timeout=20) as http:
        form = {"prompt": "the sea", "seconds": 5, "steps": 100}
        before = [(await http.post("/v1/videos", json=form)).headers["Location"] for _ in range(2)]
        viewer = await view("/", url=clips.url, state="clips", size=PHONE, touch=True)
        page = viewer.page
        await page.locator("#maker input[type=file]").set_input_files(
            {"name": "a.png", "mimeType": "image/png", "buffer": picture()}
        )
        await expect(page.locator("#maker .start img")).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        await page.get_by_role("button", name="Make a clip").click()
        await expect(page.locator("#maker .note")).to_contain_text("made first")
        listed = (await http.get("/v1/videos", params={"limit": 1})).json()["data"]
        assert listed[0]["size"] == "64x128"  # upright, as the picture
        await page.get_by_role("textbox", name="Prompt").last.press("Enter")  # the next prompt cancels nothing
        await page.get_by_role("button", name="Cancel").click()
        await expect(page.get_by_role("button", name="Make a clip")).to_be_enabled()
        await expect(page.locator("#maker .note")).to_have_text("")
        await expect(page.locator("#clip")).to_be_hidden()
        for path in before:
            assert (await http.delete(path)).status_code == 200
        listed = (await http.get("/v1/videos", params={"limit": 1})).json()["data"]
        assert listed == []  # the one that waited is gone


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (60, 80), "teal").save(file, "PNG")
    return file.getvalue()
