"""What a wall needs: a code to scan, and a way back to what its owner chose."""

from __future__ import annotations

import httpx
from viewer import Opener


async def test_a_wall_shows_a_code_only_when_it_is_asked_to(view: Opener) -> None:
    plain = await view("/?kiosk&transport=ws")
    assert await plain.page.locator("img.qr").count() == 0
    wall = await view("/?kiosk&qr&transport=ws")
    code = wall.page.locator("#stage > img.qr")
    assert await code.is_visible()
    assert await code.evaluate("(image) => image.decode().then(() => image.naturalWidth > 0)")


async def test_the_share_sheet_has_codes(view: Opener) -> None:
    viewer = await view("/?transport=ws")
    await viewer.page.locator("#share-open").click()
    codes = viewer.page.locator("#share img.qr")
    assert await codes.count() == 2
    assert await codes.first.evaluate("(image) => image.decode().then(() => image.naturalWidth > 0)")


async def test_the_held_full_stop_is_the_safe_scene(view: Opener, api: httpx.AsyncClient) -> None:
    safe = (await api.get("/model")).json()["prompt"]
    viewer = await view("/?transport=ws")
    await viewer.page.keyboard.press(".", delay=50)
    await viewer.page.keyboard.press("2")
    await viewer.page.wait_for_selector('.flag[data-state="shown"]', state="attached")
    before = (await api.get("/streams/main/steers")).json()["steers"]
    assert before[-1]["prompt"] != safe, "a short press is none"
    await viewer.page.keyboard.press(".", delay=900)
    await viewer.flag(safe, "shown")
    after = (await api.get("/streams/main/steers")).json()["steers"]
    assert after[-1]["prompt"] == safe
