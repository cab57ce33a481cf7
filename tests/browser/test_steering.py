"""A steer made through the page: from the key to the picture on this screen."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
from playwright.async_api import expect
from serving import Server
from viewer import Opener, Viewer


async def steers(api: httpx.AsyncClient) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = (await api.get("/streams/main/steers")).json()["steers"]
    return listed


async def open_bank(viewer: Viewer, name: str) -> None:
    await viewer.page.get_by_role("tab", name=name).click()


async def from_prompt(viewer: Viewer, api: httpx.AsyncClient, prompt: str) -> None:
    """Have `main` show this prompt before the test begins."""
    made = (await api.post("/streams/main/steers", json={"prompt": prompt})).json()
    await viewer.steer(made["id"])


async def test_a_pad_changes_one_attribute_and_tells_how_long_it_took(view: Opener, api: httpx.AsyncClient) -> None:
    viewer = await view("/")
    await from_prompt(viewer, api, "the sea by day")
    await open_bank(viewer, "time of day")
    await viewer.page.locator("#bar").click()
    flags = await viewer.page.evaluate(
        """() => {
          document.body.dispatchEvent(new KeyboardEvent("keydown", {key: "2", code: "Digit2", bubbles: true}));
          return [...document.querySelectorAll('.flag[data-state="asked"]')].map((flag) => flag.textContent);
        }"""
    )
    assert flags == ["night"]  # dashed before the next frame, and before the server knows
    await expect(viewer.page.locator("#prompt")).to_have_value("the sea at night")
    await viewer.flag("night", "shown")
    assert (await steers(api))[-1]["prompt"] == "the sea at night"
    await expect(viewer.page.locator("#ring")).to_have_attribute("data-state", re.compile("shown|late"))
    await expect(viewer.page.locator("#ring b")).to_have_text(re.compile(r"^\d+\.\d s$"))
    await expect(viewer.page.locator("#live")).to_have_text(re.compile(r"^Shown: night, \d+\.\d s$"))
    await expect(viewer.page.locator(".pad", has_text="night")).to_have_attribute("aria-pressed", "true")
    await expect(viewer.page.locator("#video-rtc")).to_have_attribute("aria-label", "the sea at night")


async def test_the_filmstrip_fills_with_stills(view: Opener) -> None:
    viewer = await view("/")
    await viewer.page.wait_for_function("() => document.querySelectorAll('.block canvas').length >= 2")
    viewer_now = viewer.page.locator("#timeline")
    await viewer_now.focus()
    await viewer.page.keyboard.press("ArrowLeft")
    chosen = viewer.page.locator('.block[aria-selected="true"]')
    await expect(chosen).to_have_attribute("aria-label", re.compile(r"^Block \d+, \d+:\d\d, .+"))
    await expect(viewer.page.locator("#preview")).to_be_visible()
    await viewer.page.keyboard.press("Escape")
    await expect(viewer.page.locator("#preview")).to_be_hidden()
    await viewer.page.keyboard.press("ArrowLeft")
    await expect(viewer.page.locator("#preview")).to_be_visible()
    for _ in range(3):
        await viewer.page.keyboard.press("ArrowRight")
    await expect(viewer.page.locator("#preview")).to_be_hidden()


async def test_another_viewers_steer_shows_here_too(view: Opener, api: httpx.AsyncClient) -> None:
    first, second = await view("/"), await view("/?transport=ws")
    await asyncio.gather(first.plays(8), second.plays(8))
    await first.page.locator("#prompt").fill("snowy mountains by day")
    await first.page.keyboard.press("Enter")
    await first.page.wait_for_selector('.flag[data-state="queued"], .flag[data-state="locked"]', state="attached")
    asked = (await steers(api))[-1]
    assert asked["prompt"] == "snowy mountains by day"
    await asyncio.gather(first.steer(asked["id"]), second.steer(asked["id"]))
    await expect(second.page.locator("#prompt")).to_have_value("snowy mountains by day")


async def test_words_that_it_does_not_know_are_marked_before_they_are_sent(
    view: Opener, api: httpx.AsyncClient
) -> None:
    viewer = await view("/")
    before = len(await steers(api))
    await viewer.page.keyboard.press("/")
    await viewer.page.keyboard.type("a castle on the ocan at midnight")
    await expect(viewer.page.locator("#mirror u")).to_have_text(["castle", "ocan", "midnight"])
    offers = viewer.page.locator("#note button")
    await expect(offers).to_have_text(["ocan ocean", "midnight night"])
    await offers.first.click()
    await expect(viewer.page.locator("#prompt")).to_have_value("a castle on the ocean at midnight")
    assert len(await steers(api)) == before


async def test_a_prompt_that_is_too_long_is_refused_under_the_field_and_kept(
    view: Opener, api: httpx.AsyncClient
) -> None:
    limit = (await api.get("/model")).json()["limits"]["prompt_chars"]
    viewer = await view("/")
    text = "sea " * (limit // 4) + "night"
    await viewer.page.locator("#prompt").fill(text)
    await viewer.page.keyboard.press("Enter")
    await expect(viewer.page.locator("#note")).to_contain_text(str(limit))
    await expect(viewer.page.locator("#prompt")).to_have_value(text)
    await expect(viewer.page.locator('.flag[data-state="failed"]')).to_have_count(1)


async def test_an_armed_pad_waits_for_go(view: Opener, api: httpx.AsyncClient) -> None:
    viewer = await view("/")
    await from_prompt(viewer, api, "the sea by day")
    before = len(await steers(api))
    await viewer.page.keyboard.press("Shift+Digit2")
    await expect(viewer.page.locator("#go")).to_have_text(re.compile(r"GO\s+mountains"))
    assert len(await steers(api)) == before
    await viewer.page.keyboard.press("Space")
    await viewer.flag("mountains", "shown")
    assert (await steers(api))[-1]["prompt"] == "snowy mountains by day"
    await expect(viewer.page.locator("#go")).to_be_hidden()


async def test_a_pad_dragged_to_the_timeline_is_a_cue_that_escape_takes_back(
    view: Opener, api: httpx.AsyncClient
) -> None:
    viewer = await view("/")
    await viewer.plays(8)
    before = await viewer.page.locator("#prompt").input_value()
    pad = await viewer.page.locator(".pad", has_text="mountains").bounding_box()
    line = await viewer.page.locator("#timeline").bounding_box()
    assert pad
    assert line
    await viewer.page.mouse.move(pad["x"] + 30, pad["y"] + 30)
    await viewer.page.mouse.down()
    await viewer.page.mouse.move(line["x"] + line["width"] - 30, line["y"] + 40, steps=6)
    await expect(viewer.page.locator(".ghost")).to_be_visible()
    await viewer.page.mouse.up()
    await viewer.flag("mountains", "queued")
    cue = (await steers(api))[-1]
    assert cue["status"] == "queued"
    assert cue["eta_s"] > 8
    await viewer.page.keyboard.press("Escape")
    await viewer.flag("mountains", "cancelled")
    assert (await steers(api))[-1]["status"] == "cancelled"
    await expect(viewer.page.locator("#prompt")).to_have_value(before)  # nor would a slider ask for it again


async def test_who_may_not_steer_only_watches(view: Opener) -> None:
    viewer = await view("/")
    refusal = {"code": "token-missing", "detail": "this needs the stream's control token"}
    await viewer.page.route("**/steers", lambda route: route.fulfill(status=401, json=refusal))
    await viewer.page.keyboard.press("1")
    await expect(viewer.page.locator("#deck")).to_be_hidden()
    await expect(viewer.page.locator("#caption")).to_be_visible()


async def test_night_makes_the_picture_dark(starter: Server, view: Opener) -> None:
    viewer = await view("/", url=starter.url)
    await viewer.plays(16)
    day = await viewer.brightness()
    await open_bank(viewer, "time of day")
    await viewer.page.locator(".pad", has_text="night").click()
    await viewer.flag("night", "shown", within_s=30)
    for _ in range(12):
        await viewer.plays(8)
        if await viewer.brightness() < 0.7 * day:
            return
    raise AssertionError(f"as bright as before: {day:.0f}, now {await viewer.brightness():.0f}")
